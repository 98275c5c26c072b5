//! The simulator of InfinityStore: the replica, the write-ahead log and the snapshot files, unchanged, over simulated disks,
//! networks and clocks. One seed decides everything; a failure is one seed, one command.

#[cfg(not(any(madsim, doc, doctest)))]
compile_error!(
    "the simulator needs `--cfg madsim`, which .cargo/config.toml sets; RUSTFLAGS in your environment replaces it: \
     add `--cfg madsim` to your RUSTFLAGS, or unset RUSTFLAGS for this command"
);

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
