//! The replicated state machine: byte strings to byte strings, with revisions.
//!
//! [`Store`] applies [`Op`]s one after the other; every node applies the same ones in the same
//! order and so has the same state, which [`Store::state_hash`] lets them compare. A clone of a
//! store is O(1) and shares everything with the original, so that a snapshot is captured between
//! two commands and written while the original goes on; [`StoreReader`] rebuilds a store from its
//! pieces.
//!
//! Not here: permissions, time, leases, logs. The floor above decides when a command is applied.

mod command;
mod leaf;
mod snapshot;
mod store;
mod tree;

pub use command::{KEY_BYTES_MAX, Op, Outcome, Revision, VALUE_BYTES_MAX};
pub use leaf::VersionedRef;
pub use snapshot::StoreReader;
pub use store::{Store, Versioned};
