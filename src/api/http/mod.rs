//! The HTTP API: three endpoints compatible with the original, the keyspace under `/v1`, and what
//! operators need.
//!
//! `server` accepts and looks after connections, `eviction` makes room for new ones, and
//! `connection` drives one. `dispatch` hands each request to the handler of its path: `routes` and
//! `v1::routes` have the table, and `route` says what a row is. `set`, `get`, `join`, `status`,
//! `health` and `help` are handlers, and those of the keyspace are in `v1`. `body` and `query` take
//! requests apart, and `answer` puts answers together. `identify` finds out who asks. `admission`
//! says whether a request is taken now: `turns` shares a node among many callers, and `rates` are
//! those that an operator sets. `rounds` shares its thread among their connections. `origin`
//! refuses requests that a page in a browser was made to send. `sending` hands answers out in
//! pieces, `stream` is an answer that goes on, and `budget` bounds the memory of all of it. `http2`
//! drives a connection that speaks HTTP/2, with `frames` and `streams`. `secured` takes handshakes,
//! where clients are served over TLS.
//!
//! What is not here: timers of tokio or of hyper. Time-outs of connections are found by one sweep a
//! second over all of them, which costs a request two atomic stores instead of two timers.

mod account;
mod admission;
mod answer;
mod body;
mod budget;
mod connection;
mod context;
mod control;
mod credentials;
mod crowd;
mod dispatch;
mod eviction;
mod frames;
mod get;
mod health;
mod help;
mod http2;
mod identify;
mod join;
mod linger;
mod not_taken;
mod options;
mod origin;
mod query;
mod rates;
mod remote_end;
mod request_line;
mod rounds;
mod route;
mod routes;
mod secured;
mod sending;
mod server;
mod set;
mod status;
mod stream;
mod streams;
mod turns;
mod v1;

pub use options::HttpOptions;
pub use server::HttpServer;
pub use v1::fuzzing::{take_apart_credentials, take_apart_request};

#[cfg(test)]
mod tests;
