//! A client of the HTTP API: what `bench` and `dev` use, tests too, and programs that embed it.
//!
//! [`Client`] has one connection and one request under way. It knows several nodes, and asks the
//! next one when one is down. A program that wants more at the same time has several clients.
//!
//! # What happens to a write
//!
//! [`Client::set`] returns `Ok`: the write is applied, on the disks of a majority. It returns an
//! error: [`CallError::outcome`] says whether the write has not happened and will not
//! ([`WriteOutcome::NotApplied`]), or whether nobody knows ([`WriteOutcome::Unknown`]).
//!
//! | what the client saw | outcome | asks the next node |
//! |---|---|---|
//! | no connection, or one that had ended before the request was sent | not applied | yes |
//! | 4xx | not applied: the request itself is wrong | no |
//! | 5xx that says `infinitystore-outcome: not-appended` | not applied | yes |
//! | any other 5xx | unknown | no |
//! | no answer in time, or a connection that broke | unknown | no |
//! | an answer that no node gives | unknown | no |
//!
//! So a write is repeated only if it is certain that it has not happened. A read changes nothing,
//! and is repeated after every failure that is not its own.
//!
//! # What is not trusted
//!
//! Whatever listens at an address may answer anything. An answer's head has at most 64 KiB, its
//! body at most [`ClientOptions::answer_bytes_max`], and both have to come in time. An answer says
//! how long it is, or comes in chunks: one that ends with its connection is refused, since a cut
//! one looks the same. 200 alone is no success: the body has to be a node's.
//!
//! Not here: pauses between attempts, and attempts without end. Callers know how long they want to
//! wait.

mod attempts;
mod calls;
mod connection;
mod endpoint;
mod error;
mod request;

pub use attempts::{Client, ClientOptions};
pub use calls::{LeaderReport, LogIdReport, MemberReport, NodeReport, Readiness};
pub use endpoint::Endpoint;
pub use error::{CallError, CallFailure, RefusedCall, WriteOutcome};

#[cfg(test)]
mod tests;
