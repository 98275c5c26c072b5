//! The queue engine: thousands of simulated seconds a second, in one thread.

mod asking;
mod changes;
mod event;
mod faults;
mod keyspace;
mod limits;
mod machine;
mod messages;
mod operator;
mod releases;
mod simulation;
mod starting;
mod stepping;
mod storing;
mod waiting;
mod watch;

pub use simulation::run;
