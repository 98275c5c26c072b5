//! What a follower does: it appends what its leader sends, installs snapshots, or takes no part any
//! more.

pub(in crate::raft) mod append;
pub(in crate::raft) mod snapshots;
pub(in crate::raft) mod withdraw;
