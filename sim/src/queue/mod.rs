//! The queue engine: thousands of simulated seconds a second, in one thread.

mod clock;
mod engine;
mod faults;
mod happening;
mod machine;
mod operator;
mod stepping;

pub use engine::{Outcome, run};
