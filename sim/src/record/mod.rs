//! What is left of a run: its trace, the timeline of the report, marks of what it met, figures of
//! what the product did, and what was violated.

pub mod figures;
pub mod marks;
pub mod outcome;
pub mod timeline;
pub mod trace;
pub mod violation;
pub mod words;
