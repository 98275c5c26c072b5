//! The simulator of InfinityStore: its layers, unchanged, over simulated disks, networks and
//! clocks. One seed decides everything; a failure is one seed, one command.
//!
//! # Code map
//! Lowest first; imports only go down, which a test holds (`tests/it/floors`).
//! - `schedule` is what strikes and what clients ask, as data; its `streams` are all other
//!   randomness.
//! - `record` is what is left of a run: trace, timeline, marks, outcome.
//! - `hardware` is what the product stands on: disks, network, clocks.
//! - `checks` judge, in both engines alike.
//! - `machines` is what the machines of both engines have in common.
//! - `queue` drives replicas over an event queue; `madsim_engine` drives whole nodes.
//! - `run` chooses an engine, runs many seeds, and makes schedules small.
//! - `report` draws a run as a page.
//! - `mutants` plants bugs in a copy of the sources.

#[cfg(not(any(madsim, doc, doctest)))]
compile_error!(
    "the simulator needs `--cfg madsim`, which .cargo/config.toml sets; RUSTFLAGS in your environment replaces it: \
     add `--cfg madsim` to your RUSTFLAGS, or unset RUSTFLAGS for this command"
);

pub mod checks;
pub mod hardware;
pub mod machines;
pub mod madsim_engine;
pub mod mutants;
pub mod queue;
pub mod record;
pub mod report;
pub mod run;
pub mod schedule;
