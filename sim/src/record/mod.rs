//! What is left of a run: its trace, the timeline of the report, marks of what it met, and what was
//! violated.

pub mod marks;
pub mod outcome;
pub mod timeline;
pub mod trace;
pub mod violation;
pub mod words;
