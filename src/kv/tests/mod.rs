//! The state machine as a whole.

mod against_the_model;
mod at_most_once;
mod bounds;
mod foreign_bytes;
mod kit;
mod levels;
mod model;
mod rules;
mod security;
