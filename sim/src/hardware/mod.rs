//! What replicas and nodes stand on, simulated: disks, network, clocks.

pub mod clock;
pub mod disk;
mod disk_state;
mod file_image;
pub mod network;
