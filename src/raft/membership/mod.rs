//! Memberships: one of them, the step to the next, and why a member withdraws.

pub(in crate::raft) mod change;
pub(in crate::raft) mod members;
pub(in crate::raft) mod withdrawal;
