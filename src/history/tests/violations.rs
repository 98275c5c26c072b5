//! Histories that everybody agrees on, as tables.

use crate::history::tests::{NOTHING, UNKNOWN, assert_linearizable, got, history, operation, set, violation};
use crate::history::{Kind, Operation};
use alloc::string::ToString;
use alloc::vec::Vec;

#[test]
fn sequential_histories_are_accepted() {
    assert_linearizable(&[]);
    assert_linearizable(&history([
        (NOTHING, 0, Some(1)),
        (set("a"), 2, Some(3)),
        (got("a"), 4, Some(5)),
        (Kind::Delete, 6, Some(7)),
        (NOTHING, 8, Some(9)),
        (set("a"), 10, Some(11)),
        (got("a"), 12, Some(13)),
    ]));
}

#[test]
fn concurrent_reads_may_see_old_or_new() {
    for seen in [NOTHING, got("a")] {
        assert_linearizable(&history([(set("a"), 0, Some(10)), (seen, 5, Some(6))]));
    }
}

#[test]
fn equal_times_are_concurrent() {
    assert_linearizable(&history([(set("a"), 0, Some(5)), (NOTHING, 5, Some(6))]));
    violation(&history([(set("a"), 0, Some(4)), (NOTHING, 5, Some(6))]));
}

#[test]
fn unknown_outcomes_take_effect_at_any_time_or_never() {
    // Never.
    assert_linearizable(&history([(set("a"), 0, UNKNOWN), (NOTHING, 1, Some(2)), (NOTHING, 3, Some(4))]));
    // Late.
    assert_linearizable(&history([
        (set("a"), 0, UNKNOWN),
        (set("b"), 1, Some(2)),
        (got("b"), 3, Some(4)),
        (got("a"), 5, Some(6)),
    ]));
    // A late delete.
    assert_linearizable(&history([
        (Kind::Delete, 0, UNKNOWN),
        (set("b"), 1, Some(2)),
        (got("b"), 3, Some(4)),
        (NOTHING, 5, Some(6)),
    ]));
    // Two unknown writes of one value may both come, each once.
    let twice = [
        (set("a"), 0, UNKNOWN),
        (set("a"), 0, UNKNOWN),
        (set("b"), 1, Some(2)),
        (got("a"), 3, Some(4)),
        (set("c"), 5, Some(6)),
        (got("a"), 7, Some(8)),
    ];
    assert_linearizable(&history(twice.clone()));
    let thrice: Vec<Operation> = history(twice)
        .into_iter()
        .chain([operation(8, set("d"), 9, 10), operation(9, got("a"), 11, 12)])
        .collect();
    violation(&thrice);
}

#[test]
fn a_get_of_unknown_outcome_says_nothing() {
    assert_linearizable(&history([(got("never written"), 0, UNKNOWN), (NOTHING, 1, Some(2))]));
}

#[test]
fn an_unknown_write_does_not_take_effect_before_its_call() {
    violation(&history([(got("a"), 0, Some(1)), (set("a"), 2, UNKNOWN)]));
    violation(&history([(set("b"), 0, Some(1)), (NOTHING, 2, Some(3)), (Kind::Delete, 4, UNKNOWN)]));
}

#[test]
fn known_anomalies_are_violations() {
    let cases: [(&str, Vec<Operation>); 9] = [
        ("stale read", history([(set("a"), 0, Some(1)), (set("b"), 2, Some(3)), (got("a"), 4, Some(5))])),
        ("lost update", history([(set("a"), 0, Some(1)), (NOTHING, 2, Some(3))])),
        ("value never written", history([(set("a"), 0, Some(1)), (got("z"), 2, Some(3))])),
        (
            "resurrected delete",
            history([
                (set("a"), 0, Some(1)),
                (Kind::Delete, 2, Some(3)),
                (NOTHING, 4, Some(5)),
                (got("a"), 6, Some(7)),
            ]),
        ),
        ("read from the future", history([(got("a"), 0, Some(1)), (set("a"), 2, Some(3))])),
        (
            "reads go back",
            history([
                (set("a"), 0, Some(1)),
                (set("b"), 2, Some(20)),
                (got("b"), 3, Some(4)),
                (got("a"), 5, Some(6)),
            ]),
        ),
        (
            "two clients see two orders",
            history([
                (set("a"), 0, Some(10)),
                (set("b"), 0, Some(10)),
                (got("a"), 11, Some(12)),
                (got("b"), 11, Some(12)),
                (got("a"), 13, Some(14)),
                (got("b"), 13, Some(14)),
            ]),
        ),
        (
            "a write applied twice",
            history([
                (set("a"), 0, UNKNOWN),
                (got("a"), 1, Some(2)),
                (set("b"), 3, Some(4)),
                (got("b"), 5, Some(6)),
                (got("a"), 7, Some(8)),
            ]),
        ),
        (
            "an unknown delete seen before a get of the deleted value",
            history([
                (set("a"), 0, Some(1)),
                (Kind::Delete, 2, UNKNOWN),
                (NOTHING, 3, Some(4)),
                (got("a"), 5, Some(6)),
            ]),
        ),
    ];
    for (name, operations) in cases {
        let found = violation(&operations);
        assert!(!found.operations.is_empty(), "{name} is not explained");
        violation(&found.operations);
    }
}

#[test]
fn keys_are_checked_apart() {
    let mut operations = history([(set("a"), 0, Some(1)), (got("a"), 2, Some(3)), (NOTHING, 2, Some(3))]);
    operations[2].key = b"other".to_vec().into();
    assert_linearizable(&operations);
    operations[0].key = operations[2].key.clone();
    assert_eq!(violation(&operations).key, "key");
}

#[test]
fn explanations_are_minimal() {
    let mut operations: Vec<Operation> = Vec::new();
    for round in 0..300 {
        let value = round.to_string();
        operations.push(operation(1, set(&value), round * 10, round * 10 + 5));
        operations.push(operation(2, got(&value), round * 10 + 6, round * 10 + 9));
    }
    // Read after the set of 151.
    operations.push(operation(3, got("150"), 1516, 1517));
    let found = violation(&operations);
    let lines: Vec<_> = found.operations.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "[1500 .. 1505] client 1: set \"key\" to \"150\"",
            "[1510 .. 1515] client 1: set \"key\" to \"151\"",
            "[1516 .. 1517] client 3: get \"key\" = \"150\"",
        ]
    );
}

#[test]
fn explanations_leave_out_writes_that_are_hidden_by_later_ones() {
    let mut operations: Vec<Operation> = Vec::new();
    for round in 0..50 {
        operations.push(operation(1, Kind::Delete, round * 10, round * 10 + 5));
    }
    operations.push(operation(2, set("a"), 300, 600));
    operations.push(operation(3, got("a"), 601, 602));
    operations.push(operation(4, NOTHING, 603, 604));
    let found = violation(&operations);
    // The get of nothing may not see what was before; one delete remains that could have come after
    // the set.
    assert!(found.operations.len() <= 4, "{found}");
}
