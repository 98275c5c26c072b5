//! The log: its entries, the memberships among them, snapshots of what came before, and what
//! storage keeps of it.

pub(in crate::raft) mod entry;
#[expect(clippy::module_inception, reason = "the folder is named after the one thing it is about")]
pub(in crate::raft) mod log;
pub(in crate::raft) mod memberships;
pub(in crate::raft) mod records;
pub(in crate::raft) mod restore;
pub(in crate::raft) mod snapshot;
