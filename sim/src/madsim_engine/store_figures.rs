//! What stores are seen to hold, by the entry that they have applied last.

use infinitystore::kv::Store;

/// What all stores have to show that have applied the same entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreFigures {
    pub revision: u64,
    pub keys: u64,
    pub bytes: u64,
    pub compacted: u64,
    pub history_bytes: u64,
    pub answers_bytes: u64,
    pub leases: u64,
    pub level: u64,
}

impl StoreFigures {
    pub(super) fn of(store: &Store) -> Self {
        Self {
            revision: store.revision().0,
            keys: store.len() as u64,
            bytes: store.bytes(),
            compacted: store.compacted().0,
            history_bytes: store.history_bytes(),
            answers_bytes: store.answers_bytes(),
            leases: store.lease_count() as u64,
            level: store.level().get().into(),
        }
    }
}
