//! What a node counts about itself, and how it is written for Prometheus (OpenMetrics text).
//!
//! Recording is relaxed atomics only: no lock, no allocation, no floating point, so that it may
//! stand on the request path. The histograms are this module's own for that reason: those of
//! `prometheus-client` take a lock and search their buckets. What is a mere state (term, indices,
//! queue depths) is not recorded at all but read from [`NodeStatus`] at each scrape.

use crate::raft::RoleName;
use crate::runtime::alarms::Alarms;
use crate::runtime::certificates::Certificates;
use crate::runtime::repair::RepairProgress;
use crate::runtime::scrub::ScrubProgress;
use crate::runtime::status::NodeStatus;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Upper bound of the first bucket, microseconds; each next bound is twice as high.
const FIRST_BUCKET_MICROS: u64 = 10;
/// Bounds from 10 µs to 10.5 s, and one bucket for everything above.
const BUCKETS: usize = 22;

/// What a node counts. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instruments: Instruments,
    registry: Registry,
}

/// The instruments, by name. Counters and gauges are atomics.
#[derive(Clone, Debug, Default)]
pub struct Instruments {
    /// Time of one write to the log and its sync.
    pub fsync: Histogram,
    /// Writes of the core handed to the log. Divided by the number of syncs: how many share one.
    pub fsync_records: Counter,
    /// Time to apply one batch of committed entries.
    pub apply: Histogram,
    /// From taking a client's write to its answer.
    pub proposal: Histogram,
    /// HTTP requests: their number by route and code, their time by route.
    pub requests: Requests,
    /// HTTP connections open now.
    pub connections: Gauge,
    /// HTTP connections turned away because too many were open.
    pub connections_refused: Counter,
    /// How often idle HTTP connections were ended to make room for new ones.
    pub connections_evicted: Counter,
    /// HTTP requests that had to wait for their turn.
    pub requests_delayed: Counter,
    /// HTTP requests that were refused: too many of one caller.
    pub requests_refused: Counter,
    /// Clients that watch over HTTP.
    pub http_watchers: Gauge,
    /// Bytes of HTTP requests and answers held, as of the last scrape.
    pub http_memory: Gauge,
    /// HTTP requests for which there was no memory, as of the last scrape.
    pub http_memory_refused: Counter,
    /// Elections this node stood in.
    pub elections: Counter,
    /// Messages to peers that were dropped: queue full, or no connection.
    pub messages_dropped: Counter,
    /// Messages from peers that no correct peer sends.
    pub messages_refused: Counter,
    /// Calls of leases of other members' clients that were refused: this leader had too much to do.
    pub lease_calls_refused: Counter,
    /// Bytes sent to peers.
    pub sent_bytes: Counter,
    /// Bytes received from peers.
    pub received_bytes: Counter,
    /// Snapshots written here.
    pub snapshots_taken: Counter,
    /// Snapshots received from a leader.
    pub snapshots_installed: Counter,
    /// Snapshots that could not be written, read, stored when a leader sent them, or that a member
    /// did not take.
    pub snapshots_failed: Counter,
    /// Snapshots that a member installed, and had not caught up since the one before.
    pub snapshots_repeated: Counter,
    /// Attempts to prepare the next log segment that failed, other than for want of room.
    pub segments_failed: Counter,
    /// How far a repair of the data directory is.
    pub repair: RepairProgress,
    /// Repairs of the data directory that ended well, as of the last scrape.
    pub repairs: Counter,
    /// Bytes that other members gave for the last one, as of the last scrape.
    pub repair_bytes: Gauge,
    /// How far scrubbing is.
    pub scrub: ScrubProgress,
    /// Bytes that were read again, as of the last scrape.
    pub scrub_bytes: Counter,
    /// Passes over all that is at rest, as of the last scrape.
    pub scrub_passes: Counter,
    /// Files at rest that are damaged, as of the last scrape.
    pub scrub_damaged: Gauge,
    /// The alarms that nobody has acknowledged.
    pub alarm_board: Alarms,
    /// How many there are, as of the last scrape.
    pub alarms: Gauge,
    /// 1 while the disk has no room for another segment of the log.
    pub disk_full: Gauge,
    /// The ports that speak TLS.
    pub certificates: Certificates,
    tls: TlsFamilies,
    /// 1 while writes to the log take far longer than they should.
    pub disk_slow: Gauge,
    /// Messages waiting to be sent, by peer; see [`Metrics::peer_queue`].
    peer_queues: Family<[(&'static str, String); 1], Gauge>,
    state: State,
}

/// What is known of the ports that speak TLS, by port. Set from [`Certificates`] at each scrape.
#[derive(Clone, Debug, Default)]
struct TlsFamilies {
    expires: Family<[(&'static str, &'static str); 1], Gauge>,
    trouble: Family<[(&'static str, &'static str); 1], Gauge>,
    reloads: Family<[(&'static str, &'static str); 1], Counter>,
    handshakes: Family<[(&'static str, &'static str); 1], Counter>,
    handshakes_failed: Family<[(&'static str, &'static str); 1], Counter>,
}

impl TlsFamilies {
    fn set(&self, certificates: &Certificates) {
        for (port, tls) in certificates.ports() {
            let (status, port) = (tls.status(), [("port", port)]);
            self.expires.get_or_create(&port).set(status.expires_in_seconds);
            self.trouble.get_or_create(&port).set(i64::from(status.trouble.is_some()));
            let count = |family: &Family<[(&'static str, &'static str); 1], Counter>, count: u64| {
                family.get_or_create(&port).inner().store(count, Ordering::Relaxed);
            };
            count(&self.reloads, status.reloads);
            count(&self.handshakes, status.handshakes);
            count(&self.handshakes_failed, status.handshakes_failed);
        }
    }

    fn register(&self, to: &mut Registry) {
        to.register_with_unit(
            "certificate_expires",
            "Time until a port's certificate ends; negative afterwards",
            Unit::Seconds,
            self.expires.clone(),
        );
        let help = "1 while what is in a port's certificate files is not in use, since it is no good";
        to.register("certificate_trouble", help, self.trouble.clone());
        to.register("certificate_reloads", "New certificates taken into use, by port", self.reloads.clone());
        to.register("tls_handshakes", "TLS handshakes that went well, by port", self.handshakes.clone());
        to.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed, by port",
            self.handshakes_failed.clone(),
        );
    }
}

/// Gauges that are set from [`NodeStatus`] at each scrape.
#[derive(Clone, Debug, Default)]
struct State {
    term: Gauge,
    is_leader: Gauge,
    leader: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    last_log_index: Gauge,
    snapshot_index: Gauge,
    members: Gauge,
    keys: Gauge,
    store_bytes: Gauge,
    revision: Gauge,
    compacted: Gauge,
    history_bytes: Gauge,
    answers_bytes: Gauge,
    oldest_answer: Gauge,
    leases: Gauge,
    pending_watches: Gauge,
    pending_proposals: Gauge,
    pending_reads: Gauge,
    storage_queue: Gauge,
    event_queue: Gauge,
    stopped: Gauge,
    withdrawn: Gauge,
    members_withdrawn: Gauge,
    feature_level: Gauge,
    lowest_spoken_level: Gauge,
}

impl Metrics {
    /// Fresh instruments, all at zero.
    #[must_use]
    pub fn new() -> Self {
        let instruments = Instruments::default();
        let mut registry = Registry::with_prefix("infinitystore");
        register_events(&mut registry, &instruments);
        instruments.tls.register(&mut registry);
        register_state(&mut registry, &instruments.state);
        Self(Arc::new(Inner { instruments, registry }))
    }

