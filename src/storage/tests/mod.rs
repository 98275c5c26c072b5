//! Tests of the storage floor.

mod backup;
mod bad_sectors;
mod basics;
mod boundary;
mod chunks;
mod crash;
mod damage;
mod faults;
mod gaps;
mod kit;
mod levels;
mod model;
mod remains;
mod repair;
mod scrub;
mod sending;
mod starts;
