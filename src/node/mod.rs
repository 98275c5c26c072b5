//! A running node: the driver, its workers, joining, and how all of it is put together.
//!
//! # Code map
//! - `start` puts the parts together; `options` says how, `handle` is what others in the process
//!   hold.
//! - `driver` is the one task around the replica, with `inbox` and `clients`; `absorb` is its move
//!   into another cluster.
//! - `storage_workers`: the disk, on threads of its own; `past_reads`: reads of the past, and
//!   changes since long ago, on others.
//! - `peer_questions`, `admission`, `join`, `join_turns`, `members`, `adding`, `announce`,
//!   `founding`, `initial_cluster`: what membership needs of other nodes, and answers to their
//!   questions.
//! - `repair`: a node whose data directory is damaged, before it takes part; `mending`: what the
//!   others answer it; `beside`: work on the disk at a start.
//! - `rivals`: a recovered node looks for others of the cluster that it was made of.
//! - `certificates`: takes new certificates into use.
//! - `address`: which addresses a node listens on, and which it tells to others.
//!
//! # Absences
//! No rule of consensus: the replica decides what is sent, written and answered, and in which
//! order. No clock, socket or thread but [`Env`](crate::runtime::Env)'s.

mod absorb;
mod adding;
mod address;
mod admission;
mod announce;
mod beside;
mod certificates;
mod clients;
mod driver;
mod foreign_call;
mod founding;
pub(crate) mod handle;
mod inbox;
mod initial_cluster;
mod join;
mod join_turns;
mod members;
mod mending;
mod named_members;
mod options;
mod past_reads;
mod peer_questions;
mod repair;
mod rivals;
mod scrub;
mod scrub_queue;
mod self_care;
mod start;
mod stopping;
mod storage_workers;

pub use crate::peer::{
    Health, JoinError, MemberDone, MemberOrder, MemberView, MembersView, NewNode, OrderCode, OrderConditions,
    OrderDone, OrderError,
};
pub use crate::runtime::NodeStatus;
pub use certificates::keep_certificates;
pub use handle::{Joined, NodeHandle, NodeSlot};
pub use options::{JoinTimings, NodeExit, NodeOptions, StartError};
pub use scrub::ScrubOptions;
pub use start::Node;

#[cfg(test)]
mod tests;
