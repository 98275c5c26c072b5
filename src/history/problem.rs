//! One key's history, made ready for the search: values become numbers, and what cannot matter is
//! left out.
//!
//! Each reduction keeps the answer, in both directions:
//! - A get of unknown outcome says nothing: left out.
//! - A write of unknown outcome whose value was never read is left out. In any valid order that has
//!   it, no get stands between it and the next write, so the order is as valid without it.
//! - A value with only one writer: the writer comes before each get of it. So the get cannot come
//!   before the writer's call, nor the writer after the first return of a get; and a writer of
//!   unknown outcome whose value was read did happen.
//! - The other writes of unknown outcome write a value that others write too (a delete, mostly).
//!   Such a write is a *supply*: the search may use it to explain a get, or not.

use crate::history::operation::{Kind, Operation};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// A value's number.
pub(super) type ValueId = u32;

/// The key does not exist: the state before all operations, and after a delete.
pub(super) const ABSENT: ValueId = 0;

/// An operation that has to be given a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) call: u64,
    pub(super) ret: u64,
    /// Written, or read.
    pub(super) value: ValueId,
    pub(super) is_write: bool,
    /// Which of the operations it is, in the order in which they were given.
    pub(super) operation: usize,
}

/// What the search has to solve.
#[derive(Debug)]
pub(super) struct Problem {
    /// In the order of their calls.
    pub(super) items: Vec<Item>,
    /// For each value: calls of the writes that may happen or not, ascending.
    pub(super) supplies: Vec<Vec<u64>>,
}

/// Makes the operations of one key ready. `None`: no order can explain them, since a client read a
/// value that was never written.
pub(super) fn problem<'a>(operations: impl Iterator<Item = &'a Operation>) -> Option<Problem> {
    let mut ids: BTreeMap<&[u8], ValueId> = BTreeMap::new();
    let mut writers: Vec<Vec<(u64, Option<u64>, usize)>> = vec![Vec::new()];
    let mut readers: Vec<Vec<(u64, u64, usize)>> = vec![Vec::new()];
    for (number, operation) in operations.enumerate() {
        let bytes = match &operation.kind {
            Kind::Set(value) | Kind::Get(Some(value)) => Some(&value[..]),
            Kind::Delete | Kind::Get(None) => None,
        };
        let value = bytes.map_or(ABSENT, |bytes| {
            *ids.entry(bytes).or_insert_with(|| {
                writers.push(Vec::new());
                readers.push(Vec::new());
                u32::try_from(writers.len() - 1).expect("a history in memory has fewer values")
            })
        });
        match (&operation.kind, operation.ret) {
            (Kind::Get(_), Some(ret)) => readers[value as usize].push((operation.call, ret, number)),
            (Kind::Get(_), None) => {}
            (Kind::Set(_) | Kind::Delete, ret) => {
                writers[value as usize].push((operation.call, ret, number));
            }
        }
    }

    let mut problem = Problem { items: Vec::new(), supplies: vec![Vec::new(); writers.len()] };
    for (value, (writers, readers)) in (ABSENT..).zip(writers.into_iter().zip(readers)) {
        problem.add_value(value, &writers, &readers)?;
    }
    problem.items.sort_unstable_by_key(|item| (item.call, item.ret));
    problem.supplies.iter_mut().for_each(|calls| calls.sort_unstable());
    Some(problem)
}

impl Problem {
    fn add_value(
        &mut self,
        value: ValueId,
        writers: &[(u64, Option<u64>, usize)],
        readers: &[(u64, u64, usize)],
    ) -> Option<()> {
        let mut read_not_before = 0;
        let first_read = readers.iter().map(|(_, ret, _)| *ret).min();
        match (writers, first_read) {
            ([], Some(_)) if value != ABSENT => return None,
            ([(call, ret, operation)], Some(first_read)) if value != ABSENT => {
                if *call > first_read {
                    return None;
                }
                read_not_before = *call;
                let ret = ret.map_or(first_read, |ret| ret.min(first_read));
                let (call, operation) = (*call, *operation);
                self.items.push(Item { call, ret, value, is_write: true, operation });
            }
            _ => {
                for &(call, ret, operation) in writers {
                    match ret {
                        Some(ret) => self.items.push(Item { call, ret, value, is_write: true, operation }),
                        None if first_read.is_some() => self.supplies[value as usize].push(call),
                        None => {}
                    }
                }
            }
        }
        self.items.extend(readers.iter().map(|&(call, ret, operation)| Item {
            call: call.max(read_not_before),
            ret,
            value,
            is_write: false,
            operation,
        }));
        Some(())
    }
}
