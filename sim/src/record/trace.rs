//! The trace of a run: a hash that is the same for the same run, and, on demand, every line.

use crate::record::timeline::Timeline;
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// Collects what happens.
pub struct Trace {
    hasher: Xxh3,
    lines: Option<Vec<TraceLine>>,
    timeline: Option<Box<Timeline>>,
    steps: u64,
}

/// A line of the trace.
#[derive(Clone, Debug)]
pub struct TraceLine {
    /// Microseconds.
    pub at: u64,
    /// Which machine; `None`: the surroundings.
    pub slot: Option<usize>,
    /// What kind of thing.
    pub kind: &'static str,
    /// What happened, in words.
    pub text: String,
}

impl Trace {
    /// An empty trace; `verbose` keeps the lines, and the timeline for the report.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self {
            hasher: Xxh3::new(),
            lines: verbose.then(Vec::new),
            timeline: verbose.then(Box::default),
            steps: 0,
        }
    }

    /// Whether lines are kept.
    #[must_use]
    pub const fn is_verbose(&self) -> bool {
        self.lines.is_some()
    }

    /// The timeline, if it is told.
    pub fn timeline(&mut self) -> Option<&mut Timeline> {
        self.timeline.as_deref_mut()
    }

    /// Something happened: its numbers go into the hash.
    pub fn step(&mut self, numbers: [u64; 4]) {
        self.steps += 1;
        let mut bytes = [0; 32];
        for (slot, number) in bytes.chunks_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        self.hasher.update(&bytes);
    }

    /// Something for the reader, and for the hash.
    pub fn line(&mut self, at: u64, slot: Option<usize>, kind: &'static str, text: impl fmt::Display) {
        if let Some(lines) = &mut self.lines {
            lines.push(TraceLine { at, slot, kind, text: text.to_string() });
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.digest()
    }

    /// How many steps there were.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn into_lines(self) -> Vec<TraceLine> {
        self.lines.unwrap_or_default()
    }
}
