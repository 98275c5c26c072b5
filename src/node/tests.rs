//! Nodes in one process, over real sockets and disks in memory.

mod absorbing;
mod cluster;
mod forging;
mod hellos;
mod joining;
mod mending;
mod places;
mod rebuilding;
mod returning;
mod rivals;
mod running;
mod scrubbing;
pub(super) mod securing;
