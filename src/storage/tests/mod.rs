//! Tests of the storage floor.

mod basics;
mod crash;
mod damage;
mod faults;
mod kit;
mod model;
