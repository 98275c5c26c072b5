//! How the surroundings behave all the time, and the times and limits of every run.

use serde::{Deserialize, Serialize};

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;
/// Microseconds in a millisecond.
pub const MILLI: u64 = 1_000;
/// A leader whose disk takes this long for a write steps down.
pub const STALL_MICROS: u64 = 5 * SECOND;

/// A learner that lacks more entries than this is not promoted.
pub const PROMOTE_LAG_ENTRIES: u64 = 5;

/// How long a cluster has to recover once faults have ended. A write to a stalled disk may go on
/// for ten seconds, and where an append carries one entry and takes a tenth of a second, a new
/// member may need thirty.
pub const RECOVERY_MICROS: u64 = 60 * SECOND;

/// Clients go on for this long after the faults have ended.
pub const CALM_MICROS: u64 = 5 * SECOND;

/// How network, disks, clocks and replicas behave all the time. Each part may be off in a run
/// (swarm testing).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// One-way delay of a message: from.
    pub delay_min_micros: u64,
    /// One-way delay of a message: to. A wide range reorders.
    pub delay_max_micros: u64,
    /// Messages lost, of a million.
    pub loss_ppm: u32,
    /// Messages delivered twice, of a million.
    pub duplicate_ppm: u32,
    /// Messages whose bits flip, of a million.
    pub corrupt_ppm: u32,
    /// Messages that take much longer, of a million.
    pub straggler_ppm: u32,
    /// How much longer those take, at most; 0: ten times as long as others.
    #[serde(default)]
    pub straggler_max_micros: u64,
    /// Each link, in each direction, is slower than the fastest by a factor of at most this; 0 and
    /// 1: all are alike.
    #[serde(default)]
    pub link_spread: u32,
    /// A batch's write and sync: from.
    pub sync_min_micros: u64,
    /// A batch's write and sync: to.
    pub sync_max_micros: u64,
    /// Each machine's clock runs faster or slower by at most this many millionths.
    pub drift_ppm: u32,
    /// Leaders serve reads by leases, under that bound of drift.
    #[serde(default)]
    pub lease_reads: bool,
    /// Election time-out of the cores.
    pub election_timeout_micros: u64,
    /// Heartbeat interval of the cores.
    pub heartbeat_interval_micros: u64,
    /// A snapshot is due after this many entries.
    pub snapshot_log_entries: u64,
    /// Entries kept behind a snapshot.
    pub log_tail_entries: u64,
    /// Bytes of a snapshot chunk.
    pub snapshot_chunk_bytes: u64,
    /// Bytes of snapshots in flight to all peers, at most; 0: the product's own bound.
    #[serde(default)]
    pub snapshot_inflight_bytes_max: u64,
    /// Bytes of snapshots that a leader sends in a second, at most; 0: the product's own bound.
    #[serde(default)]
    pub snapshot_bytes_per_second_max: u64,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of entries in one append, at most.
    pub append_bytes_max: u64,
    /// Appends in flight to one peer, at most.
    pub inflight_messages_max: usize,
    /// Bytes that a leader has appended and not committed, at most; 0: the product's own bound,
    /// which no run meets.
    #[serde(default)]
    pub uncommitted_bytes_max: u64,
    /// Committed entries that a replica applies at once, at most; 0: the product's own bound. Queue
    /// engine.
    #[serde(default)]
    pub apply_entries_max: usize,
    /// And their bytes; 0: the product's own bound. Queue engine.
    #[serde(default)]
    pub apply_bytes_max: u64,
    /// Bytes of entries kept behind a snapshot; 0: the product's own bound. Queue engine.
    #[serde(default)]
    pub log_tail_bytes: u64,
    /// Bytes of writes that wait in one replica, at most; 0: the product's own bound. Queue engine.
    #[serde(default)]
    pub pending_write_bytes_max: u64,
    /// Bytes of the log in memory; 0: the product's own bound. Queue engine.
    #[serde(default)]
    pub log_bytes_max: u64,
    /// Torn tails that are kept; 0: the product's own bound. Queue engine.
    #[serde(default)]
    pub torn_files_max: usize,
    /// How many keys the clients share.
    pub keys: u8,
    /// Bytes of a value, at least enough for its name.
    pub value_bytes: usize,
    /// How long a client waits for an answer.
    pub client_timeout_micros: u64,
    /// What a replica does about an event is carried out at most this much later, together with
    /// what comes in meanwhile; 0: at once.
    #[serde(default)]
    pub settle_max_micros: u64,
    /// The level of the cluster is raised once all members have spoken a higher one for this long;
    /// 0: the product's own time.
    #[serde(default)]
    pub level_settle_micros: u64,
}

impl Settings {
    /// What the cluster is told to keep of its history, bytes. A snapshot holds all of it, and has
    /// to arrive in chunks of `snapshot_chunk_bytes`.
    #[must_use]
    pub fn history_bytes(&self) -> u64 {
        (32 * self.snapshot_chunk_bytes).min(1 << 20)
    }

    /// About how many bytes a snapshot has.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        u64::from(self.keys) * (self.value_bytes as u64 + 100) + 1_000 + self.history_bytes()
    }
}
