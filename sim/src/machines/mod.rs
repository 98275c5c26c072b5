//! What the machines of both engines have in common: their hardware, the faults that strike it, and
//! what replicas are started with.

mod config;
mod machine;
mod strike;

pub use config::replica_config;
pub use machine::Machine;
pub use strike::{announce, strike};
