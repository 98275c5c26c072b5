//! The core's limits and timings, validated once.

/// Timings and limits of a core. All times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// A leader that has told a peer nothing for this long sends it a heartbeat.
    pub heartbeat_interval_micros: u64,
    /// A follower campaigns after a silence drawn from `[min, 2 × min)`; a leader steps down when
    /// it has not heard a quorum for `min`; a node refuses votes for `min` after it last heard from
    /// a leader (stickiness).
    pub election_timeout_micros: u64,
    /// Appends in flight to one peer, at most.
    pub inflight_messages_max: usize,
    /// Bytes of entries in flight to one peer, at most (one larger entry still goes alone).
    pub inflight_bytes_max: u64,
    /// Bytes of entries in one append, at most (one larger entry still goes alone).
    pub append_bytes_max: u64,
    /// Bytes of proposed entries that are not committed yet; a proposal past it is refused.
    pub uncommitted_bytes_max: u64,
    /// Reads waiting for a round, at most; a read past it is refused.
    pub pending_reads_max: usize,
    /// Bytes of one snapshot chunk.
    pub snapshot_chunk_bytes: u64,
    /// Bytes of snapshots that are read, or sent and not acknowledged, to all peers together. If
    /// several transfers are under way, each has a part of it. Each may always have one chunk. A
    /// follower takes as many bytes into one write.
    pub snapshot_inflight_bytes_max: u64,
    /// Bytes of snapshots that a leader sends in a second, to all peers together; 0: there is no
    /// bound. Nothing else waits for it.
    pub snapshot_bytes_per_second_max: u64,
    /// Committed entries handed out at once, at most: what is left waits for the next output, so
    /// that a long log does not keep a node from its heartbeats.
    pub apply_entries_max: usize,
    /// Bytes of committed entries handed out at once, at most (one larger entry still goes alone).
    pub apply_bytes_max: u64,
    /// A member that refused a snapshot is offered one again after this time. The time doubles with
    /// each further refusal …
    pub snapshot_backoff_min_micros: u64,
    /// … up to this.
    pub snapshot_backoff_max_micros: u64,
    /// A leader whose oldest unsynced write is older than this steps down.
    pub disk_stall_micros: u64,
    /// Entries kept behind a snapshot for laggards, at most.
    pub log_tail_entries: u64,
    /// Bytes of entries kept behind a snapshot for laggards, at most.
    pub log_tail_bytes: u64,
    /// Bytes that the log takes in memory, at most. Entries beyond it leave the memory once they
    /// are applied and durable, whether or not a snapshot covers them already. A member that needs
    /// them is sent a snapshot then. A long log spares sending that snapshot, so it may take an
    /// eighth of the newest snapshot's bytes if that is less than this bound, but always 8 MiB.
    pub log_bytes_max: u64,
    /// A leader keeps more than that tail for a member that is catching up, as long as the log in
    /// memory has at most this many bytes. Otherwise a snapshot that takes long to send would be
    /// out of date when it arrives, and so would the next.
    pub laggard_log_bytes_max: u64,
    /// A learner is promoted when it lacks at most this many entries.
    pub promote_lag_entries: u64,
    /// Lease reads (D §6.4.1): a node with this promises each leader that it hears to
    /// vote for nobody for an election timeout, and a leader with this serves reads at once while
    /// such promises of a quorum last. The number bounds how far the clock of any member may be off
    /// in rate, in millionths: within it, reads are linearizable. `None`: no promise is made, and
    /// each read is confirmed by a round of messages, which needs no clock.
    pub lease_drift_ppm: Option<u32>,
}

