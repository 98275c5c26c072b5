//! The simulator of InfinityStore: the replica, the write-ahead log and the snapshot files, unchanged, over simulated disks,
//! networks and clocks. One seed decides everything; a failure is one seed, one command.

pub mod campaign;
pub mod checks;
pub mod clients;
pub mod disk;
pub mod durable;
pub mod minimise;
pub mod network;
pub mod queue;
pub mod schedule;
pub mod streams;
pub mod trace;
