//! The queue engine: thousands of simulated seconds a second, in one thread.

mod asking;
mod changes;
mod engine;
mod faults;
mod happening;
mod limits;
pub(crate) mod machine;
mod operator;
mod stepping;
mod watch;

pub use engine::run;
