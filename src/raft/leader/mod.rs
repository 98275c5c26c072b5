//! What a leader does: it replicates its log, sends snapshots, changes the membership, and hands
//! leadership over.

pub(in crate::raft) mod member_change;
pub(in crate::raft) mod replication;
pub(in crate::raft) mod snapshots;
pub(in crate::raft) mod transfer;
