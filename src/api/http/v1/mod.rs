//! `/v1`: the keyspace over HTTP.
//!
//! Each file has the handlers of a family of routes. `parameters`, `input` and `json` take requests
//! apart and put answers together; `problem` turns what went wrong into RFC 9457's words. The rules
//! of the data model are the service's and the store's.

mod alarms;
pub(super) mod auth;
pub(super) mod auth_routes;
pub(super) mod backup;
pub(super) mod conditions;
pub(super) mod cursor;
pub(super) mod fuzzing;
pub(super) mod input;
pub(super) mod json;
pub(super) mod key;
pub(super) mod leases;
pub(super) mod locks;
pub(super) mod members;
pub(super) mod object;
pub(super) mod openapi;
pub(super) mod page_cache;
mod pages;
pub(super) mod parameter_lists;
pub(super) mod parameters;
pub(super) mod problem;
mod questions;
pub(super) mod range;
pub(super) mod routes;
pub(super) mod rows;
pub(super) mod store;
pub(super) mod txn;
pub(super) mod txn_body;
pub(super) mod watch;
