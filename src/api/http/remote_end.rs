//! The other end of a connection.

use crate::api::http::account::Account;
use std::sync::Arc;

/// The other end of a connection.
#[derive(Debug, Default)]
pub(super) struct RemoteEnd {
    /// Its address, as the listener says it.
    pub(super) address: String,
    /// What that address holds of the budget, over all of its connections.
    pub(super) account: Arc<Account>,
}