/// The log in memory takes at most this part of the snapshot that it spares to send: one in 8.
pub(super) const LOG_PART_OF_SNAPSHOT: u64 = 8;
/// Bytes that the log in memory may always take, unless [`Config::log_bytes_max`] is below.
pub(super) const LOG_BYTES_MIN: u64 = 8 << 20;

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_interval_micros: 100_000,
            election_timeout_micros: 600_000,
            inflight_messages_max: 64,
            inflight_bytes_max: 16 << 20,
            append_bytes_max: 1 << 20,
            uncommitted_bytes_max: 64 << 20,
            pending_reads_max: 65_536,
            snapshot_chunk_bytes: 1 << 20,
            snapshot_inflight_bytes_max: 8 << 20,
            // Leaves a fifth of a gigabit link to everything else.
            snapshot_bytes_per_second_max: 95 << 20,
            apply_entries_max: 2_048,
            apply_bytes_max: 4 << 20,
            snapshot_backoff_min_micros: 1_000_000,
            snapshot_backoff_max_micros: 60_000_000,
            disk_stall_micros: 5_000_000,
            log_tail_entries: 10_000,
            log_tail_bytes: 32 << 20,
            log_bytes_max: 128 << 20,
            laggard_log_bytes_max: 256 << 20,
            promote_lag_entries: 1_000,
            lease_drift_ppm: None,
        }
    }
}

/// A limit that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A field that must be positive is zero.
    #[error("{field} must be above zero")]
    Zero {
        /// Name of the field.
        field: &'static str,
    },
    /// Heartbeats that come too late to prevent elections.
    #[error(
        "the election timeout ({election_micros} µs) must be at least 3 heartbeat intervals ({heartbeat_micros} µs)"
    )]
    ElectionTooShort {
        /// `election_timeout_micros`.
        election_micros: u64,
        /// `heartbeat_interval_micros`.
        heartbeat_micros: u64,
    },
    /// A bound on drift that allows no lease.
    #[error("a clock that may be off by {0} millionths bounds no lease; at most {DRIFT_PPM_MAX} work")]
    Drift(u32),
}

/// No promise is relied on for longer.
const PROMISE_MICROS_MAX: u64 = 1 << 40;

/// The largest bound on drift: half a second in a second.
const DRIFT_PPM_MAX: u32 = 500_000;

impl Config {
    /// What this node promises a leader that it hears: for so long it votes for nobody and does not
    /// stand for election. 0: nothing.
    #[must_use]
    pub const fn promise_micros(&self) -> u64 {
        if self.lease_drift_ppm.is_some() { self.election_timeout_micros } else { 0 }
    }

    /// How long a leader may rely on a promise, by its own clock: if its clock is too slow and that
    /// of the member too fast, each by the bound, both end together.
    pub(super) const fn reliable_micros(&self, promised_micros: u64) -> u64 {
        let Some(drift) = self.lease_drift_ppm else { return 0 };
        // Almost 13 days: what is promised beyond that is not relied on.
        let promised =
            if promised_micros < PROMISE_MICROS_MAX { promised_micros } else { PROMISE_MICROS_MAX };
        promised * (1_000_000 - drift as u64) / (1_000_000 + drift as u64)
    }

    /// Checks that the limits can work together.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("heartbeat_interval_micros", self.heartbeat_interval_micros),
            ("election_timeout_micros", self.election_timeout_micros),
            ("inflight_messages_max", self.inflight_messages_max as u64),
            ("inflight_bytes_max", self.inflight_bytes_max),
            ("append_bytes_max", self.append_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("pending_reads_max", self.pending_reads_max as u64),
            ("snapshot_chunk_bytes", self.snapshot_chunk_bytes),
            ("snapshot_inflight_bytes_max", self.snapshot_inflight_bytes_max),
            ("apply_entries_max", self.apply_entries_max as u64),
            ("apply_bytes_max", self.apply_bytes_max),
            ("snapshot_backoff_min_micros", self.snapshot_backoff_min_micros),
            ("snapshot_backoff_max_micros", self.snapshot_backoff_max_micros),
            ("disk_stall_micros", self.disk_stall_micros),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
        }
        if self.election_timeout_micros < 3 * self.heartbeat_interval_micros {
            return Err(ConfigError::ElectionTooShort {
                election_micros: self.election_timeout_micros,
                heartbeat_micros: self.heartbeat_interval_micros,
            });
        }
        if let Some(drift) = self.lease_drift_ppm.filter(|drift| *drift > DRIFT_PPM_MAX) {
            return Err(ConfigError::Drift(drift));
        }
        Ok(())
    }
}
