//! What clients of the keyspace ask: drawn from a stream of their own, so that nothing else changes
//! with them.

use crate::schedule::fault::Fault;
use crate::schedule::plan::{KeyspaceKind, KeyspaceOperation, Timed};
use crate::schedule::settings::{CALM_MICROS, MILLI, SECOND};
use crate::schedule::streams::{Stream, stream};
use rand::Rng;
use rand::rngs::SmallRng;

/// What a client may be about: the kinds of its operations, each as often as it stands there.
const ABOUT: [&[KeyspaceKind]; 6] = [
    &[
        KeyspaceKind::Put,
        KeyspaceKind::Put,
        KeyspaceKind::Delete,
        KeyspaceKind::Txn,
        KeyspaceKind::Txn,
        KeyspaceKind::Increment,
        KeyspaceKind::Swap,
        KeyspaceKind::Key,
        KeyspaceKind::Repeat,
        KeyspaceKind::Reuse,
    ],
    &[
        KeyspaceKind::Put,
        KeyspaceKind::Delete,
        KeyspaceKind::Scan,
        KeyspaceKind::Scan,
        KeyspaceKind::Past,
        KeyspaceKind::Past,
        KeyspaceKind::Compact,
        KeyspaceKind::Txn,
        KeyspaceKind::List,
    ],
    &[
        KeyspaceKind::Grant,
        KeyspaceKind::Put,
        KeyspaceKind::Put,
        KeyspaceKind::Renew,
        KeyspaceKind::Renew,
        KeyspaceKind::TimeLeft,
        KeyspaceKind::Revoke,
        KeyspaceKind::Regrant,
        KeyspaceKind::List,
    ],
    &[KeyspaceKind::Grant, KeyspaceKind::Renew, KeyspaceKind::Renew, KeyspaceKind::Renew, KeyspaceKind::Put],
    &[KeyspaceKind::Watch],
    &[KeyspaceKind::Watch],
];

/// What clients are about in every run that has users: beside the others, so that each kind of
/// request meets rights.
const ABOUT_RIGHTS: [&[KeyspaceKind]; 2] = [
    &[
        KeyspaceKind::Put,
        KeyspaceKind::Delete,
        KeyspaceKind::Txn,
        KeyspaceKind::Increment,
        KeyspaceKind::Grant,
        KeyspaceKind::Revoke,
        KeyspaceKind::Renew,
        KeyspaceKind::TimeLeft,
        KeyspaceKind::Key,
        KeyspaceKind::Scan,
        KeyspaceKind::List,
        KeyspaceKind::Repeat,
    ],
    &[KeyspaceKind::Watch],
];

/// Kinds that no client asks for any more when faults have ended: their leases would have to end
/// first.
const NOT_LATE: [KeyspaceKind; 3] = [KeyspaceKind::Grant, KeyspaceKind::Regrant, KeyspaceKind::Limit];

pub(super) fn plans(
    seed: u64,
    slots: usize,
    duration: u64,
    faults: &[Timed<Fault>],
    users: bool,
) -> Vec<Vec<Timed<KeyspaceOperation>>> {
    let mut rng = stream(seed, Stream::Schedule, 5);
    if rng.random_bool(0.3) && !users {
        return Vec::new();
    }
    let near: Vec<u64> = match rng.random_bool(0.4) {
        true => faults.iter().map(|fault| fault.at).collect(),
        false => Vec::new(),
    };
    let count = rng.random_range(1..=5);
    let mut plans: Vec<_> = (0..count)
        .map(|_| {
            let about = ABOUT[rng.random_range(0..ABOUT.len())];
            plan(&mut rng, about, slots, duration, &near)
        })
        .collect();
    if rng.random_bool(0.5) {
        plans.push(limits(&mut rng, slots, duration));
    }
    if rng.random_bool(0.3) {
        races(&mut rng, slots, duration, &mut plans);
    }
    if users {
        let mut rng = stream(seed, Stream::Schedule, 6);
        for about in ABOUT_RIGHTS {
            plans.push(plan(&mut rng, about, slots, duration, &near));
        }
        plans.extend(administrators(&mut rng, slots, duration, &near));
    }
    plans
}

