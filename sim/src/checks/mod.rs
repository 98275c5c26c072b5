//! What is checked, in both engines alike.
//!
//! Safety at every step, over all machines at once: `safety`, `elections`, `quorums`, `orders`,
//! `ledger`, and `durable` for what a disk has to hold. `clients` keeps what clients saw, for the
//! checker of histories. `service` says what they may expect while faults last, `pace` how soon and
//! at what cost. `observed` recognises rare paths of the product. `shown` holds a status against
//! the replica that it is of, `answer_times` the age of its oldest answer.

pub mod answer_times;
mod answering;
pub mod bounds;
pub mod clients;
pub mod durable;
pub mod elections;
pub mod freshness;
pub mod hashing;
pub mod keyspace;
mod leading;
pub mod ledger;
pub mod levels;
pub mod observed;
pub mod orders;
pub mod pace;
pub mod quorums;
pub mod safety;
pub mod service;
pub mod shown;
