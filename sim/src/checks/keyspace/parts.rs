//! What a comparison says, and what an answer takes.

use bytes::Bytes;
use infinitystore::kv::{
    Compare, CompareOrder, KeyValue, LeaseId, Outcome, Revision, Target, Txn, TxnOp, TxnResult,
};
use std::cmp::Ordering;

/// What a key that does not exist counts as.
pub(super) fn nothing(key: &Bytes) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: Bytes::new(),
        create_revision: Revision(0),
        mod_revision: Revision(0),
        version: 0,
        lease: LeaseId::NONE,
    }
}

/// Whether a comparison of a key holds.
pub(super) fn compares(compare: &Compare, found: &KeyValue) -> bool {
    let order = match &compare.target {
        Target::Value(value) => found.value.cmp(value),
        Target::Version(version) => found.version.cmp(version),
        Target::CreateRevision(revision) => found.create_revision.cmp(revision),
        Target::ModRevision(revision) => found.mod_revision.cmp(revision),
        Target::Lease(lease) => found.lease.cmp(lease),
    };
    match compare.order {
        CompareOrder::Equal => order == Ordering::Equal,
        CompareOrder::NotEqual => order != Ordering::Equal,
        CompareOrder::Less => order == Ordering::Less,
        CompareOrder::Greater => order == Ordering::Greater,
    }
}

/// How many reads a transaction has, whichever branches it takes.
pub(super) fn reads_in(txn: &Txn) -> usize {
    let reads = txn.success.iter().chain(&txn.failure).map(|op| match op {
        TxnOp::Get(_) => 1,
        TxnOp::Txn(inner) => reads_in(inner),
        TxnOp::Put(_) | TxnOp::Delete(_) => 0,
    });
    reads.sum()
}

/// What a transaction did, without what it read: of each page that holds something it is only known
/// that there is more.
pub(super) fn without_reads(outcome: &Outcome) -> Outcome {
    fn forget(results: &mut [TxnResult]) {
        for result in results {
            match result {
                TxnResult::Txn { results, .. } => forget(results),
                TxnResult::Range(page)
                    if !page.kvs.is_empty() || !page.prefixes.is_empty() || page.next.is_some() =>
                {
                    (page.kvs, page.prefixes, page.next) = (Vec::new(), Vec::new(), Some(Bytes::new()));
                }
                TxnResult::Put { .. } | TxnResult::Deleted { .. } | TxnResult::Range(_) => {}
            }
        }
    }
    let mut outcome = outcome.clone();
    if let Outcome::Txn { results, .. } = &mut outcome {
        forget(results);
    }
    outcome
}

/// What an answer takes where it is remembered.
pub(super) fn outcome_bytes(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Put { .. } | Outcome::Deleted { .. } | Outcome::Granted { .. } | Outcome::Revoked { .. } => {
            17
        }
        Outcome::Txn { results, .. } => 9 + results_bytes(results),
        Outcome::Incremented { .. } | Outcome::Configured(_) => 25,
        Outcome::Compacted(_) | Outcome::Secured(_) => 9,
        Outcome::Refused(_) => 18,
    }
}

fn results_bytes(results: &[TxnResult]) -> u64 {
    let each = results.iter().map(|result| match result {
        TxnResult::Put { .. } | TxnResult::Deleted { .. } => 9,
        TxnResult::Txn { results, .. } => 1 + results_bytes(results),
        TxnResult::Range(page) => {
            let kvs = page.kvs.iter().map(|kv| 40 + (kv.key.len() + kv.value.len()) as u64);
            let prefixes = page.prefixes.iter().map(|prefix| 4 + prefix.len() as u64);
            let next = page.next.as_ref().map_or(1, |next| 5 + next.len() as u64);
            1 + 8 + 2 + kvs.sum::<u64>() + 2 + prefixes.sum::<u64>() + 1 + 8 + next
        }
    });
    1 + 2 + each.sum::<u64>()
}
