//! The state machine as a whole.

mod against_the_model;
mod foreign_bytes;
mod kit;
mod model;
mod rules;
mod security;
