//! Runs: one on either engine, many on all cores, small schedules, what a campaign has to
//! meet, and what it is compared with.

pub mod campaign;
pub mod coverage;
pub mod engine;
pub mod minimise;
pub mod vitals;
