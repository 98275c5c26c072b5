//! Tests of the storage floor.

mod basics;
mod boundary;
mod crash;
mod damage;
mod faults;
mod kit;
mod model;
