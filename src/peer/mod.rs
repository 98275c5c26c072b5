//! Connections between nodes: how they begin, which callers are let in, and what goes over them.
//!
//! # Code map
//! - `block` and `hello`: how connections begin; `greeting`: at which level both ends speak.
//! - `address_book`: which callers are let in, and the addresses of the others; `refusal`: why one
//!   is not; `vouched` and `vouching`: who vouches for one that is not known.
//! - `secured`: certificates at both ends of a connection, before its hello.
//! - `links` and `link` send to peers, `incoming` receives; `discovery` is what either finds out
//!   about this node itself.
//! - `rpc`: questions between nodes, one for each connection; `orders`: what operators order of the
//!   members, which nodes pass on; `mending`: questions of a node that repairs its data directory.
//!   What the answers are, is for the floor above. `by_name`: how a value of a few goes over.
//!
//! # Absences
//! No rule of consensus: a message is handed on as it came. No clock, socket or thread but
//! [`Env`](crate::runtime::Env)'s.

pub(crate) mod address_book;
mod block;
mod by_name;
pub(crate) mod discovery;
pub(crate) mod greeting;
pub(crate) mod hello;
pub(crate) mod incoming;
mod link;
pub(crate) mod links;
pub(crate) mod mending;
mod options;
pub(crate) mod orders;
mod refusal;
pub(crate) mod rpc;
pub(crate) mod secured;
pub(crate) mod vouched;
pub(crate) mod vouching;

pub use address_book::Spoken;
pub use options::TransportOptions;
pub use orders::{
    Health, MemberDone, MemberOrder, MemberView, MembersView, NewNode, OrderCode, OrderConditions, OrderDone,
    OrderError,
};
pub use rpc::JoinError;
