//! How long things may take in a run.

use crate::schedule::{MILLI, SECOND, Settings};

/// A read that was refused for want of a leader is asked again after this time.
const READ_RETRY_MICROS: u64 = 50 * MILLI;
/// Elections that come to nothing, in a row, before a majority that hears itself has a leader.
const ELECTIONS_LOST: u64 = 5;
/// And in runs in which messages are lost.
const ELECTIONS_LOST_LOSSY: u64 = 9;
/// Messages in a row that may be lost by chance in any run.
const LOSSES: u64 = 12;
/// What is improbable enough to be called impossible, for one heartbeat.
const IMPOSSIBLE: f64 = 1e-11;

/// How long things may take in a run, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// A message takes at most this long if it is not late.
    pub hop: u64,
    /// Until a client of a member that has caught up is answered, while a leader serves.
    pub answer: u64,
    /// Until a member that lacks entries has some more of them.
    pub stall: u64,
    /// Until a majority that hears itself has elected a leader.
    pub elect: u64,
    /// How long after a disturbance a leader may still be doubted: what began then may still lead
    /// to an election.
    pub doubt: u64,
    /// Until a transfer has succeeded, or been given up.
    pub transfer: u64,
    /// Whether messages are lost, damaged, late or out of order by themselves.
    pub lossy: bool,
    /// Whether nothing is lost, and a transfer takes a small part of an election timeout.
    pub is_brisk: bool,
    /// The share of messages that are lost, damaged or late.
    pub(super) loss: f64,
    /// A batch of the log takes at most this long, with the one before it.
    pub(super) sync: u64,
    /// Whether messages overtake each other.
    pub(super) overtakes: bool,
    /// Heartbeats in an election timeout.
    pub(super) beats: u32,
}

impl Bounds {
    /// Those of a run.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let hop =
            settings.delay_max_micros * u64::from(settings.link_spread.max(1)) + settings.settle_max_micros;
        // A write waits for the one under way.
        let sync = 2 * settings.sync_max_micros + settings.settle_max_micros;
        let (beat, timeout) = (settings.heartbeat_interval_micros, settings.election_timeout_micros);
        let lost = settings.loss_ppm + settings.corrupt_ppm + settings.straggler_ppm;
        let lossy = lost > 0 || settings.delay_max_micros >= 5 * settings.delay_min_micros;
        let again = if lossy { LOSSES * (beat + 2 * hop + sync) } else { 0 };
        let answer = 2 * (6 * hop + 4 * sync) + 3 * beat + READ_RETRY_MICROS + again;
        let entry_bytes = settings.value_bytes as u64 + 100;
        let per_append = if lossy { 1 } else { (settings.append_bytes_max / entry_bytes).clamp(1, 64) };
        let pace = (2 * hop + 2 * sync).div_ceil(per_append);
        let snapshot_bytes = u64::from(settings.keys) * entry_bytes + 1_000;
        let chunks = snapshot_bytes.div_ceil(settings.snapshot_chunk_bytes.max(1)) + 4;
        let again = if lossy { beat } else { 0 };
        let snapshot = chunks * (2 * hop + 2 * sync + again) + Self::paced(settings, 2 * snapshot_bytes);
        let drifted = |micros: u64| micros + micros / 1_000_000 * u64::from(settings.drift_ppm) + micros / 16;
        let lost_elections = if lossy { ELECTIONS_LOST_LOSSY } else { ELECTIONS_LOST };
        let late = if settings.straggler_ppm > 0 || settings.duplicate_ppm > 0 {
            settings.straggler_max_micros.max(10 * settings.delay_max_micros)
        } else {
            0
        };
        Self {
            hop,
            answer,
            stall: 2 * answer + 2 * timeout + snapshot + 64 * pace,
            // Messages of a leader that has given up are signs of life for those that get them
            // late.
            elect: lost_elections * (drifted(2 * timeout) + 4 * hop + 2 * sync) + late,
            doubt: drifted(5 * timeout / 2) + late + 4 * hop + 2 * sync + beat,
            transfer: drifted(2 * timeout) + 4 * hop + 4 * sync,
            lossy,
            is_brisk: !lossy && settings.duplicate_ppm == 0 && timeout > 20 * hop + 10 * sync,
            loss: f64::from(lost.min(1_000_000)) / 1e6,
            sync: sync + settings.settle_max_micros,
            overtakes: settings.delay_max_micros >= 5 * settings.delay_min_micros,
            beats: u32::try_from(timeout / beat).unwrap_or(u32::MAX),
        }
    }

    /// How long it takes to send so many bytes of snapshots at the highest rate.
    fn paced(settings: &Settings, bytes: u64) -> u64 {
        let rate = settings.snapshot_bytes_per_second_max;
        (bytes * SECOND).checked_div(rate).unwrap_or(0)
    }

    /// How long a snapshot of so many bytes takes from one member to another, one chunk after the
    /// other, as it is where only one may be in flight: by the mean of the delays, since there are
    /// many. Where packets are lost, some come again.
    #[must_use]
    pub fn of_snapshot(settings: &Settings, bytes: u64) -> u64 {
        let chunks = bytes.div_ceil(settings.snapshot_chunk_bytes.max(1));
        let both_ways =
            (settings.delay_min_micros + settings.delay_max_micros) * u64::from(settings.link_spread.max(1));
        let is_lossy = settings.loss_ppm + settings.corrupt_ppm + settings.straggler_ppm > 0;
        let again = if is_lossy { settings.heartbeat_interval_micros } else { 0 };
        let one_by_one =
            chunks * (both_ways + 2 * settings.sync_max_micros + settings.settle_max_micros + again);
        one_by_one + Self::paced(settings, 2 * bytes)
    }

    /// Whether nothing is lost or late, and several questions and answers fit into this time.
    #[must_use]
    pub fn is_told_within(&self, micros: u64) -> bool {
        self.loss == 0.0 && micros > 8 * self.hop + 4 * self.sync
    }

    /// Whether it may happen by bad luck alone that `members` members hear nothing, or are not
    /// heard, for an election timeout.
    pub(super) fn may_be_silent(&self, members: usize, both_ways: bool) -> bool {
        let lost = if both_ways { 1.0 - (1.0 - self.loss).powi(2) } else { self.loss };
        let beats = self.beats.saturating_sub(1) as usize * members;
        lost.powi(i32::try_from(beats).unwrap_or(i32::MAX)) > IMPOSSIBLE
    }
}
