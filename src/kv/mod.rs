//! The replicated state machine: byte strings to byte strings, with their history.
//!
//! [`Store`] applies [`Command`]s one after the other; every node applies the same ones in the same
//! order and so has the same state, which [`Store::state_hash`] lets them compare. Every command
//! that changes keys makes one [`Revision`]. Past versions are kept until the history takes more
//! than its bytes, so that the store can be read as it was ([`Store::range`]) and asked what
//! changed ([`Store::changes`]).
//!
//! A clone of a store is O(1) and shares everything with the original, so that a snapshot is
//! captured between two commands and written while the original goes on; [`StoreReader`] rebuilds a
//! store from its pieces.
//!
//! What a client may do is judged here, against the state that its request reads or changes
//! (`security`). Who a client is, the floors above find out.
//!
//! Not here: time, logs. A lease ends because a command says so; who keeps the time, and when a
//! command is applied, the floor above decides.

mod answers;
mod command;
mod fields;
mod history;
mod judge;
mod leaf;
mod leases;
mod outcome;
mod packed;
mod query;
mod reads;
mod remembered;
mod security;
mod snapshot;
mod store;
mod tree;
mod txn;
mod types;
mod wire;

pub use command::{
    Command, Compare, CompareOrder, ForgottenAnswer, IDEMPOTENCY_KEY_BYTES_MAX, Op, Outcome, Put, Refusal,
    Target, Txn, TxnOp, TxnResult,
};
pub use leases::{IDLE_LEASES_MAX, LEASE_ID_CHOSEN_MIN, LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};
pub use query::{
    Changes, ChangesQuery, Detail, Event, Found, Lease, LeaseGrant, PAGE_BYTES_MAX, PAGE_KEYS_MAX, Query,
    QueryAnswer, RangePage, RangeQuery, ReadError, RevisionChanges,
};
pub use reads::{PastChanges, PastRead};
pub use security::{
    Access, AdminRight, AdminRights, Denial, Grant, Principal, ROOT_ROLE, Role, Security, SecurityChange,
    SecurityRefusal, Subject, TOKEN_HASH_BYTES, Token, TokenOwner, TokenRights, User,
};
pub use snapshot::StoreReader;
pub use store::{CHANGES_MAX, Store};
pub use txn::{BadCommand, COMMAND_BYTES_MAX, TXN_DEPTH_MAX, TXN_STEPS_MAX};
pub use types::{KEY_BYTES_MAX, KeyRange, KeyValue, LeaseId, Revision, Settings, VALUE_BYTES_MAX};

#[cfg(test)]
mod tests;
