//! What clients saw, and whether it was linearizable.
//!
//! A test or a simulation records every operation of every client in a [`Recorder`], with the times
//! of its call and its return, all by one clock. [`check`] then looks for an order of the
//! operations, one after the other, that explains every answer. In it an operation that returned
//! before another was called comes before that one (Herlihy & Wing 1990). Linearizability is local:
//! the history is linearizable if that of each key is, so each key is searched on its own.
//!
//! An operation whose outcome is unknown (a time-out, a lost connection) may have taken effect at
//! any time after its call, or never. One that failed for sure is left out of the history.
//!
//! The search (after Wing & Gong 1993, with the memory of configurations of Lowe 2017) is exact but
//! bounded. If it gives up, the verdict is [`Verdict::Inconclusive`], which a caller must treat as
//! a failure. What keeps it small is described in `search.rs` and `problem.rs`.
//!
//! [`witness`] turns the order that was found into a point in time for each operation.
//!
//! Not here: scans and transactions over several keys. Where the store's revisions were observed,
//! they are checked over all keys together.

mod check;
mod explain;
mod operation;
mod problem;
mod recorder;
mod revisions;
mod search;
mod witness;

pub use check::{Effort, Report, Verdict, check};
pub use explain::Violation;
pub use operation::{Kind, Operation};
pub use recorder::{Action, OperationId, Recorder};
pub use witness::{Point, witness};

#[cfg(test)]
mod tests;
