//! InfinityStore: a replicated key-value store on a Raft core written from scratch.
//!
//! # Code map
//! Floors, lowest first; imports only go down.
//! - [`codec`]: framing, checksums, limits. Primitives only: each type encodes itself on its own
//!   floor.
//! - [`history`]: what clients saw, and whether it was linearizable. Stands beside the floors.
//! - [`raft`]: consensus, sans-IO: inputs and the time go in; messages, writes and entries come
//!   out.
//! - [`kv`]: the replicated state machine.
//! - [`replica`]: raft + kv + waiting clients + snapshot policy, one deterministic machine.
//! - `storage`: the `Disk` trait, the write-ahead log, snapshot files, identity.
//! - `tls`: certificates, and streams that are encrypted with them.
//! - `runtime`: the `Env` trait (sockets, time, tasks, workers), tokio's `Env`, metrics.
//! - `peer`: connections between nodes.
//! - `node`: the driver, its workers, joining: a running node.
//! - `api`: HTTP.
//! - `client`: a client of the HTTP API.
//! - `cli`: the command line.
//!
//! The floors up to `replica` are pure: without the feature `server` the crate is `no_std` +
//! `alloc`, so the compiler itself keeps clocks, files, threads and sockets out of them. Without
//! the feature `store` too, only `raft` and `codec` are left: the core, for another program
//! (`docs/embedding.md`).
#![cfg_attr(not(any(feature = "server", test)), no_std)]

extern crate alloc;

pub mod codec;
pub mod raft;

#[cfg(feature = "store")]
pub mod history;
#[cfg(feature = "store")]
pub mod kv;
#[cfg(feature = "store")]
pub mod replica;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod peer;
#[cfg(feature = "server")]
pub mod runtime;
#[cfg(feature = "server")]
pub mod storage;
#[cfg(feature = "server")]
pub mod tls;
