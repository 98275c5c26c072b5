//! What a node has: in every role (`shared`), in one (`role`), of each peer while it leads
//! (`progress`) and of snapshots on their way to peers (`sending`), the reads that wait
//! (`read_queues`), and how fresh its state is (`freshness`).

pub(super) mod freshness;
pub(super) mod progress;
pub(super) mod read_queues;
pub(super) mod role;
pub(super) mod sending;
pub(super) mod shared;
