//! A run's schedule: faults and client operations, as data.
//!
//! It is generated from a seed, replayed, minimised by dropping parts, and kept as a file when it
//! found a bug. Everything that is not in it (delays, what survives a power loss) is drawn from the
//! streams of its seed.

mod fault;
mod generate;
mod keyspace;
mod plan;
mod settings;
mod sieges;
mod streams;

pub use fault::{Cut, DiskTrouble, Fault, INSTALLER, LEADER};
pub use plan::{KeyspaceKind, KeyspaceOperation, Operation, OperationKind, Schedule, Timed};
pub use settings::{
    CALM_MICROS, MILLI, PROMOTE_LAG_ENTRIES, RECOVERY_MICROS, SECOND, STALL_MICROS, Settings,
};
pub use streams::{Stream, stream};
