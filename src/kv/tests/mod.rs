//! The state machine as a whole.

mod against_the_model;
mod bounds;
mod foreign_bytes;
mod kit;
mod model;
mod rules;
mod security;
