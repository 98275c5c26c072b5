//! Memberships: one of them, the step to the next, those in the log, and why a member withdraws.

pub(in crate::raft) mod change;
pub(in crate::raft) mod history;
pub(in crate::raft) mod members;
pub(in crate::raft) mod withdrawal;
