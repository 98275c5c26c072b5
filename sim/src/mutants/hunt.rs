//! How many seeds it takes to find a planted bug.

use crate::record::violation::Violation;
use crate::run::engine::Engine;
use crate::schedule::Schedule;
use infinitystore::mutants::{ALL, Mutant, plant};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a bug was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The engine that found it.
    pub(super) engine: Engine,
    /// Seeds until it was found, that one included.
    pub(super) seeds: u64,
    /// The check that saw it, and what it saw.
    pub(super) violation: Violation,
}

/// Seeds that violate a check without any bug, and that check. Their reports prove nothing.
pub(super) type Alarms = BTreeMap<(String, u64), &'static str>;

/// A bug by its place among all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bug(pub(super) usize);

impl Bug {
    /// What is known of it.
    pub(super) const fn mutant(self) -> &'static Mutant {
        &ALL[self.0]
    }

    /// The engines that can see it, the faster one first.
    pub(super) const fn engines(self) -> &'static [Engine] {
        if self.mutant().only_madsim { &[Engine::Madsim] } else { &[Engine::Queue, Engine::Madsim] }
    }

    fn plant(self) {
        plant(self.0 + 1);
    }
}

/// Plants a bug and runs one seed, then the same without the bug. `None` if the seed does not show
/// it, or proves nothing.
#[must_use]
pub(super) fn try_seed(engine: Engine, bug: Bug, seed: u64) -> Option<Found> {
    bug.plant();
    let violation = violation_of(engine, seed);
    plant(0);
    let sound = || violation_of(engine, seed).is_none();
    violation.filter(|_| sound()).map(|violation| Found { engine, seeds: seed + 1, violation })
}

/// Plants a bug and runs the seeds `0..seeds` on all cores until one violates a check, and does not
/// without the bug; the lowest number counts. Seeds that violate one anyway are noted.
#[must_use]
pub(super) fn hunt(engine: Engine, bug: Bug, seeds: u64, alarms: &mut Alarms) -> Option<Found> {
    let mut from = 0;
    loop {
        let found = first_violation(engine, bug, from, seeds)?;
        let seed = found.seeds - 1;
        match violation_of(engine, seed) {
            None => return Some(found),
            Some(alarm) => alarms.insert((engine.to_string(), seed), alarm.check),
        };
        from = seed + 1;
    }
}

/// Plants a bug for as long as it takes to find the lowest of the seeds `from..seeds` that violates
/// a check.
fn first_violation(engine: Engine, bug: Bug, from: u64, seeds: u64) -> Option<Found> {
    bug.plant();
    let (next, last) = (AtomicU64::new(from), AtomicU64::new(seeds));
    let found: Mutex<Option<Found>> = Mutex::new(None);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last.load(Ordering::Relaxed) {
                        break;
                    }
                    let Some(violation) = violation_of(engine, seed) else { continue };
                    last.fetch_min(seed, Ordering::Relaxed);
                    let mut found = found.lock().expect("nothing panics while it holds this");
                    if found.as_ref().is_none_or(|earlier| seed < earlier.seeds - 1) {
                        *found = Some(Found { engine, seeds: seed + 1, violation });
                    }
                }
            });
        }
    });
    plant(0);
    found.into_inner().expect("nothing panicked while it held this")
}

fn violation_of(engine: Engine, seed: u64) -> Option<Violation> {
    let run = || engine.run(Schedule::generate(seed), false).violation;
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Some(Violation::of_panic(&*panic)))
}
