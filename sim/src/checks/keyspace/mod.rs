//! The keyspace: what the data model promises (`docs/data-model.md`), written once more as plainly
//! as can be, and what clients of it do and see.

mod answers;
pub mod callers;
pub mod clients;
pub mod leases;
mod levels;
pub mod model;
pub mod page;
mod parts;
mod past;
pub mod rights;
pub mod rules;
pub mod watching;