    /// The gauge of messages waiting for `peer`. Looked up under a lock: keep it, rather than
    /// asking for each message.
    #[must_use]
    pub fn peer_queue(&self, peer: &str) -> Gauge {
        self.peer_queues.get_or_create(&[("peer", peer.to_owned())]).clone()
    }

    /// Forgets the gauge of a peer that has left.
    pub fn remove_peer(&self, peer: &str) {
        self.peer_queues.remove(&[("peer", peer.to_owned())]);
    }

    /// Everything as OpenMetrics text, with the node's state as `status` has it.
    #[must_use]
    pub fn render(&self, status: &NodeStatus) -> String {
        self.state.set(status);
        self.tls.set(&self.certificates);
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.0.registry).expect("writing to a String does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Metrics {
    type Target = Instruments;

    fn deref(&self) -> &Instruments {
        &self.0.instruments
    }
}

impl State {
    fn set(&self, status: &NodeStatus) {
        let replica = &status.replica;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.term.set(number(replica.term.get()));
        self.is_leader.set(i64::from(replica.role == RoleName::Leader));
        self.leader.set(replica.leader.map_or(0, |id| number(id.get())));
        self.commit_index.set(number(replica.commit_index.get()));
        self.applied_index.set(number(replica.last_applied.get()));
        self.last_log_index.set(number(replica.last_log.index.get()));
        self.snapshot_index.set(number(replica.snapshot.index.get()));
        self.members.set(number(replica.members.len() as u64));
        self.keys.set(number(replica.keys as u64));
        self.store_bytes.set(number(replica.store_bytes));
        self.revision.set(number(replica.revision));
        self.compacted.set(number(replica.compacted));
        self.history_bytes.set(number(replica.history_bytes));
        self.answers_bytes.set(number(replica.answers_bytes));
        self.oldest_answer.set(number(replica.oldest_answer_micros.unwrap_or_default() / 1_000_000));
        self.leases.set(number(replica.leases as u64));
        self.pending_watches.set(number(replica.pending_watches as u64));
        self.pending_proposals.set(number(replica.pending_proposals as u64));
        self.pending_reads.set(number(replica.pending_reads as u64));
        self.storage_queue.set(number(status.storage_queue as u64));
        self.event_queue.set(number(status.event_queue as u64));
        self.feature_level.set(i64::from(replica.level.get()));
        let lowest = replica.members.iter().filter_map(|member| member.spoken_level).min();
        self.lowest_spoken_level.set(lowest.map_or(0, |level| level.get().into()));
        self.withdrawn.set(i64::from(replica.withdrawn.is_some()));
        let withdrawn = replica.members.iter().filter(|member| member.withdrawn.is_some());
        self.members_withdrawn.set(number(withdrawn.count() as u64));
        self.stopped.set(i64::from(status.stopped.is_some()));
    }
}

fn register_events(to: &mut Registry, from: &Instruments) {
    let seconds = || Unit::Seconds;
    to.register_with_unit(
        "fsync",
        "Time of one write to the log and its sync",
        seconds(),
        from.fsync.clone(),
    );
    to.register("fsync_records", "Writes of the core handed to the log", from.fsync_records.clone());
    to.register_with_unit(
        "apply",
        "Time to apply one batch of committed entries",
        seconds(),
        from.apply.clone(),
    );
    to.register_with_unit(
        "proposal",
        "From taking a client's write to its answer",
        seconds(),
        from.proposal.clone(),
    );
    to.register_with_unit(
        "http_request",
        "Time of HTTP requests",
        seconds(),
        RequestTimes(from.requests.clone()),
    );
    to.register("http_requests", "HTTP requests answered", RequestCounts(from.requests.clone()));
    to.register("http_connections", "HTTP connections open now", from.connections.clone());
    to.register(
        "http_connections_refused",
        "HTTP connections turned away: too many were open",
        from.connections_refused.clone(),
    );
    to.register(
        "http_connections_evicted",
        "Times that idle HTTP connections were ended: others wanted to connect",
        from.connections_evicted.clone(),
    );
    to.register(
        "http_requests_delayed",
        "HTTP requests that had to wait: their caller has many",
        from.requests_delayed.clone(),
    );
    to.register(
        "http_requests_refused",
        "HTTP requests refused: their caller makes too many",
        from.requests_refused.clone(),
    );
    to.register("http_watchers", "Clients that watch over HTTP", from.http_watchers.clone());
    to.register_with_unit(
        "http_memory",
        "Memory for HTTP requests and answers under way",
        Unit::Bytes,
        from.http_memory.clone(),
    );
    to.register(
        "http_memory_refused",
        "HTTP requests refused: there was no memory for them",
        from.http_memory_refused.clone(),
    );
    to.register("elections", "Elections this node stood in", from.elections.clone());
    to.register(
        "peer_messages_dropped",
        "Messages to peers that were dropped",
        from.messages_dropped.clone(),
    );
    to.register(
        "peer_messages_refused",
        "Messages from peers that no correct peer sends",
        from.messages_refused.clone(),
    );
    to.register(
        "lease_calls_refused",
        "Calls of leases that other members passed on, and that this leader had too much to do for",
        from.lease_calls_refused.clone(),
    );
    to.register("peer_sent_bytes", "Bytes sent to peers", from.sent_bytes.clone());
    to.register("peer_received_bytes", "Bytes received from peers", from.received_bytes.clone());
    to.register("peer_queue", "Messages waiting to be sent, by peer", from.peer_queues.clone());
    to.register("snapshots_taken", "Snapshots written here", from.snapshots_taken.clone());
    to.register("snapshots_installed", "Snapshots received from a leader", from.snapshots_installed.clone());
    to.register(
        "snapshots_failed",
        "Snapshots that could not be written, read, stored, or that a member did not take",
        from.snapshots_failed.clone(),
    );
    to.register(
        "snapshots_repeated",
        "Snapshots that members needed before they could catch up after the one before",
        from.snapshots_repeated.clone(),
    );
    to.register(
        "segments_failed",
        "Attempts to prepare the next log segment that failed, other than for want of room",
        from.segments_failed.clone(),
    );
    to.register("repairs", "Repairs of the data directory since the process started", from.repairs.clone());
    to.register(
        "repair_bytes",
        "Bytes that other members gave for the last repair",
        from.repair_bytes.clone(),
    );
    to.register("scrub_bytes", "Bytes at rest that were read again", from.scrub_bytes.clone());
    to.register("scrub_passes", "Passes over all that is at rest", from.scrub_passes.clone());
    to.register("scrub_damaged", "Files at rest that are damaged now", from.scrub_damaged.clone());
    to.register("alarms", "Alarms that nobody has acknowledged", from.alarms.clone());
    to.register(
        "disk_slow",
        "1 while writes to the log take far longer than they should",
        from.disk_slow.clone(),
    );
    to.register("disk_full", "1 while the disk has no room for another log segment", from.disk_full.clone());
}

fn register_state(to: &mut Registry, from: &State) {
    for (name, help, gauge) in [
        ("term", "Current term", &from.term),
        ("is_leader", "1 if this node leads", &from.is_leader),
        ("leader_id", "Member id of the leader; 0 if none is known", &from.leader),
        ("commit_index", "Index of the last entry known to be committed", &from.commit_index),
        ("applied_index", "Index of the last entry applied", &from.applied_index),
        ("last_log_index", "Index of the last entry in the log", &from.last_log_index),
        ("snapshot_index", "Index of the last entry in the newest snapshot", &from.snapshot_index),
        ("members", "Members of the cluster, learners included", &from.members),
        ("keys", "Keys in the store", &from.keys),
        ("store_bytes", "Bytes of keys and values in the store", &from.store_bytes),
        ("revision", "Revision of the store", &from.revision),
        ("compacted_revision", "The oldest revision that can be read at", &from.compacted),
        ("history_bytes", "Bytes that past versions take", &from.history_bytes),
        ("answers_bytes", "Bytes that remembered answers of idempotency keys take", &from.answers_bytes),
        (
            "oldest_answer_seconds",
            "Age of the oldest answer that is remembered: for so long a repetition under an idempotency key finds it",
            &from.oldest_answer,
        ),
        ("leases", "Leases in the store", &from.leases),
        ("pending_watches", "Clients that wait for a change", &from.pending_watches),
        ("pending_proposals", "Writes waiting to be committed", &from.pending_proposals),
        ("pending_reads", "Reads waiting for a quorum", &from.pending_reads),
        ("storage_queue", "Writes waiting for the disk", &from.storage_queue),
        ("event_queue", "Events waiting for the replica", &from.event_queue),
        ("withdrawn", "1 if this member takes no part any more; see /v1/status", &from.withdrawn),
        (
            "members_withdrawn",
            "Members that take no part any more, as far as this node knows; see /v1/status",
            &from.members_withdrawn,
        ),
        (
            "feature_level",
            "Feature level of the cluster, as far as this node has applied its log",
            &from.feature_level,
        ),
        (
            "lowest_spoken_level",
            "Lowest feature level at which this node talks to another member; 0 if to none",
            &from.lowest_spoken_level,
        ),
        ("stopped", "1 if the node does not serve any more; see /v1/status", &from.stopped),
    ] {
        to.register(name, help, gauge.clone());
    }
}

/// A distribution of times. Cheap to clone; clones count together.
#[derive(Clone, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Counts one that took `micros` microseconds.
    pub fn observe(&self, micros: u64) {
        self.0.counts[bucket_of(micros)].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn write(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let buckets: [(f64, u64); BUCKETS] =
            std::array::from_fn(|i| (bound_seconds(i), self.0.counts[i].load(Ordering::Relaxed)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({})", self.count())
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.write(&mut encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// The first bucket whose bound is not below `micros`: bounds are `10 << i`.
fn bucket_of(micros: u64) -> usize {
    let above_first = micros.saturating_sub(1) / FIRST_BUCKET_MICROS;
    above_first.checked_ilog2().map_or(0, |log| log as usize + 1).min(BUCKETS - 1)
}

fn bound_seconds(bucket: usize) -> f64 {
    if bucket == BUCKETS - 1 { f64::MAX } else { (FIRST_BUCKET_MICROS << bucket) as f64 / 1e6 }
}

/// Codes that the API answers with, and that have a counter of their own.
const CODES: [u16; 18] =
    [200, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 422, 429, 500, 503, 504, 507];

/// Requests by route and code, and their time by route. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<OnceLock<Arc<[RouteRequests]>>>);

/// The requests of one route.
#[derive(Debug)]
pub struct RouteRequests {
    /// The route's name.
    route: &'static str,
    /// By code; the last one counts all that have none of their own.
    counts: [AtomicU64; CODES.len() + 1],
    times: Histogram,
}

impl Requests {
    /// Counters for the routes with these names, in this order. All servers that count together
    /// have the same routes.
    ///
    /// # Panics
    /// If there are counters for other routes.
    pub fn of_routes(&self, names: impl Iterator<Item = &'static str>) -> Arc<[RouteRequests]> {
        let made: Arc<[RouteRequests]> = names.map(RouteRequests::new).collect();
        let routes = self.0.get_or_init(|| made.clone());
        let names = |routes: &[RouteRequests]| routes.iter().map(|route| route.route).collect::<Vec<_>>();
        assert_eq!(names(routes), names(&made), "the servers of one process have the same routes");
        routes.clone()
    }

    fn routes(&self) -> &[RouteRequests] {
        self.0.get().map_or(&[], |routes| &**routes)
    }
}

impl RouteRequests {
    /// The route's name.
    pub fn name(&self) -> &'static str {
        self.route
    }

    fn new(route: &'static str) -> Self {
        Self { route, counts: Default::default(), times: Histogram::default() }
    }

    /// Counts a request that was answered with `code` after `micros` microseconds.
    pub fn observe(&self, code: u16, micros: u64) {
        let slot = CODES.iter().position(|named| *named == code).unwrap_or(CODES.len());
        self.counts[slot].fetch_add(1, Ordering::Relaxed);
        self.times.observe(micros);
    }
}

#[derive(Debug)]
struct RequestCounts(Requests);
#[derive(Debug)]
struct RequestTimes(Requests);

impl EncodeMetric for RequestCounts {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for route in self.0.routes() {
            let names = CODES.iter().map(ToString::to_string).chain(["other".to_owned()]);
            for (code, count) in names.zip(&route.counts) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [("route", route.route), ("code", &code)];
                    encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl EncodeMetric for RequestTimes {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for route in self.0.routes() {
            if route.times.count() > 0 {
                route.times.write(&mut encoder.encode_family(&[("route", route.route)])?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests;
