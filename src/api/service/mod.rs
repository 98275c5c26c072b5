//! What clients may ask of a node, whatever they speak: typed requests, typed answers, and errors
//! with a stable code.
//!
//! HTTP is one face of it. A face turns its own words into calls of [`Service`], and what comes
//! back into its own words. It holds no rule of the data model. `error` says what can go wrong,
//! `keys` has what is done to one key, and `locks` makes locks and elections out of leases and
//! transactions.
//!
//! Every call passes `Service::ask`, so that what a principal may do is decided in one place.

mod error;
mod keys;
mod locks;
#[expect(clippy::module_inception, reason = "the folder is named after the one type it is about")]
mod service;

pub(crate) use error::{ErrorCode, ServiceError, WriteOutcome};
pub(crate) use keys::{Condition, LeaseChoice, PutCall, condition_failed};
pub(crate) use locks::{Contest, ContestKind};
pub(crate) use service::{Call, Service, strange};
