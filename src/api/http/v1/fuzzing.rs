//! The door for fuzzing.

use crate::api::http::credentials;
use crate::api::http::v1::conditions;
use crate::api::http::v1::cursor::Cursor;
use crate::api::http::v1::parameters::{Parameters, decode, duration_micros};
use crate::api::http::v1::txn_body;
use crate::api::service::parse_phc;
use crate::kv::Op;

/// Takes bytes for the header `Authorization`, and for the hash of a password. Nothing of it may
/// panic.
#[doc(hidden)]
pub fn take_apart_credentials(bytes: &[u8]) {
    let _ = credentials::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_phc(text);
    }
}

/// Takes bytes for each part of a request that `/v1` takes apart. Nothing of it may panic, and what
/// is taken comes back the same where there is a way back.
///
/// # Panics
/// If a cursor does not come back.
#[doc(hidden)]
pub fn take_apart_request(bytes: &[u8]) {
    if let Ok(txn) = txn_body::parse(bytes) {
        let _ = Op::Txn(Box::new(txn)).check();
    }
    if let Some(cursor) = Cursor::parse(bytes) {
        let again = Cursor::parse(cursor.to_text().as_bytes());
        assert_eq!(again.as_ref(), Some(&cursor), "a cursor comes back");
    }
    let _ = (conditions::parse(Some(bytes), None), conditions::parse(None, Some(bytes)));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (duration_micros(text), decode(text, false));
        if let Ok(parameters) = Parameters::parse(text, crate::api::http::v1::parameter_lists::GET) {
            let _ = (parameters.range(), parameters.level(), parameters.number("limit"));
            let _ = (parameters.flag("keys_only"), parameters.bytes("key", "key64"));
        }
    }
}