/// The rules are made in the first three seconds, one change after the other. Then two
/// administrators change them, often when a fault strikes.
fn administrators(
    rng: &mut SmallRng,
    slots: usize,
    duration: u64,
    near: &[u64],
) -> [Vec<Timed<KeyspaceOperation>>; 2] {
    [true, false].map(|is_first| {
        let mut changes = plan(rng, &[KeyspaceKind::Secure], slots, duration, near);
        for number in 0..if is_first { 30 } else { 0 } {
            let (slot, draw) = (rng.random_range(0..slots), rng.random());
            let what = KeyspaceOperation { slot, kind: KeyspaceKind::Secure, draw };
            changes.push(Timed { at: number * 100 * MILLI, what });
        }
        changes.sort_by_key(|change| change.at);
        changes
    })
}

fn plan(
    rng: &mut SmallRng,
    about: &[KeyspaceKind],
    slots: usize,
    duration: u64,
    near: &[u64],
) -> Vec<Timed<KeyspaceOperation>> {
    let home = rng.random_range(0..slots);
    let sticky = rng.random_bool(0.4);
    let operations = rng.random_range(15..70);
    let mut plan: Vec<_> = (0..operations)
        .map(|_| {
            let at = match near.get(rng.random_range(0..near.len().max(1))) {
                Some(fault) if rng.random_bool(0.6) => {
                    (fault + rng.random_range(0..2 * SECOND)).min(duration - 1)
                }
                _ => rng.random_range(0..duration + CALM_MICROS / 2),
            };
            let slot = if sticky { home } else { rng.random_range(0..slots) };
            let kind = about[rng.random_range(0..about.len())];
            let kind = if at > duration && NOT_LATE.contains(&kind) { KeyspaceKind::Key } else { kind };
            Timed { at, what: KeyspaceOperation { slot, kind, draw: rng.random() } }
        })
        .collect();
    plan.sort_by_key(|operation| operation.at);
    plan
}

/// The limits of the cluster become small now and then, and soon large again.
fn limits(rng: &mut SmallRng, slots: usize, duration: u64) -> Vec<Timed<KeyspaceOperation>> {
    let mut plan = Vec::new();
    let mut at = rng.random_range(0..3 * SECOND);
    while at < duration {
        let slot = rng.random_range(0..slots);
        plan.push(Timed {
            at,
            what: KeyspaceOperation { slot, kind: KeyspaceKind::Limit, draw: rng.random() },
        });
        at += rng.random_range(100 * MILLI..3 * SECOND);
        let slot = rng.random_range(0..slots);
        plan.push(Timed {
            at,
            what: KeyspaceOperation { slot, kind: KeyspaceKind::Unlimit, draw: rng.random() },
        });
        at += rng.random_range(500 * MILLI..8 * SECOND);
    }
    plan
}

/// A lease is granted, and when its time is about to be up, others end it and grant it again.
fn races(rng: &mut SmallRng, slots: usize, duration: u64, plans: &mut Vec<Vec<Timed<KeyspaceOperation>>>) {
    let (mut grants, mut regrants) = (Vec::new(), Vec::new());
    let mut at = rng.random_range(0..2 * SECOND);
    while at + 2 * SECOND < duration {
        let slot = rng.random_range(0..slots);
        let draw = rng.random();
        let operation = |at, kind| Timed { at, what: KeyspaceOperation { slot, kind, draw } };
        grants.push(operation(at, KeyspaceKind::Grant));
        regrants.push(operation(at + 2 * SECOND - rng.random_range(0..100 * MILLI), KeyspaceKind::Regrant));
        at += rng.random_range(2_500 * MILLI..6 * SECOND);
    }
    plans.extend([grants, regrants]);
}
