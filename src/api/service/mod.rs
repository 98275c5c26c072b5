//! What clients may ask of a node, whatever they speak: typed requests, typed answers, and errors
//! with a stable code.
//!
//! HTTP is one face of it. A face turns its own words into calls of [`Service`], and what comes
//! back into its own words. It holds no rule of the data model. `error` says what can go wrong,
//! `keys` has what is done to one key, and `locks` makes locks and elections out of leases and
//! transactions.
//!
//! Every call passes `Service::ask_within` with who asks, so that what a principal may do is
//! decided in one place: where the state is that is read or changed (`kv::security`).
//! `authenticator` finds out who asks, and `audit` writes down what they did.

mod audit;
mod authenticator;
mod credentials;
mod error;
mod identity;
mod keys;
mod locks;
mod passwords;
mod security;
#[expect(clippy::module_inception, reason = "the folder is named after the one type it is about")]
mod service;

pub use audit::{AuditLog, AuditSink};
pub(crate) use authenticator::Authenticator;
pub(crate) use credentials::{Credentials, PASSWORD_BYTES_MAX};
pub(crate) use error::{ErrorCode, ServiceError, WriteOutcome};
pub(crate) use identity::{Identity, Shown};
pub(crate) use keys::{Condition, LeaseChoice, PutCall, condition_failed};
pub(crate) use locks::{Candidacy, Contest, ContestKind, Won};
pub use passwords::PasswordCost;
pub(crate) use passwords::parse_phc;
pub(crate) use security::NewToken;
pub(crate) use service::{Asker, Call, JoinCallError, Service, strange};
