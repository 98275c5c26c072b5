//! The API's words and bytes: taking requests apart, putting answers together, and both over real
//! sockets.

mod conformance;
mod fixture;
mod limits;
mod memory;
mod origin;
mod parsing;
mod rendering;
