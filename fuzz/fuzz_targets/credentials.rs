//! What a client shows to say who it is, and what a password is kept as.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| infinitystore::api::take_apart_credentials(bytes));
