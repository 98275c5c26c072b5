//! The log: its entries, what a start recovers, snapshots of what came before, and the stream of
//! writes.

pub(in crate::raft) mod entry;
#[expect(clippy::module_inception, reason = "the folder is named after the one thing it is about")]
pub(in crate::raft) mod log;
pub(in crate::raft) mod restore;
pub(in crate::raft) mod snapshot;
pub(in crate::raft) mod writes;
