//! What a client may send under `/v1`: queries, transactions, conditions and cursors are taken or
//! refused, never panic.
#![no_main]

use infinitystore::api::take_apart_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| take_apart_request(input));
