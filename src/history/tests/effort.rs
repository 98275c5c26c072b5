//! Long histories of a hot key are decided in few steps; a search that would take too many gives
//! up.

use crate::history::tests::{checked, operation, set, violation};
use crate::history::{Effort, Kind, Operation, Verdict, check};
use alloc::collections::BinaryHeap;
use alloc::format;
use alloc::vec::Vec;
use bytes::Bytes;
use core::cmp::Reverse;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

struct Workload {
    clients: u64,
    operations: u64,
    /// Sets take their values from so few, or each has its own.
    values: Option<u64>,
    delete_percent: u32,
    unknown_percent: u32,
}

/// Clients that share one key of a correct register, each calling again right after its return.
fn simulate(seed: u64, workload: &Workload) -> Vec<Operation> {
    let mut random = SmallRng::seed_from_u64(seed);
    // (time, event): 0 is a call, 1 takes effect.
    let mut events: BinaryHeap<Reverse<(u64, u8, usize, u64)>> = BinaryHeap::new();
    for client in 0..workload.clients {
        events.push(Reverse((client, 0, 0, client)));
    }
    let mut history: Vec<Operation> = Vec::new();
    let mut state: Option<Bytes> = None;
    while let Some(Reverse((now, event, index, client))) = events.pop() {
        if event == 1 {
            match &mut history[index].kind {
                Kind::Set(value) => state = Some(value.clone()),
                Kind::Delete => state = None,
                Kind::Get(value) => *value = state.clone(),
            }
            continue;
        }
        if history.len() as u64 == workload.operations {
            break;
        }
        let index = history.len();
        let value = workload.values.map_or(index as u64, |values| random.random_range(0..values));
        let kind = match random.random_range(0..100) {
            percent if percent < workload.delete_percent => Kind::Delete,
            percent if percent < 50 => set(&format!("{value}")),
            _ => Kind::Get(None),
        };
        let (effect, ret) = (now + random.random_range(1..1_000), now + random.random_range(1_000..2_000));
        let unknown = random.random_range(0..100) < workload.unknown_percent;
        // Of unknown outcome: happens soon, late, or never.
        let effect = if unknown { now + random.random_range(0..100_000) } else { effect };
        if !(unknown && random.random_bool(0.3)) {
            events.push(Reverse((effect, 1, index, client)));
        }
        events.push(Reverse((ret + 1, 0, 0, client)));
        history.push(operation(client, kind, now, (!unknown).then_some(ret)));
    }
    // What was called but had not taken effect when the run ended has an unknown outcome.
    for Reverse((_, event, index, _)) in events {
        if event == 1 {
            history[index].ret = None;
        }
    }
    history
}

const HOT: Workload =
    Workload { clients: 16, operations: 10_000, values: None, delete_percent: 0, unknown_percent: 5 };
/// Writes of unknown outcome, of a value that others write too: what makes it hard.
const FEW: Workload =
    Workload { clients: 8, operations: 1_000, values: Some(20), delete_percent: 5, unknown_percent: 5 };

#[test]
fn a_hot_key_is_decided_in_few_steps() {
    for (name, workload, steps_per_operation) in [
        ("16 clients", HOT, 1),
        ("64 clients", Workload { clients: 64, ..HOT }, 1),
        ("deletes", Workload { delete_percent: 10, ..HOT }, 1),
        ("few values", Workload { values: Some(20), unknown_percent: 0, ..HOT }, 4),
        ("few values and unknown outcomes", FEW, 2),
    ] {
        for seed in 0..3 {
            let report = checked(&simulate(seed, &workload));
            assert_eq!(report.verdict, Verdict::Linearizable, "{name}, seed {seed}: {report}");
            let bound = steps_per_operation * workload.operations;
            assert!(report.steps < bound, "{name}, seed {seed}: {report}");
        }
    }
}

#[test]
fn one_wrong_answer_in_a_hot_key_is_found_and_explained() {
    for seed in 0..5 {
        let mut history = simulate(seed, &HOT);
        let set_of = |value: &Bytes| Kind::Set(value.clone());
        // A get late in the history answers with a value that was overwritten long before.
        let old = history[500..].iter().find(|old| old.ret.is_some() && matches!(old.kind, Kind::Set(_)));
        let Some(Kind::Set(old)) = old.map(|old| old.kind.clone()) else {
            panic!("no set in 9,500 operations")
        };
        let stale =
            history[9_000..].iter_mut().find(|get| get.ret.is_some() && matches!(get.kind, Kind::Get(_)));
        let stale = stale.expect("there are gets");
        stale.kind = Kind::Get(Some(old.clone()));
        let stale = stale.clone();
        let found = violation(&history);
        assert!(found.operations.len() <= 8, "{found}");
        assert!(found.operations.contains(&stale), "{found}");
        assert!(found.operations.iter().any(|operation| operation.kind == set_of(&old)), "{found}");
    }
}

#[test]
fn a_search_that_takes_too_long_gives_up() {
    let history = simulate(1, &HOT);
    let report = check(&history, Effort { steps_max: 100 });
    assert_eq!(report.verdict, Verdict::Inconclusive { key: "key".into() });
    assert_eq!(report.steps, 100);
}
