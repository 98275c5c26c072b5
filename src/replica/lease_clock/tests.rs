//! The deadlines, however many leases there are.

use crate::kv::{Command, LeaseId, Op, Outcome, Store};
use crate::raft::{Term, Time};
use crate::replica::lease_clock::{BATCH_LEASES, BATCHES_MAX, LeaseClock, READ_LEASES, READ_PAUSE_MICROS};

const TERM: Term = Term::new(3);
const SECOND: u64 = 1_000_000;
const TTL_SECONDS: u64 = 10;

fn at(seconds: u64) -> Time {
    Time::new(seconds * SECOND)
}

fn apply(store: &mut Store, op: Op) -> Outcome {
    store.apply(TERM.get(), &Command::from(op))
}

fn grant(store: &mut Store, number: u64) {
    let granted = apply(store, Op::Grant { id: LeaseId(number), ttl_seconds: TTL_SECONDS });
    assert!(matches!(granted, Outcome::Granted { .. }), "{granted:?}");
}

fn with_leases(count: u64) -> Store {
    let mut store = Store::default();
    (1..=count).for_each(|number| grant(&mut store, number));
    store
}

/// Takes the steps that it wants until it wants none before `until`; how many there were.
fn run(clock: &mut LeaseClock, store: &Store, until: Time) -> usize {
    let mut steps = 0;
    while let Some(now) = clock.next().filter(|now| *now < until) {
        clock.read_on(store, now);
        steps += 1;
    }
    steps
}

#[test]
fn a_new_leader_reads_the_leases_in_parts() {
    let mut store = with_leases(3 * READ_LEASES as u64);
    let mut clock = LeaseClock::default();
    clock.begin(TERM, &store, at(100));
    assert_eq!(clock.deadlines.len(), READ_LEASES, "no more in one step");
    assert_eq!(clock.next(), Some(at(100).plus(READ_PAUSE_MICROS)));
    // One that was not read has its full time from the beginning, and can be renewed.
    let [last, renewed, revoked] = [0, 1, 2].map(|back| LeaseId(3 * READ_LEASES as u64 - back));
    let left = |clock: &LeaseClock, store: &Store, id, now| clock.left(&store.lease(id).unwrap(), now);
    assert_eq!(left(&clock, &store, last, at(104)), 6 * SECOND);
    assert!(clock.renew(renewed, &store, at(105)).is_some());
    assert_eq!(left(&clock, &store, renewed, at(105)), 10 * SECOND);
    // A command that changed nothing of it gives it no more time, and one that was revoked and
    // granted anew is another one.
    clock.applied(last, &store, at(106));
    assert_eq!(left(&clock, &store, last, at(106)), 4 * SECOND);
    apply(&mut store, Op::Revoke(revoked));
    clock.applied(revoked, &store, at(106));
    assert!(clock.renew(revoked, &store, at(106)).is_none());
    grant(&mut store, revoked.0);
    clock.applied(revoked, &store, at(107));
    assert_eq!(left(&clock, &store, revoked, at(107)), 10 * SECOND);
    // What was read late counts from the beginning, too.
    assert!(run(&mut clock, &store, at(101)) <= 3);
    assert_eq!((clock.deadlines.len(), clock.due.len()), (store.lease_count(), store.lease_count()));
    assert_eq!(clock.next(), Some(at(110)));
    for (id, end) in [(LeaseId(1), 110), (last, 110), (renewed, 115), (revoked, 117)] {
        assert_eq!(left(&clock, &store, id, at(107)), (end - 107) * SECOND, "{id}");
    }
}

#[test]
fn few_batches_are_on_their_way_at_a_time() {
    let count = (2 * BATCHES_MAX + 1) * BATCH_LEASES;
    let mut store = with_leases(count as u64);
    let mut clock = LeaseClock::default();
    clock.begin(TERM, &store, at(0));
    run(&mut clock, &store, at(1));
    let now = at(TTL_SECONDS);
    let mut batches = Vec::new();
    let mut steps = 0;
    while store.lease_count() > 0 {
        steps += 1;
        assert_eq!(clock.next(), Some(now));
        loop {
            let batch = clock.due(&store, now);
            if batch.is_empty() {
                break;
            }
            clock.proposed(&batch);
            batches.push(batch);
        }
        assert!(batches.len() <= BATCHES_MAX, "{} batches at once", batches.len());
        if batches.len() == BATCHES_MAX {
            assert_eq!(clock.next(), None, "what was proposed has to be applied first");
        }
        for leases in batches.drain(..) {
            apply(&mut store, Op::Expire { term: TERM.get(), leases: leases.clone() });
            // That of another leader says nothing.
            clock.batch_applied(TERM.get() - 1);
            clock.batch_applied(TERM.get());
            leases.iter().for_each(|(id, _)| clock.applied(*id, &store, now));
        }
    }
    assert_eq!((steps, clock.next()), (3, None));
    assert!(clock.deadlines.is_empty() && clock.due.is_empty());
}
