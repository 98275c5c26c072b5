//! The integration tests: one binary, so that it links once.
//!
//! - `floors` holds the rules of the source tree, `columns` the width of its prose.
//! - The others start real nodes (the built binary, real sockets, real files) through `support`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacker;
mod backup;
mod bad_input;
mod columns;
mod command_troubles;
mod commands;
mod data_dir;
mod data_look;
mod dev;
mod docs_api;
mod docs_cli;
mod failures;
mod faulty_disk;
mod floors;
mod growth;
mod holding;
mod holding_troubles;
mod http2;
mod initial_cluster;
mod lecture;
mod members;
mod older_copy;
mod power_loss;
mod pressure;
mod random_damage;
mod rebuild;
mod repair;
mod repetition;
mod secrets;
mod shortage;
mod support;
mod tls;
mod upgrade;
mod walk_through;
