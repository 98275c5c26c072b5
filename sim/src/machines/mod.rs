//! What the machines of both engines have in common.

mod config;

pub use config::replica_config;
