//! How many seeds it takes to find a planted bug.

use crate::record::violation::Violation;
use crate::run::engine::Engine;
use crate::run::vitals::{Vitals, recorded_seeds};
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

/// What the figures of runs say of a bug that no run shows.
pub(super) const FIGURES: &str = "the figures are what they were";

/// Figures of runs without any bug, made when they are first asked for.
#[derive(Default)]
pub(super) struct Usual(BTreeMap<String, Vitals>);

impl Usual {
    fn of(&mut self, engine: Engine) -> &Vitals {
        self.0.entry(engine.to_string()).or_insert_with(|| {
            plant(0);
            let vitals = Mutex::new(Vitals::default());
            let _ = first_of(recorded_seeds(engine), 0, |seed| {
                let _ = outcome_of(engine, seed, &vitals);
                false
            });
            vitals.into_inner().expect("nothing panicked while it held this")
        })
    }
}

/// Plants a bug and compares the figures of runs with those without it.
#[must_use]
pub(super) fn compare(engine: Engine, bug: Bug, usual: &mut Usual) -> Option<Found> {
    let vitals = Mutex::new(Vitals::default());
    bug.plant();
    let _ = first_of(recorded_seeds(engine), 0, |seed| {
        let _ = outcome_of(engine, seed, &vitals);
        false
    });
    plant(0);
    shifted(engine, &vitals.into_inner().expect("nothing panicked while it held this"), usual)
}

fn shifted(engine: Engine, vitals: &Vitals, usual: &mut Usual) -> Option<Found> {
    let shift = vitals.shifts(usual.of(engine)).into_iter().next()?;
    let violation = Violation { check: FIGURES, what: shift.to_string() };
    Some(Found { engine, seeds: recorded_seeds(engine), violation })
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
/// without the bug; the lowest number counts. Seeds that violate one anyway are noted. If none
/// does, the figures of the runs are compared with those without the bug.
#[must_use]
pub(super) fn hunt(
    engine: Engine,
    bug: Bug,
    seeds: u64,
    alarms: &mut Alarms,
    usual: &mut Usual,
) -> Option<Found> {
    let mut from = 0;
    let vitals = Mutex::new(Vitals::default());
    loop {
        let Some(found) = first_violation(engine, bug, from, seeds, &vitals) else {
            let vitals = vitals.into_inner().expect("nothing panicked while it held this");
            return shifted(engine, &vitals, usual).filter(|_| seeds >= recorded_seeds(engine));
        };
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
fn first_violation(engine: Engine, bug: Bug, from: u64, seeds: u64, vitals: &Mutex<Vitals>) -> Option<Found> {
    bug.plant();
    let found: Mutex<BTreeMap<u64, Violation>> = Mutex::new(BTreeMap::new());
    let seed = first_of(seeds, from, |seed| {
        let Some(violation) = outcome_of(engine, seed, vitals) else { return false };
        found.lock().expect("nothing panics while it holds this").insert(seed, violation);
        true
    });
    plant(0);
    let violation = found.into_inner().expect("nothing panicked while it held this").remove(&seed?)?;
    Some(Found { engine, seeds: seed? + 1, violation })
}

/// Tries `from..to` on all cores, until one of them is it; the lowest.
fn first_of(to: u64, from: u64, is_it: impl Fn(u64) -> bool + Sync) -> Option<u64> {
    let (next, last) = (AtomicU64::new(from), AtomicU64::new(to));
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= last.load(Ordering::Relaxed) {
                        break;
                    }
                    if is_it(number) {
                        last.fetch_min(number, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Some(last.into_inner()).filter(|last| *last < to)
}

/// What a run violates. Its figures are added if it is one of those that are compared.
fn outcome_of(engine: Engine, seed: u64, vitals: &Mutex<Vitals>) -> Option<Violation> {
    let run = || engine.run(Schedule::generate(seed), false);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => {
            if seed < recorded_seeds(engine) && outcome.violation.is_none() {
                vitals.lock().expect("nothing panics while it holds this").add(seed, &outcome);
            }
            outcome.violation
        }
        Err(panic) => Some(Violation::of_panic(&*panic)),
    }
}

fn violation_of(engine: Engine, seed: u64) -> Option<Violation> {
    outcome_of(engine, seed, &Mutex::default())
}
