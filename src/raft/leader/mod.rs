//! What a leader does: it replicates its log, sends snapshots, changes the membership, and hands
//! leadership over.

pub(super) mod member_change;
pub(super) mod replication;
pub(super) mod snapshots;
pub(super) mod transfer;
