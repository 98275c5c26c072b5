//! Many seeds, on all cores.

#[cfg(test)]
mod tests;

use crate::record::marks::Marks;
use crate::record::outcome::Outcome;
use crate::run::coverage::missing;
use crate::run::engine::Engine;
use crate::run::vitals::{Shift, Vitals, recorded_seeds};
use crate::schedule::{SECOND, Schedule};
use std::fmt;
use std::panic::catch_unwind;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A part of a campaign, for array jobs: seeds whose distance from the first is `index` modulo
/// `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 0.
    pub index: u64,
    /// How many parts there are, at least 1.
    pub count: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no shard: write I/N, with I from 0 to N-1");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let (index, count) = (index.parse().map_err(|_| wrong())?, count.parse().map_err(|_| wrong())?);
        if index < count { Ok(Self { index, count }) } else { Err(wrong()) }
    }
}

/// Which seeds to run, and how.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// How many seeds, over all shards.
    pub seeds: u64,
    /// The first one.
    pub from: u64,
    /// Which of them are run here.
    pub shard: Shard,
    /// No new seed is begun after this time; `None`: no limit.
    pub limit: Option<Duration>,
    /// What drives the replicas.
    pub engine: Engine,
    /// Threads; 0: one for each core.
    pub jobs: usize,
    /// Only seeds whose cluster begins with this number of voters; `None`: all.
    pub voters: Option<usize>,
}

/// How often a thread reports how far the campaign is.
const PROGRESS: Duration = Duration::from_secs(20);

/// What a campaign reports while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A seed failed.
    Violation {
        /// The seed.
        seed: u64,
        /// The line.
        line: String,
    },
    /// How far it is.
    Progress(String),
}

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds that violated a check, or panicked.
    pub violations: u64,
    /// Client operations that were answered.
    pub answered: u64,
    /// Microseconds of the simulations, summed.
    pub simulated_micros: u64,
    /// Simulated seconds for each second of each core that ran.
    pub rate: u64,
    /// How often each fault and rare path was met.
    pub marks: Marks,
    /// Marks that a campaign of this size should have met, and did not.
    pub missing: Vec<&'static str>,
    /// The figures of the seeds that have some on record.
    pub vitals: Vitals,
    /// Figures that are not what is on record.
    pub shifts: Vec<Shift>,
}

impl Summary {
    /// Whether nothing was violated, nothing was left out, and nothing has shifted.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations == 0 && self.missing.is_empty() && self.shifts.is_empty()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.marks {
            writeln!(f, "{name:<32} {count:>10}")?;
        }
        writeln!(f, "{:<32} {:>10}", "operations answered", self.answered)?;
        for mark in &self.missing {
            writeln!(f, "{mark:<32} never met: the simulation has lost its teeth")?;
        }
        for shift in &self.shifts {
            writeln!(f, "{shift}")?;
        }
        let Self { seeds, violations, rate, .. } = self;
        write!(f, "{seeds} seeds, {violations} violations, {rate} simulated s/s per core")
    }
}

impl Campaign {
    /// How far it is, once `looked_at` seeds have been run or left out.
    fn progress(&self, looked_at: u64, summary: &Summary) -> String {
        let all = self.seeds.saturating_sub(self.shard.index).div_ceil(self.shard.count);
        // How many seeds have that many voters is known only when all have been looked at.
        let run = match self.voters {
            Some(voters) => format!(" looked at, {} with {voters} voters run", summary.seeds),
            None => String::new(),
        };
        format!("{looked_at} of {all} seeds{run}, {} violations so far", summary.violations)
    }

    /// Runs it; `report` is given a line for each seed that fails, and one now and then about how
    /// far it is.
    pub fn run(&self, report: impl Fn(Line) + Sync) -> Summary {
        let jobs = match self.jobs {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            jobs => jobs,
        };
        let (next, looked_at) = (AtomicU64::new(self.shard.index), AtomicU64::new(0));
        let summary = Mutex::new(Summary::default());
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    let mut told = Instant::now();
                    loop {
                        let offset = next.fetch_add(self.shard.count, Ordering::Relaxed);
                        if offset >= self.seeds || self.limit.is_some_and(|limit| started.elapsed() >= limit)
                        {
                            break;
                        }
                        let seed = self.from + offset;
                        let schedule = Schedule::generate(seed);
                        if self.voters.is_some_and(|voters| voters != schedule.voters) {
                            looked_at.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        // A panic is one of the product's assertions: a violation like any other.
                        let outcome = catch_unwind(|| self.engine.run(schedule, false)).ok();
                        let looked_at = looked_at.fetch_add(1, Ordering::Relaxed) + 1;
                        let mut summary = summary.lock().expect("nothing panics while it holds this");
                        if let Some(line) = summary.add(self.engine, seed, outcome) {
                            report(Line::Violation { seed, line });
                        }
                        if told.elapsed() >= PROGRESS {
                            told = Instant::now();
                            report(Line::Progress(self.progress(looked_at, &summary)));
                        }
                    }
                });
            }
        });
        let mut summary = summary.into_inner().expect("nothing panicked while it held this");
        let core_micros = started.elapsed().as_micros().max(1) * jobs as u128;
        if self.voters.is_none() && summary.vitals.is_complete(self.engine) {
            let usual = Vitals::recorded(self.engine).expect("a test reads what is on record");
            summary.shifts = summary.vitals.shifts(&usual);
        }
        summary.missing = missing(self.engine, summary.seeds, &summary.marks);
        summary.rate = u64::try_from(u128::from(summary.simulated_micros) / core_micros).unwrap_or(u64::MAX);
        summary
    }
}

impl Summary {
    /// Takes a run in; the line to report if it failed.
    fn add(&mut self, engine: Engine, seed: u64, outcome: Option<Outcome>) -> Option<String> {
        self.seeds += 1;
        let again = format!("cargo run --release -p sim -- replay {seed} --engine {engine} --verbose");
        let Some(outcome) = outcome else {
            self.violations += 1;
            return Some(format!("seed {seed}: an assertion failed (see above); again: {again}"));
        };
        self.simulated_micros += outcome.at;
        self.answered += outcome.operations.0;
        if seed < recorded_seeds(engine) && outcome.violation.is_none() {
            self.vitals.add(seed, &outcome);
        }
        for (name, count) in outcome.marks {
            *self.marks.entry(name).or_default() += count;
        }
        let violation = outcome.violation?;
        self.violations += 1;
        let (seconds, micros) = (outcome.at / SECOND, outcome.at % SECOND);
        let (check, what) = (violation.check, violation.what);
        Some(format!("seed {seed}: {check}, at {seconds}.{micros:06} s: {what}; again: {again}"))
    }
}
