//! The store's revisions as clients observed them, over all keys.
//!
//! A revision numbers one mutation of the whole store. So no two sets share one. A get that saw a
//! revision saw that set. An operation that is called after a revision has been observed can only
//! make later ones, and sees no earlier one of the same key.

use crate::history::explain::Violation;
use crate::history::operation::{Kind, Operation};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Checks the revisions that were observed. A revision that was not observed cannot be wrong.
pub(super) fn check_revisions(operations: &[Operation]) -> Result<(), Violation> {
    check_identity(operations)?;
    check_order(operations)
}

/// No two sets share a revision, and a get saw the set whose revision it saw.
fn check_identity(operations: &[Operation]) -> Result<(), Violation> {
    let mut seen: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in operations {
        let (Some(revision), Kind::Set(value) | Kind::Get(Some(value))) =
            (operation.revision, &operation.kind)
        else {
            continue;
        };
        let Some(other) = seen.insert(revision, operation) else { continue };
        let (Kind::Set(other_value) | Kind::Get(Some(other_value))) = &other.kind else { continue };
        if matches!((&operation.kind, &other.kind), (Kind::Set(_), Kind::Set(_))) {
            return Err(violation("two sets made the same revision", other, operation));
        }
        if operation.key != other.key || value != other_value {
            return Err(violation("one revision stands for two different sets", other, operation));
        }
        // Keep the set: the next one is compared with it.
        if matches!(other.kind, Kind::Set(_)) {
            seen.insert(revision, other);
        }
    }
    Ok(())
}

/// Revisions do not go back in time.
fn check_order(operations: &[Operation]) -> Result<(), Violation> {
    let revised = |operation: &&Operation| operation.revision.is_some() && operation.ret.is_some();
    let mut by_call: Vec<&Operation> = operations.iter().filter(revised).collect();
    let mut by_ret = by_call.clone();
    by_call.sort_by_key(|operation| operation.call);
    by_ret.sort_by_key(|operation| operation.ret);
    let mut returned = by_ret.into_iter().peekable();
    let mut newest: Option<&Operation> = None;
    let mut newest_of_key: BTreeMap<&[u8], &Operation> = BTreeMap::new();
    for operation in by_call {
        while let Some(earlier) = returned.next_if(|earlier| earlier.precedes(operation)) {
            if newest.is_none_or(|newest| newest.revision < earlier.revision) {
                newest = Some(earlier);
            }
            let of_key = newest_of_key.entry(&earlier.key).or_insert(earlier);
            if of_key.revision < earlier.revision {
                *of_key = earlier;
            }
        }
        match (&operation.kind, newest) {
            (Kind::Set(_), Some(newest)) if newest.revision >= operation.revision => {
                let reason = "a set made a revision that is not above one observed before it was called";
                return Err(violation(reason, newest, operation));
            }
            _ => {}
        }
        match (&operation.kind, newest_of_key.get(&operation.key[..])) {
            (Kind::Get(_), Some(newest)) if newest.revision > operation.revision => {
                let reason = "a get saw an older revision than was observed before it was called";
                return Err(violation(reason, newest, operation));
            }
            _ => {}
        }
    }
    Ok(())
}

fn violation(reason: &'static str, one: &Operation, other: &Operation) -> Violation {
    Violation { key: other.key.clone(), reason, operations: vec![one.clone(), other.clone()] }
}
