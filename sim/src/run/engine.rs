//! The two engines, behind one door.

use crate::record::outcome::Outcome;
use crate::schedule::Schedule;
use crate::{madsim_engine, queue};
use clap::ValueEnum;
use std::fmt;

/// What drives the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The replicas themselves, over an event queue: for volume.
    #[default]
    Queue,
    /// Whole nodes, with driver, transport and HTTP server, as tasks of madsim: for everything
    /// above the replica.
    Madsim,
}

impl Engine {
    /// Runs a schedule to its end, or to the first violation.
    #[must_use]
    pub fn run(self, schedule: Schedule, verbose: bool) -> Outcome {
        match self {
            Self::Queue => queue::run(schedule, verbose),
            Self::Madsim => madsim_engine::run(schedule, verbose),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::Madsim => "madsim",
        })
    }
}
