//! The limits with which the nodes of a run are started, drawn from the seed.

use crate::schedule::{Stream, stream};
use infinitystore::api::HttpOptions;
use infinitystore::kv::Settings;
use infinitystore::node::NodeOptions;
use infinitystore::peer::TransportOptions;
use infinitystore::replica::ReplicaConfig;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

/// Its stream of the seed.
const STREAM: u64 = 3_000;

/// Limits of the nodes of a run. `None`: the product's own.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    peer_queue: Option<usize>,
    peer_queue_bytes: Option<usize>,
    client_queue: Option<usize>,
    receive_queue: Option<usize>,
    write_bytes: Option<usize>,
    pending_requests: Option<usize>,
    inflight_bytes: Option<u64>,
    /// Of clients.
    pub connections: Option<usize>,
    /// Whether the HTTP server has little patience with clients.
    pub impatient: bool,
    /// The snapshots' worker takes so much longer than the log's, in hundredths.
    pub snapshot_worker_percent: u64,
    /// Whether the nodes speak TLS with each other.
    pub secured: bool,
}

/// The time of the snapshots' worker in a run of `seed`, in hundredths of the time of the log's
/// worker. In the calm at most 100.
#[must_use]
pub fn snapshot_worker_percent(seed: u64) -> u64 {
    Limits::of(seed).snapshot_worker_percent
}

impl Limits {
    /// Those of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = stream(seed, Stream::Schedule, STREAM);
        let rng = &mut rng;
        let small = |rng: &mut SmallRng, few: &[usize]| rng.random_bool(0.2).then(|| pick(rng, few));
        Self {
            peer_queue: small(rng, &[4, 16]),
            client_queue: small(rng, &[1, 3]),
            receive_queue: small(rng, &[1, 4]),
            write_bytes: small(rng, &[1, 300]),
            pending_requests: small(rng, &[2, 4]),
            inflight_bytes: rng.random_bool(0.2).then(|| pick(rng, &[1, 3_000])),
            connections: small(rng, &[12, 16]),
            snapshot_worker_percent: pick(rng, &[100, 100, 1, 3_000]),
            peer_queue_bytes: small(rng, &[5_000, 30_000]),
            impatient: seed % 5 == 2,
            secured: seed % 11 == 5,
        }
    }

    /// Sets what a node is started with.
    pub(super) fn apply(&self, options: &mut NodeOptions) {
        let transport = &mut options.transport;
        transport.peer_queue_max = self.peer_queue.unwrap_or(transport.peer_queue_max);
        transport.peer_queue_bytes_max = self.peer_queue_bytes.unwrap_or(transport.peer_queue_bytes_max);
        transport.receive_queue_max = self.receive_queue.unwrap_or(transport.receive_queue_max);
        transport.write_bytes_max = self.write_bytes.unwrap_or(transport.write_bytes_max);
        options.client_queue_max = self.client_queue.unwrap_or(options.client_queue_max);
        let replica = &mut options.replica;
        replica.pending_requests_max = self.pending_requests.unwrap_or(replica.pending_requests_max);
        replica.raft.inflight_bytes_max = self.inflight_bytes.unwrap_or(replica.raft.inflight_bytes_max);
    }

    /// What a node's HTTP server is started with.
    pub(super) fn http(&self) -> HttpOptions {
        // A history that is cut short all the time is what a run is for.
        let settings_min = Settings { history_bytes: 0, quota_bytes: 0, answers_bytes: 0 };
        // Little memory, so that an exam can fill it.
        let default = HttpOptions { settings_min, memory_bytes_max: 64 << 20, ..HttpOptions::default() };
        let connections_max = self.connections.unwrap_or(default.connections_max);
        if !self.impatient {
            return HttpOptions { connections_max, ..default };
        }
        HttpOptions {
            connections_max,
            refusals_max: 2,
            header_timeout_seconds: 2,
            body_timeout_seconds: 3,
            write_timeout_seconds: 4,
            idle_timeout_seconds: 8,
            ..default
        }
    }

    /// Requests that may wait in a replica.
    pub(super) fn pending_requests(&self) -> usize {
        self.pending_requests.unwrap_or(ReplicaConfig::default().pending_requests_max)
    }

    /// Whether no peer's queue is longer than it may be.
    pub(super) fn hold(&self, peer_queues: &BTreeMap<String, f64>) -> Result<(), String> {
        let most = self.peer_queue.unwrap_or(TransportOptions::default().peer_queue_max);
        let above = peer_queues.iter().find(|(_, length)| **length > most as f64);
        above.map_or(Ok(()), |(name, length)| Err(format!("{name} is {length}, and {most} is the limit")))
    }

    /// Whether a write may be left out on its way to the leader: behind a message that waits there
    /// may be no room for it in the peer's queue.
    pub(super) const fn may_leave_out_writes(&self) -> bool {
        self.peer_queue.is_some() || self.peer_queue_bytes.is_some()
    }

    /// Whether a client may be told that too much waits.
    pub(super) const fn are_few(&self) -> bool {
        self.client_queue.is_some() || self.pending_requests.is_some()
    }
}

fn pick<T: Clone>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}
