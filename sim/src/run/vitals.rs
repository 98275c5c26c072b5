//! Vital signs: the figures of many runs, compared with those of earlier runs of the same seeds.
//!
//! A bug that breaks no law often changes how much is done: another message for each write, an
//! election too many, a cache that is never hit. One run shows nothing, since any change of the
//! product changes which rare things happen in it. Over many seeds such luck evens out.
//!
//! For each figure and seed the two runs are compared by the logarithm of their ratio. If the mean
//! of these is many standard errors from zero, the figure has shifted. A change that shifts figures
//! on purpose writes them anew: `sim run --note-vitals`.

#[cfg(test)]
mod tests;

use crate::record::figures::{Figures, TIME};
use crate::record::outcome::Outcome;
use crate::run::engine::Engine;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::PathBuf;

/// A figure has shifted if it differs by so many standard errors.
const ERRORS_MIN: f64 = 5.0;
/// And by at least this share.
const SHARE_MIN: f64 = 0.02;
/// And in at least so many seeds.
const SEEDS_MIN: usize = 16;

/// The figures of runs, by seed.
#[derive(Clone, Debug, Default)]
pub struct Vitals(BTreeMap<u64, BTreeMap<String, u64>>);

/// A figure that is not what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// Its name.
    pub name: String,
    /// How many times what it was, by the geometric mean; each seed's figure is increased by one.
    pub times: f64,
    /// How many standard errors from one time.
    pub errors: f64,
    /// Seeds in which it differs.
    pub seeds: usize,
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, times, errors, seeds } = self;
        write!(f, "{name:?} is {times:.2} times what it was ({errors:.1} standard errors, {seeds} seeds)")
    }
}

/// How many seeds, from 0 on, have figures on record.
#[must_use]
pub const fn recorded_seeds(engine: Engine) -> u64 {
    match engine {
        Engine::Queue => 128,
        Engine::Madsim => 64,
    }
}

impl Vitals {
    /// The figures on record.
    ///
    /// # Errors
    /// The file is not as [`Self::to_text`] writes it.
    pub fn recorded(engine: Engine) -> Result<Self, String> {
        Self::parse(match engine {
            Engine::Queue => include_str!("../../vitals/queue.txt"),
            Engine::Madsim => include_str!("../../vitals/madsim.txt"),
        })
    }

    /// Where they are on record, in the repository.
    #[must_use]
    pub fn path(engine: Engine) -> PathBuf {
        PathBuf::from(format!("{}/vitals/{engine}.txt", env!("CARGO_MANIFEST_DIR")))
    }

    /// Takes a run in. Figures of times become the mean time.
    pub fn add(&mut self, seed: u64, outcome: &Outcome) {
        let figures = &outcome.figures;
        let marks = outcome.marks.iter().map(|(name, count)| (format!("mark {name}"), *count));
        let own = figures.iter().map(|(name, amount)| (name.to_owned(), mean(figures, name, amount)));
        let clients = [("clients answered", outcome.operations.0), ("clients failed", outcome.operations.1)];
        let clients = clients.map(|(name, count)| (name.to_owned(), count));
        self.0.insert(seed, marks.chain(own).chain(clients).collect());
    }

    /// Whether every seed with figures on record is there.
    #[must_use]
    pub fn is_complete(&self, engine: Engine) -> bool {
        (0..recorded_seeds(engine)).all(|seed| self.0.contains_key(&seed))
    }

    fn names(&self) -> BTreeSet<&str> {
        self.0.values().flat_map(|run| run.keys().map(String::as_str)).collect()
    }

    /// The figures that are not what they were, those that are clearest first. Only seeds count
    /// that both have.
    #[must_use]
    pub fn shifts(&self, usual: &Self) -> Vec<Shift> {
        let names: BTreeSet<&str> = self.names().into_iter().chain(usual.names()).collect();
        let mut shifts: Vec<Shift> = names.into_iter().filter_map(|name| self.shift(usual, name)).collect();
        shifts.sort_by(|one, other| other.errors.total_cmp(&one.errors));
        shifts
    }

    fn shift(&self, usual: &Self, name: &str) -> Option<Shift> {
        let both = self.0.iter().filter_map(|(seed, run)| Some((run, usual.0.get(seed)?)));
        let amounts = both
            .map(|(run, then)| (run.get(name).copied().unwrap_or(0), then.get(name).copied().unwrap_or(0)));
        // A mean time is none if nothing was timed.
        let amounts = amounts.filter(|(now, then)| !name.ends_with(TIME) || (*now > 0 && *then > 0));
        let logs: Vec<f64> =
            amounts.map(|(now, then)| (1.0 + now as f64).ln() - (1.0 + then as f64).ln()).collect();
        let seeds = logs.iter().filter(|log| **log != 0.0).count();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
        // A figure that is off by the same share in all seeds has no variance.
        let errors = mean.abs() / (variance / count).sqrt().max(f64::EPSILON);
        let is_shifted = seeds >= SEEDS_MIN && errors >= ERRORS_MIN && mean.abs() >= SHARE_MIN;
        is_shifted.then(|| Shift { name: name.to_owned(), times: mean.exp(), errors, seeds })
    }

    /// As text: the seeds in a line, then a line for each figure.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from("# Figures of runs, by seed. Written by: sim run --note-vitals\nseeds:");
        for seed in self.0.keys() {
            let _ = write!(text, " {seed}");
        }
        for name in self.names() {
            let _ = write!(text, "\n{name}:");
            for run in self.0.values() {
                let _ = write!(text, " {}", run.get(name).copied().unwrap_or(0));
            }
        }
        text.push('\n');
        text
    }

    /// Reads that text.
    ///
    /// # Errors
    /// A line is not a name and a number for each seed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut vitals = Self::default();
        let mut seeds: Vec<u64> = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let wrong = || format!("{line:?} is not a name and a number for each seed");
            let (name, amounts) = line.rsplit_once(':').ok_or_else(wrong)?;
            let amounts: Result<Vec<u64>, _> = amounts.split_whitespace().map(str::parse).collect();
            let amounts = amounts.map_err(|_| wrong())?;
            if name == "seeds" {
                seeds = amounts;
                vitals.0 = seeds.iter().map(|seed| (*seed, BTreeMap::new())).collect();
                continue;
            }
            if amounts.len() != seeds.len() {
                return Err(wrong());
            }
            for (seed, amount) in seeds.iter().zip(amounts) {
                vitals.0.entry(*seed).or_default().insert(name.to_owned(), amount);
            }
        }
        Ok(vitals)
    }
}

/// A sum of times becomes their mean; 0 if nothing was timed.
fn mean(figures: &Figures, name: &str, amount: u64) -> u64 {
    match name.strip_suffix(TIME) {
        Some(of) => amount.checked_div(figures.get(of)).unwrap_or(0),
        None => amount,
    }
}
