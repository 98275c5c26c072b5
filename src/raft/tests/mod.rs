//! Tests of the core: the paper's rules, the traps of docs/protocol.md, and random schedules.

mod chunks;
mod election;
mod figure2;
mod freshness;
pub(super) mod harness;
mod invariants;
mod leases;
mod limits;
mod membership;
mod random;
mod reads;
mod replication;
mod restore;
mod script;
mod snapshots;
mod traps;
mod withdrawal;
