//! What a node has: in every role (`shared`), in one (`role`), of each peer while it leads
//! (`progress`), and the reads that wait (`read_queues`).

pub(in crate::raft) mod progress;
pub(in crate::raft) mod read_queues;
pub(in crate::raft) mod role;
pub(in crate::raft) mod shared;
