//! Nodes in one process, over real sockets and disks in memory.

mod cluster;
mod hellos;
mod joining;
mod running;
