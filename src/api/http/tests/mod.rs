//! The API's words and bytes: taking requests apart, putting answers together, and both over real
//! sockets.

mod auth;
mod auth_abuse;
mod conformance;
mod crowd;
mod fixture;
mod handshakes;
mod http2;
mod http2_kit;
mod limits;
mod memory;
mod origin;
mod parsing;
mod rendering;
mod v1_backup;
mod v1_bounds;
mod v1_input;
mod v1_keys;
mod v1_leases;
mod v1_locks;
mod v1_locks_random;
mod v1_members;
mod v1_ranges;
mod v1_table;
mod v1_txn;
mod v1_watch;
