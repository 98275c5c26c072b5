//! Makes a failing schedule small: drops parts of it as long as the same check still fails (delta
//! debugging, Zeller 1999).

use crate::record::outcome::Outcome;
use crate::run::engine::Engine;
use crate::schedule::Schedule;

/// A change of a schedule that may make it simpler.
type Simplification = fn(&mut Schedule);

/// How many runs a minimisation may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Runs, at most.
    pub runs_max: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { runs_max: 2_000 }
    }
}

/// The smallest schedule found that violates the same check as `schedule`, and how many runs it
/// took; `None` if `schedule` violates nothing.
#[must_use]
pub fn minimise(engine: Engine, schedule: &Schedule, budget: Budget) -> Option<(Schedule, usize)> {
    let check = engine.run(schedule.clone(), false).violation?.check;
    let mut search = Search { engine, best: schedule.clone(), check, runs: 1, budget };
    loop {
        let before = search.best.clone();
        search.drop_parts(
            |schedule| schedule.faults.len(),
            |schedule, from, to| drop(schedule.faults.drain(from..to)),
        );
        for client in 0..search.best.clients.len() {
            search.drop_parts(
                |schedule| schedule.clients[client].len(),
                |schedule, from, to| drop(schedule.clients[client].drain(from..to)),
            );
        }
        search.simplify();
        if search.best == before || search.runs >= budget.runs_max {
            return Some((search.best, search.runs));
        }
    }
}

struct Search {
    engine: Engine,
    best: Schedule,
    check: &'static str,
    runs: usize,
    budget: Budget,
}

impl Search {
    /// Keeps `candidate` if it still fails in the same way.
    fn try_candidate(&mut self, candidate: Schedule) -> bool {
        if candidate == self.best || self.runs >= self.budget.runs_max {
            return false;
        }
        self.runs += 1;
        let Outcome { violation, .. } = self.engine.run(candidate.clone(), false);
        let fails = violation.is_some_and(|violation| violation.check == self.check);
        if fails {
            self.best = candidate;
        }
        fails
    }

    /// Drops parts of a list: halves first, then quarters, down to single elements.
    fn drop_parts(
        &mut self,
        length: impl Fn(&Schedule) -> usize,
        remove: impl Fn(&mut Schedule, usize, usize),
    ) {
        let mut part = length(&self.best).max(1);
        loop {
            let mut from = 0;
            while from < length(&self.best) {
                let to = (from + part).min(length(&self.best));
                let mut candidate = self.best.clone();
                remove(&mut candidate, from, to);
                if !self.try_candidate(candidate) {
                    from = to;
                }
            }
            if part == 1 {
                return;
            }
            part = part.div_ceil(2);
        }
    }

    /// Switches off what goes on all the time, and takes away machines that are not needed.
    fn simplify(&mut self) {
        const SIMPLIFICATIONS: [Simplification; 10] = [
            |schedule| schedule.settings.loss_ppm = 0,
            |schedule| schedule.settings.duplicate_ppm = 0,
            |schedule| schedule.settings.corrupt_ppm = 0,
            |schedule| schedule.settings.straggler_ppm = 0,
            |schedule| schedule.settings.link_spread = 1,
            |schedule| schedule.settings.lease_reads = false,
            |schedule| schedule.settings.drift_ppm = 0,
            |schedule| schedule.settings.delay_max_micros = schedule.settings.delay_min_micros + 10,
            |schedule| schedule.settings.sync_max_micros = schedule.settings.sync_min_micros + 10,
            |schedule| schedule.clients.retain(|client| !client.is_empty()),
        ];
        for simplification in SIMPLIFICATIONS {
            let mut candidate = self.best.clone();
            simplification(&mut candidate);
            self.try_candidate(candidate);
        }
    }
}
