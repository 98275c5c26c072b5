//! What storage keeps: what a core asks to be written, the receipt for it, and what a start
//! recovers.

use crate::raft::log::entry::Entry;
use crate::raft::log::snapshot::{SnapshotChunk, SnapshotMeta};
use crate::raft::types::{HardState, Incarnation, LogIndex, WriteSequence};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What storage recovered: the durable state a core starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// The newest snapshot whose marker is in the log, if any: the state machine has been restored
    /// from it.
    pub snapshot: Option<SnapshotMeta>,
    /// The log, contiguous; its first entry is at or below the snapshot's index + 1 (a tail is kept
    /// for laggards).
    pub entries: Vec<Entry>,
    /// The commit index known when the log was written; more may be committed. At most the log's
    /// last index. [`LogIndex::ZERO`]: nothing is known beyond the snapshot.
    pub commit: LogIndex,
    /// What an earlier start of this node may have promised a leader
    /// ([`Config::lease_drift_ppm`](crate::raft::Config::lease_drift_ppm)), microseconds: for so
    /// long after its start a node keeps that promise. 0 if none made any.
    pub promised_micros: u64,
}

/// What a [`LogWrite`] asks to be written, as one atomic group. Replayed in the order of the
/// fields.
///
/// A write with the last chunk of a snapshot also has `snapshot`, and `truncate_from` 1 (the whole
/// log is void: the next entry will be the one after the snapshot). If that snapshot does not
/// verify, *neither* is carried out
/// ([`Input::SnapshotRefused`](crate::raft::Input::SnapshotRefused)): the log stays as it was. Term
/// and vote of the same write are written all the same. Such a write has no entries.
///
/// Snapshot files are stored in the order of the writes that carry their chunks. An older file is
/// kept until the marker of the newer one is durable: a start may find that marker missing. The log
/// on disk is trimmed by the storage, up to
/// [`RaftEvent::Compacted`](crate::raft::RaftEvent::Compacted) and no further; the log in memory by
/// the core, which says nothing of it and may be ahead of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogRecords {
    /// Term and vote, when they changed.
    pub hard_state: Option<HardState>,
    /// Entries at this index and above are void.
    pub truncate_from: Option<LogIndex>,
    /// Chunks of one incoming snapshot, to be put into its file (not into the log): each begins
    /// where the one before ends, and only the last of them may be `done`.
    pub snapshot_chunks: Vec<SnapshotChunk>,
    /// Snapshot marker: this snapshot is complete and synced; what it covers may be dropped from
    /// the log.
    pub snapshot: Option<Box<SnapshotMeta>>,
    /// Entries to append, contiguous.
    pub entries: Vec<Entry>,
}

/// One atomic group of the ordered stream of writes. Consuming it is the only way to its receipt.
#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "model", derive(Clone))]
#[must_use = "a write that is dropped never becomes durable, and the core waits for it for ever"]
pub struct LogWrite {
    pub(in crate::raft) records: LogRecords,
    pub(in crate::raft) receipt: Durable,
}

impl LogWrite {
    /// What to write.
    #[must_use]
    pub const fn records(&self) -> &LogRecords {
        &self.records
    }

    /// Where this write stands in the stream.
    #[must_use]
    pub const fn sequence(&self) -> WriteSequence {
        self.receipt.sequence
    }

    /// The receipt, to be given back once everything of [`Self::records`], and of all writes
    /// before, is durable.
    pub fn into_durable(self) -> Durable {
        self.receipt
    }
}

#[cfg(all(test, feature = "server"))]
impl LogWrite {
    /// A write that no core asked for, so that the floors above can be tested without one.
    pub(crate) fn for_test(records: LogRecords, sequence: u64) -> Self {
        let (incarnation, sequence) = (Incarnation::new(1), WriteSequence::new(sequence));
        Self { records, receipt: Durable { incarnation, sequence } }
    }
}

/// The receipt of a durable write; acknowledges all writes before it too. Only
/// [`LogWrite::into_durable`] makes one.
#[derive(Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "model", derive(Clone))]
#[must_use = "the core waits for its receipts"]
pub struct Durable {
    pub(in crate::raft) incarnation: Incarnation,
    pub(in crate::raft) sequence: WriteSequence,
}

impl Durable {
    /// The last write that it acknowledges.
    #[must_use]
    pub const fn sequence(&self) -> WriteSequence {
        self.sequence
    }
}
