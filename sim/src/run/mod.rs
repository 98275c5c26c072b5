//! Runs: one on either engine, many on all cores, small schedules, and what a campaign has to meet.

pub mod campaign;
pub mod coverage;
pub mod engine;
pub mod minimise;
