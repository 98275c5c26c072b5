//! A running node: the driver, peer transport, HTTP, metrics, shutdown.
//!
//! # Code map
//! - `node` puts the parts together; `options` says how, `handle` is what others in the process hold.
//! - `driver` is the one task around the replica, with `inbox`, `clients` and `timer`; `absorb` is its move into another cluster.
//! - `work`, `storage_workers`: the disk, on threads of its own.
//! - `links` and `link` send to peers, `incoming` receives; `block` and `hello` are how connections begin, `directory` is
//!   who is let in.
//! - `door` counts connections, for both ports.
//! - `rpc`, `service`, `join`, `announce`: questions between nodes, and what membership needs of them.
//! - [`Env`] is what all of it runs on; `tokio_env` is the one for production.
//!
//! # Absences
//! No rule of consensus: the replica decides what is sent, written and answered, and in which order. No clock, socket or
//! thread but [`Env`]'s.

mod absorb;
mod address;
mod announce;
mod block;
mod clients;
mod directory;
mod door;
mod driver;
mod env;
mod handle;
mod hello;
mod http;
mod inbox;
mod incoming;
mod join;
mod join_turns;
mod link;
mod links;
mod metrics;
mod node;
mod options;
mod rpc;
mod service;
mod storage_workers;
mod timer;
mod tokio_env;
mod watch;
pub mod work;
mod work_task;

pub use env::{Env, Listener, until};
pub use handle::{JoinError, Joined, NodeHandle, NodeSlot, NodeStatus};
pub use http::{HttpOptions, HttpServer};
pub use metrics::{Histogram, Instruments, Metrics, Requests, Route};
pub use node::Node;
pub use options::{JoinTimings, NodeExit, NodeOptions, StartError, TransportOptions};
pub use tokio_env::{TokioEnv, TokioListener};
pub use work_task::run_as_task;

#[cfg(test)]
mod tests;
