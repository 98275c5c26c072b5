//! The simulator of InfinityStore: its layers, unchanged, over simulated disks, networks and
//! clocks. One seed decides everything; a failure is one seed, one command.
//!
//! # Code map
//! - `schedule` is what strikes and what clients ask, as data; `streams` is all other randomness.
//! - `disk` (with `content`), `network`, `clock` are the surroundings; `clients`, `checks`,
//!   `durable` judge, in both engines alike; `service` says what clients may expect while faults
//!   last, `pace` how soon, and at what cost.
//! - `marks` and `paths` say what a campaign has met.
//! - `queue` drives replicas over an event queue; `madsim_engine` drives whole nodes; `engine`
//!   chooses.
//! - `story` is what the `report` page shows of a run.
//! - `campaign`, `minimise`, `trace`, `outcome`: many seeds, small schedules, what is left of a
//!   run.

#[cfg(not(any(madsim, doc, doctest)))]
compile_error!(
    "the simulator needs `--cfg madsim`, which .cargo/config.toml sets; RUSTFLAGS in your environment replaces it: \
     add `--cfg madsim` to your RUSTFLAGS, or unset RUSTFLAGS for this command"
);

pub mod campaign;
pub mod checks;
pub mod clients;
pub mod clock;
mod content;
pub mod disk;
pub mod durable;
pub mod elections;
pub mod engine;
mod generate;
pub mod hashing;
pub mod ledger;
pub mod madsim_engine;
pub mod marks;
pub mod minimise;
pub mod mutants;
pub mod network;
pub mod orders;
pub mod outcome;
pub mod pace;
pub mod paths;
pub mod queue;
pub mod quorums;
pub mod report;
pub mod schedule;
pub mod service;
mod sieges;
pub mod story;
pub mod streams;
pub mod trace;
