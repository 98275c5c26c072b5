//! The HTTP API: three endpoints compatible with the original, and those that operators need.
//!
//! `server` accepts and looks after connections, and `connection` drives one. `dispatch`
//! hands each request to the handler of its path: `routes` has the table, `route` says what a row
//! is, and `set`, `get`, `join`, `status`, `health` and `help` are the handlers. `body`
//! and `query` take requests apart, and `answer` puts answers together. `origin` refuses requests
//! that a page in a browser was made to send. `sending` hands answers out in pieces, and `budget`
//! bounds the memory of all of it.
//!
//! What is not here: timers of tokio or of hyper. Time-outs of connections are found by one sweep a
//! second over all of them, which costs a request two atomic stores instead of two timers.

mod answer;
mod body;
mod budget;
mod connection;
mod context;
mod control;
mod dispatch;
mod get;
mod health;
mod help;
mod join;
mod options;
mod origin;
mod query;
mod route;
mod routes;
mod sending;
mod server;
mod set;
mod status;

pub use options::HttpOptions;
pub use server::HttpServer;

#[cfg(test)]
mod tests;
