//! How many seeds it takes to find a planted bug. Only with the feature `mutants`.

use crate::checks::Violation;
use crate::engine::Engine;
use crate::schedule::Schedule;
use infinitystore::mutants::{Mutant, plant};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a bug was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// After so many seeds.
    pub(super) seeds: u64,
    /// The check that saw it, and what it saw.
    pub(super) violation: Violation,
    /// The check that the same seed violates without the bug: then it has proved nothing.
    pub(super) unsound: Option<&'static str>,
}

/// The engine that can see a bug: the queue engine, unless it sits above what that engine runs.
#[must_use]
pub(super) const fn engine_for(mutant: Mutant) -> Engine {
    match mutant {
        Mutant::ReservedReads
        | Mutant::LevelIgnored
        | Mutant::UnknownDenied
        | Mutant::ExitDenies
        | Mutant::StorageErrorIgnored
        | Mutant::TimerNotMoved
        | Mutant::OldAddress => Engine::Madsim,
        _ => Engine::Queue,
    }
}

/// Plants a bug and runs the seeds `0..seeds` on all cores until one violates a check; the one with the lowest number counts. Then runs
/// that seed once more, without the bug.
#[must_use]
pub(super) fn hunt(engine: Engine, mutant: Mutant, seeds: u64) -> Option<Found> {
    plant(Some(mutant));
    let (next, last) = (AtomicU64::new(0), AtomicU64::new(seeds));
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
                    let Some(violation) = violation(engine, seed) else { continue };
                    last.fetch_min(seed, Ordering::Relaxed);
                    let mut found = found.lock().expect("nothing panics while it holds this");
                    if found.as_ref().is_none_or(|earlier| seed < earlier.seeds - 1) {
                        *found = Some(Found { seeds: seed + 1, violation, unsound: None });
                    }
                }
            });
        }
    });
    plant(None);
    let found = found.into_inner().expect("nothing panicked while it held this")?;
    let unsound = violation(engine, found.seeds - 1).map(|violation| violation.check);
    Some(Found { unsound, ..found })
}

fn violation(engine: Engine, seed: u64) -> Option<Violation> {
    let run = || engine.run(Schedule::generate(seed), false).violation;
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Some(Violation::of_panic(&*panic)))
}
