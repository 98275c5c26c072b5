//! The search against all permutations of small histories.

use crate::history::tests::{checked, operation};
use crate::history::{Effort, Kind, Operation, Verdict, witness};
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_vec;
use proptest::prelude::{ProptestConfig, Strategy, prop_assert, prop_assert_eq, proptest};

/// Whether some order explains the operations that `placed` does not hold, starting from `value`.
fn has_order(operations: &[Operation], placed: u32, value: Option<&Bytes>) -> bool {
    let missing = || (0..operations.len()).filter(|index| placed & (1 << index) == 0);
    // Those of unknown outcome may be left out.
    if missing().all(|index| operations[index].ret.is_none()) {
        return true;
    }
    missing().any(|index| {
        let operation = &operations[index];
        if missing().any(|other| operations[other].precedes(operation)) {
            return false;
        }
        let after = match &operation.kind {
            Kind::Set(value) => Some(value),
            Kind::Delete => None,
            Kind::Get(_) if operation.ret.is_none() => value,
            Kind::Get(seen) if seen.as_ref() == value => value,
            Kind::Get(_) => return false,
        };
        has_order(operations, placed | 1 << index, after)
    })
}

/// Histories of up to eight operations; few values, so that they meet; few times, so that some
/// touch.
fn any_history() -> impl Strategy<Value = Vec<Operation>> {
    let value = || (0..3u8).prop_map(|value| Bytes::copy_from_slice(&[b'a' + value]));
    let any_operation =
        (0..7u8, value(), 0..24u64, 0..10u64, 0..5u8).prop_map(|(kind, value, call, length, known)| {
            let kind = match kind {
                0..=2 => Kind::Set(value),
                3 => Kind::Delete,
                4 => Kind::Get(None),
                _ => Kind::Get(Some(value)),
            };
            operation(0, kind, call, (known > 0).then_some(call + length))
        });
    any_vec(any_operation, 0..9)
}

/// Histories that have an order, as each operation takes effect at some time between its call and
/// its return.
fn any_real_history() -> impl Strategy<Value = Vec<Operation>> {
    let any_operation = (0..6u8, 0..3u8, 0..6u64, 0..6u64, 0..4u8);
    any_vec(any_operation, 0..9).prop_map(|operations| {
        let mut state = None;
        let mut history = Vec::new();
        for (time, (kind, value, before, after, known)) in (0..).step_by(3).zip(operations) {
            let value = Bytes::copy_from_slice(&[b'a' + value]);
            let kind = match kind {
                0 | 1 => Kind::Set(value),
                2 => Kind::Delete,
                _ => Kind::Get(state.clone()),
            };
            let (call, ret) = (20 + time - before, (known > 0).then_some(20 + time + after));
            // Some of those of unknown outcome never take effect.
            match &kind {
                Kind::Set(value) if ret.is_some() || before % 2 == 0 => state = Some(value.clone()),
                Kind::Delete if ret.is_some() || before % 2 == 0 => state = None,
                _ => {}
            }
            history.push(operation(0, kind, call, ret));
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn agrees_with_all_permutations(history in any_history()) {
        let report = checked(&history);
        match &report.verdict {
            Verdict::Linearizable => prop_assert!(has_order(&history, 0, None), "accepted, but has no order"),
            Verdict::Violation(violation) => {
                prop_assert!(!has_order(&history, 0, None), "refused, but has an order");
                prop_assert!(!has_order(&violation.operations, 0, None), "explained by operations that have an order");
            }
            Verdict::Inconclusive { .. } => prop_assert!(false, "{}", report),
        }
    }

    #[test]
    fn accepts_what_a_real_register_does(history in any_real_history()) {
        let report = checked(&history);
        prop_assert_eq!(&report.verdict, &Verdict::Linearizable, "{}", report);
    }
}

#[test]
fn explanations_cannot_lose_an_operation() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut violations = 0;
    for _ in 0..3_000 {
        let history = proptest::strategy::ValueTree::current(&any_history().new_tree(&mut runner).unwrap());
        let Verdict::Violation(violation) = checked(&history).verdict else { continue };
        violations += 1;
        for index in 0..violation.operations.len() {
            let mut fewer = violation.operations.clone();
            let removed = fewer.remove(index);
            let read = |kind: &Kind| fewer.iter().any(|other| other.ret.is_some() && other.kind == *kind);
            let needed_by_a_get = match &removed.kind {
                Kind::Set(value) => read(&Kind::Get(Some(value.clone()))),
                Kind::Delete => read(&Kind::Get(None)),
                Kind::Get(_) => false,
            };
            assert!(needed_by_a_get || has_order(&fewer, 0, None), "{violation}\ndoes not need\n  {removed}");
        }
    }
    assert!(violations > 300, "{violations} violations");
}

/// What is wrong with the points of one key's history, if anything.
fn flaw_of_witness(history: &[Operation]) -> Option<&'static str> {
    let points = witness(history, Effort::default());
    let (mut value, mut time) = (None, 0);
    for (position, point) in points.iter().enumerate() {
        let operation = &history[point.operation];
        if point.position != position || point.at < time {
            return Some("the points are not in order");
        }
        time = point.at;
        if point.at < operation.call || operation.ret.is_some_and(|ret| point.at > ret) {
            return Some("a point is outside its operation");
        }
        match &operation.kind {
            Kind::Set(written) => value = Some(written),
            Kind::Delete => value = None,
            Kind::Get(seen) if seen.as_ref() == value => {}
            Kind::Get(_) => return Some("a get does not see what is before it"),
        }
    }
    let mut seen: Vec<usize> = points.iter().map(|point| point.operation).collect();
    seen.sort_unstable();
    seen.dedup();
    let all_answered =
        (0..history.len()).all(|index| history[index].ret.is_none() || seen.binary_search(&index).is_ok());
    (seen.len() != points.len() || !all_answered).then_some("an operation has no point, or two")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn a_search_that_finds_an_order_can_show_it(any in any_history(), real in any_real_history()) {
        for history in [any, real] {
            if checked(&history).verdict == Verdict::Linearizable {
                prop_assert_eq!(flaw_of_witness(&history), None);
            }
        }
    }
}
