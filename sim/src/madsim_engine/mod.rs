pub use crate::queue::run;
