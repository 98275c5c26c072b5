//! Clients of the keyspace over HTTP, on all routes under `/v1`, and what their answers have to be.
//!
//! What they ask is what the queue engine's clients ask (`checks::keyspace::clients`), written as a
//! request in one of the ways that docs/api has. Every answer is held in full against the model of
//! the committed log: it is exactly what that log leads to, at a place where the request can have
//! been carried out.

mod asked;
pub(super) mod book;
mod client;
mod contest;
mod forms;
mod judge;
mod plan;
mod reading;
mod right;
mod wanted;
mod watch;

pub(super) use client::HttpClient;
pub(super) use contest::run_contestant;
pub(super) use plan::run_keyspace_client;
pub(super) use wanted::AtSending;
