//! What is decided before a run, and what clients ask.

use crate::schedule::fault::Fault;
use crate::schedule::settings::Settings;
use serde::{Deserialize, Serialize};

/// Everything that is decided before a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Seed of all that is drawn during the run.
    pub seed: u64,
    /// Machines that are voters from the start: slots `0..voters`.
    pub voters: usize,
    /// Machines that may be added: slots `voters..voters + spares`.
    pub spares: usize,
    /// How long faults and clients go on; afterwards faults end, and the cluster has to recover.
    pub duration_micros: u64,
    /// How the surroundings behave all the time.
    pub settings: Settings,
    /// What strikes when, in order of time.
    pub faults: Vec<Timed<Fault>>,
    /// What each client asks, in order of time.
    pub clients: Vec<Vec<Timed<Operation>>>,
}

/// Something at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// Microseconds from the start.
    pub at: u64,
    /// What.
    pub what: T,
}

impl Schedule {
    /// All machines.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.voters + self.spares
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which machine it asks.
    pub slot: usize,
    /// The key.
    pub key: u8,
    /// What.
    pub kind: OperationKind,
}

/// What a client does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    /// Sets it to a value that no other operation sets.
    Set,
    /// Removes it.
    Delete,
    /// Reads it, linearizably.
    Get,
}
