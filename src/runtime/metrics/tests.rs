//! Buckets, counting, and the text that a scraper reads.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::raft::{ClusterId, LogId, LogIndex, NodeId, RoleName, StoreId, Term};
use crate::replica::Status;
use crate::runtime::metrics::{BUCKETS, Metrics, bound_seconds, bucket_of};
use crate::runtime::status::NodeStatus;

fn status() -> NodeStatus {
    NodeStatus {
        cluster: ClusterId(1),
        name: "node1".to_owned(),
        store: StoreId(2),
        replica: Status {
            id: NodeId::new(1),
            role: RoleName::Leader,
            term: Term::new(7),
            leader: Some(NodeId::new(1)),
            last_log: LogId::new(Term::new(7), LogIndex::new(40)),
            commit_index: LogIndex::new(39),
            starting: false,
            last_applied: LogIndex::new(38),
            configuration: LogIndex::new(7),
            configuration_committed: true,
            snapshot_failure: None,
            snapshot: LogId::ZERO,
            disk_slow: false,
            disk_write_micros: 0,
            keys: 3,
            store_bytes: 99,
            revision: 5,
            compacted: 4,
            history_bytes: 77,
            answers_bytes: 8,
            oldest_answer_micros: Some(12_500_000),
            leases: 6,
            state_hash: 0,
            pending_proposals: 1,
            pending_reads: 2,
            pending_watches: 9,
            withdrawn: None,
            level: FeatureLevel::NEWEST,
            speaks: FeatureLevels::OF_THIS_RELEASE,
            joint: false,
            members: Vec::new(),
        },
        uptime_micros: 1,
        storage_queue: 4,
        event_queue: 6,
        removed: false,
        joining: false,
        has_data: true,
        stopped: None,
        held: Vec::new(),
    }
}

#[test]
fn a_time_falls_into_the_first_bucket_that_holds_it() {
    for micros in (0..100_000).chain([10_485_760, 10_485_761, 1 << 40, u64::MAX]) {
        let bucket = bucket_of(micros);
        let seconds = micros as f64 / 1e6;
        assert!(seconds <= bound_seconds(bucket), "{micros} µs is above bucket {bucket}");
        assert!(bucket == 0 || seconds > bound_seconds(bucket - 1), "{micros} µs fits below bucket {bucket}");
    }
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
}

#[test]
fn a_scrape_shows_what_was_recorded_and_the_state() {
    let metrics = Metrics::new();
    metrics.fsync.observe(85);
    metrics.clone().elections.inc();
    let routes = metrics.clone().requests.of_routes(["/set", "/get", "/join"].into_iter());
    routes[0].observe(200, 15);
    routes[0].observe(599, 15);
    // What shows that somebody guesses, or has lost a right.
    [401, 403, 429].into_iter().for_each(|code| routes[1].observe(code, 15));
    metrics.peer_queue("node2").set(9);
    let text = metrics.render(&status());
    for line in [
        "infinitystore_fsync_seconds_count 1",
        "infinitystore_fsync_seconds_bucket{le=\"0.00008\"} 0",
        "infinitystore_fsync_seconds_bucket{le=\"0.00016\"} 1",
        "infinitystore_fsync_seconds_bucket{le=\"+Inf\"} 1",
        "infinitystore_elections_total 1",
        "infinitystore_http_requests_total{route=\"/set\",code=\"200\"} 1",
        "infinitystore_http_requests_total{route=\"/set\",code=\"other\"} 1",
        "infinitystore_http_requests_total{route=\"/get\",code=\"401\"} 1",
        "infinitystore_http_requests_total{route=\"/get\",code=\"403\"} 1",
        "infinitystore_http_requests_total{route=\"/get\",code=\"429\"} 1",
        "infinitystore_http_request_seconds_count{route=\"/set\"} 2",
        "infinitystore_peer_queue{peer=\"node2\"} 9",
        "infinitystore_term 7",
        "infinitystore_is_leader 1",
        "infinitystore_commit_index 39",
        "infinitystore_storage_queue 4",
        "infinitystore_oldest_answer_seconds 12",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("route=\"/join\""), "a route that nobody asked is left out");
}

#[test]
fn a_peer_that_left_is_forgotten() {
    let metrics = Metrics::new();
    metrics.peer_queue("node2").set(9);
    metrics.remove_peer("node2");
    assert!(!metrics.render(&status()).contains("node2"));
}
