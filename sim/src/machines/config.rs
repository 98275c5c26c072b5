//! What replicas are started with.

use crate::schedule::{PROMOTE_LAG_ENTRIES, STALL_MICROS, Settings};
use infinitystore::raft::Config;
use infinitystore::replica::ReplicaConfig;

/// The limits of a schedule.
#[must_use]
pub fn replica_config(settings: &Settings) -> ReplicaConfig {
    let default = Config::default();
    let or_default = |few: u64, default: u64| if few > 0 { few } else { default };
    ReplicaConfig {
        raft: Config {
            heartbeat_interval_micros: settings.heartbeat_interval_micros,
            election_timeout_micros: settings.election_timeout_micros,
            inflight_messages_max: settings.inflight_messages_max,
            append_bytes_max: settings.append_bytes_max,
            snapshot_chunk_bytes: settings.snapshot_chunk_bytes,
            snapshot_inflight_bytes_max: or_default(
                settings.snapshot_inflight_bytes_max,
                default.snapshot_inflight_bytes_max,
            ),
            snapshot_bytes_per_second_max: or_default(
                settings.snapshot_bytes_per_second_max,
                default.snapshot_bytes_per_second_max,
            ),
            log_tail_entries: settings.log_tail_entries,
            promote_lag_entries: PROMOTE_LAG_ENTRIES,
            uncommitted_bytes_max: or_default(settings.uncommitted_bytes_max, default.uncommitted_bytes_max),
            disk_stall_micros: STALL_MICROS,
            lease_drift_ppm: settings.lease_reads.then_some(settings.drift_ppm),
            ..default
        },
        snapshot_log_entries: settings.snapshot_log_entries,
        level_settle_micros: or_default(
            settings.level_settle_micros,
            ReplicaConfig::default().level_settle_micros,
        ),
        ..ReplicaConfig::default()
    }
}
