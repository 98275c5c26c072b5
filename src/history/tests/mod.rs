mod brute_force;
mod effort;
mod recording;
mod revisions;
mod violations;

use crate::history::{Effort, Kind, Operation, Report, Verdict, Violation, check};
use alloc::vec::Vec;
use bytes::Bytes;

fn operation(client: u64, kind: Kind, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    Operation { client, key: Bytes::from_static(b"key"), kind, call, ret: ret.into(), revision: None }
}

fn set(value: &str) -> Kind {
    Kind::Set(Bytes::copy_from_slice(value.as_bytes()))
}

fn got(value: &str) -> Kind {
    Kind::Get(Some(Bytes::copy_from_slice(value.as_bytes())))
}

const NOTHING: Kind = Kind::Get(None);
/// The return of an operation of unknown outcome.
const UNKNOWN: Option<u64> = None;

/// Operations of clients 0, 1, … as (what, call, return).
fn history<const N: usize>(operations: [(Kind, u64, Option<u64>); N]) -> Vec<Operation> {
    (0..).zip(operations).map(|(client, (kind, call, ret))| operation(client, kind, call, ret)).collect()
}

fn checked(operations: &[Operation]) -> Report {
    check(operations, Effort::default())
}

#[track_caller]
fn assert_linearizable(operations: &[Operation]) {
    let report = checked(operations);
    assert_eq!(report.verdict, Verdict::Linearizable, "{report}");
}

#[track_caller]
fn violation(operations: &[Operation]) -> Violation {
    let report = checked(operations);
    match report.verdict {
        Verdict::Violation(violation) => violation,
        _ => panic!("accepted: {report}"),
    }
}
