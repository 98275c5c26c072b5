//! Snapshots on their way to peers: how far each has come, and what all of them share.

use crate::raft::config::Config;
use crate::raft::log::snapshot::SnapshotMeta;
use crate::raft::types::{NodeId, Time};

/// A leader that sends less than it may does not save up more than it may send in this time.
const BURST_MICROS: u64 = 100_000;

/// A snapshot on its way to a peer: chunk after chunk, several of them in flight.
///
/// Invariant: `acked <= next <= snapshot.bytes`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct SnapshotTransfer {
    /// What is sent.
    pub snapshot: SnapshotMeta,
    /// The peer has the bytes below, as it said itself. It has none any more after a restart.
    pub acked: u64,
    /// Where the next chunk starts. The bytes from `acked` to here are in flight.
    pub next: u64,
    /// Bytes that the storage reads from there. It reads one chunk at a time.
    pub reading: Option<u64>,
    /// Whether the last chunk is in flight.
    pub is_last_sent: bool,
    /// Bytes that may be in flight, if all transfers together leave room for them. One chunk at the
    /// beginning, when it is not known what the peer has, and after a loss; twice as many with each
    /// answer that is news.
    pub window: u64,
    /// The offset to which the leader went back last; `None` once the peer has more. The peer also
    /// answers what came behind the lost chunk. Those answers do not make the leader go back again.
    pub gone_back_to: Option<u64>,
    /// When it last moved on. After a silence what is in flight counts as lost.
    pub waits_since: Time,
}

impl SnapshotTransfer {
    /// One that begins.
    pub(in crate::raft) const fn new(snapshot: SnapshotMeta, chunk_bytes: u64, now: Time) -> Self {
        Self {
            snapshot,
            acked: 0,
            next: 0,
            reading: None,
            is_last_sent: false,
            window: chunk_bytes,
            gone_back_to: None,
            waits_since: now,
        }
    }

    /// Whether the peer has a part of it, or will when what is in flight arrives.
    pub(in crate::raft) const fn has_begun(&self) -> bool {
        self.acked > 0 || self.is_under_way()
    }

    /// Whether a chunk is read, or in flight.
    pub(in crate::raft) const fn is_under_way(&self) -> bool {
        self.next > self.acked || self.reading.is_some() || self.is_last_sent
    }

    /// Bytes that are read, or in flight.
    pub(in crate::raft) fn bytes_in_flight(&self) -> u64 {
        self.next - self.acked + self.reading.unwrap_or(0)
    }

    /// Bytes of the chunk to read next, if it is time for one.
    fn wanted(&self, chunk_bytes: u64) -> Option<u64> {
        let bytes = chunk_bytes.min(self.snapshot.bytes.saturating_sub(self.next));
        let in_flight = self.next - self.acked;
        let has_room = in_flight == 0 || in_flight + bytes <= self.window;
        (has_room && self.reading.is_none() && !self.is_last_sent).then_some(bytes)
    }

    /// A chunk of so many bytes has left.
    pub(in crate::raft) const fn sent(&mut self, bytes: u64, is_last: bool, now: Time) {
        self.next += bytes;
        self.reading = None;
        self.is_last_sent = is_last;
        self.waits_since = now;
    }

    /// The peer has the bytes below `offset`, which is news. It may have more than was sent to it:
    /// what an earlier leader sent is as good.
    pub(in crate::raft) fn advance(&mut self, offset: u64, window_max: u64, now: Time) {
        self.acked = offset;
        if self.next < offset {
            (self.next, self.reading) = (offset, None);
        }
        self.window = self.window.saturating_mul(2).min(window_max.max(self.window));
        self.gone_back_to = None;
        self.waits_since = now;
    }

    /// What is in flight is lost, or was not taken: all that comes after `offset` is sent again.
    pub(in crate::raft) const fn go_back(&mut self, offset: u64, chunk_bytes: u64) {
        (self.acked, self.next) = (offset, offset);
        self.reading = None;
        self.is_last_sent = false;
        self.window = chunk_bytes;
        self.gone_back_to = Some(offset);
    }
}

/// How fast all snapshots together may be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Pace {
    /// When all chunks that were asked for may have left. The next one is asked for after that.
    free_at: Time,
    /// Whether a chunk waits for that.
    is_held: bool,
    /// The peer that the last chunk was for. Those behind it are next.
    pub served: NodeId,
}

impl Pace {
    /// When a chunk that waits may be asked for.
    pub(in crate::raft) fn wake_at(&self) -> Option<Time> {
        self.is_held.then_some(self.free_at)
    }
}

/// What all transfers may have in flight, and may send in a second. It is counted anew for each
/// output, so that nothing is taken for ever by a transfer that ends, however it ends.
#[derive(Debug)]
pub(in crate::raft) struct Budget {
    chunk_bytes: u64,
    bytes_max: u64,
    bytes_per_second_max: u64,
    /// Of all transfers.
    in_flight: u64,
    /// What each transfer may have in flight when there are several: else the first would take all.
    share: u64,
    /// How fast chunks may follow each other.
    pub pace: Pace,
}

impl Budget {
    /// What is left when these transfers are under way. With each it is told whether its peer takes
    /// chunks just now.
    pub(in crate::raft) fn of<'a>(
        config: &Config,
        transfers: impl Iterator<Item = (&'a SnapshotTransfer, bool)>,
        pace: Pace,
    ) -> Self {
        let (mut in_flight, mut count) = (0, 0);
        for (transfer, takes) in transfers {
            in_flight += transfer.bytes_in_flight();
            count += u64::from(takes);
        }
        Self {
            chunk_bytes: config.snapshot_chunk_bytes,
            bytes_max: config.snapshot_inflight_bytes_max,
            bytes_per_second_max: config.snapshot_bytes_per_second_max,
            in_flight,
            share: config.snapshot_inflight_bytes_max / count.max(1),
            pace: Pace { is_held: false, ..pace },
        }
    }

    /// A transfer goes back, or ends: what it had in flight does not count any more.
    pub(in crate::raft) const fn give_back(&mut self, bytes: u64) {
        self.in_flight -= bytes;
    }

    /// Takes room for the next chunk of a transfer, if it is time for one. Returns its bytes. A
    /// transfer with nothing in flight always gets room for one chunk.
    pub(in crate::raft) fn take(&mut self, transfer: &SnapshotTransfer, now: Time) -> Option<u64> {
        let bytes = transfer.wanted(self.chunk_bytes)?;
        let own = transfer.bytes_in_flight();
        let has_room = own + bytes <= self.share && self.in_flight + bytes <= self.bytes_max;
        if own > 0 && !has_room {
            return None;
        }
        if self.bytes_per_second_max > 0 {
            if now < self.pace.free_at {
                self.pace.is_held = true;
                return None;
            }
            let saved = Time::new(now.get().saturating_sub(BURST_MICROS));
            let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second_max);
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            self.pace.free_at = self.pace.free_at.max(saved).plus(micros);
        }
        self.in_flight += bytes;
        Some(bytes)
    }
}
