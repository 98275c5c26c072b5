//! What answers look like.

use crate::api::http::answer::Answer;
use crate::api::http::status::{DiskView, HttpView, TlsView};
use crate::api::http::{get, health, join, status};
use crate::codec::{FeatureLevel, FeatureLevels};
use crate::node::{JoinError, NodeStatus};
use crate::raft::{ClusterId, LogId, LogIndex, Member, NodeId, ReplicationState, RoleName, StoreId, Term};
use crate::replica::{MemberStatus, Standing, Status};
use hyper::StatusCode;
use hyper::header::HeaderMap;
use proptest::prelude::*;

/// A leader of two, which the second member follows a little behind.
pub(super) fn node_status() -> NodeStatus {
    let member = |id: u64, standing, match_index: u64| MemberStatus {
        id: NodeId::new(id),
        member: Member {
            name: format!("node-{id}"),
            raft_addr: format!("localhost:80{id}0"),
            http_addr: format!("localhost:80{id}1"),
            store_id: StoreId(u128::from(id)),
        },
        standing,
        match_index: Some(LogIndex::new(match_index)),
        lag: Some(12 - match_index),
        replication: Some(ReplicationState::Replicate),
        snapshot_refused: None,
        answers: Some(true),
        silent_micros: Some(1500),
        withdrawn: None,
        speaks: Some(FeatureLevels::OF_THIS_RELEASE),
        spoken_level: (id > 1).then_some(FeatureLevel::OLDEST),
    };
    NodeStatus {
        cluster: ClusterId(0xabc),
        name: "node-1".to_owned(),
        store: StoreId(1),
        replica: Status {
            id: NodeId::new(1),
            role: RoleName::Leader,
            term: Term::new(3),
            leader: Some(NodeId::new(1)),
            last_log: LogId::new(Term::new(3), LogIndex::new(12)),
            commit_index: LogIndex::new(12),
            starting: false,
            last_applied: LogIndex::new(11),
            configuration: LogIndex::new(7),
            configuration_committed: true,
            snapshot_failure: None,
            snapshot: LogId::ZERO,
            disk_slow: false,
            disk_write_micros: 700,
            keys: 2,
            store_bytes: 12,
            revision: 9,
            compacted: 4,
            history_bytes: 77,
            answers_bytes: 8,
            oldest_answer_micros: Some(12_500_000),
            leases: 6,
            state_hash: 5,
            pending_proposals: 0,
            pending_reads: 1,
            pending_watches: 9,
            withdrawn: None,
            level: FeatureLevel::NEWEST,
            speaks: FeatureLevels::OF_THIS_RELEASE,
            joint: false,
            members: vec![member(1, Standing::Voter, 12), member(2, Standing::Learner, 10)],
        },
        uptime_micros: 2_500_000,
        storage_queue: 4,
        event_queue: 0,
        removed: false,
        joining: false,
        has_data: true,
        stopped: None,
        held: Vec::new(),
    }
}

fn text_of(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("answers are UTF-8")
}

#[test]
fn a_value_is_answered_in_the_original_s_bytes() {
    for (key, value, json) in [
        ("foo", "bar", "{\"key\":\"foo\",\"value\":\"bar\"}\n"),
        ("\"\\\n", "", "{\"key\":\"\\\"\\\\\\n\",\"value\":\"\"}\n"),
        ("€", "😀/\u{1}", "{\"key\":\"€\",\"value\":\"😀/\\u0001\"}\n"),
    ] {
        assert_eq!(get::render(key, value.as_bytes()), json.as_bytes());
    }
    assert_eq!(get::render("k", b"\xff"), "{\"key\":\"k\",\"value\":\"\u{fffd}\"}\n".as_bytes());
}

#[test]
fn an_answer_carries_the_headers_it_needs_and_none_of_the_request_s() {
    let mut request_headers = HeaderMap::new();
    request_headers.insert("cookie", "secret".parse().expect("a header value"));
    let answer =
        Answer::message(StatusCode::METHOD_NOT_ALLOWED, "no \"way\"").allowing("POST".to_owned()).closing();
    assert_eq!(text_of(&answer), "\"no \\\"way\\\"\"\n");
    let response =
        answer.because("because\nof a line").with_outcome("unknown").into_response(request_headers);
    let mut names: Vec<&str> = response.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "allow",
            "connection",
            "content-type",
            "cross-origin-resource-policy",
            "infinitystore-outcome",
            "infinitystore-reason",
            "x-content-type-options"
        ]
    );
    let reason = response.headers()["infinitystore-reason"].as_bytes();
    assert_eq!(reason, b"because of a line", "a reason that no header may hold is told all the same");
}

#[test]
fn a_failed_join_says_why() {
    for (error, code, body) in [
        (JoinError::NoLeader, 400, "\"Not a leader\"\n"),
        (JoinError::BadRequest("what is wrong".to_owned()), 400, "\"what is wrong\"\n"),
        (JoinError::Conflict("it has data".to_owned()), 409, "\"it has data\"\n"),
        (JoinError::Failed("no answer".to_owned()), 500, "\"Failed to add voter \"\n"),
        (JoinError::Busy("try again".to_owned()), 503, "\"try again\"\n"),
    ] {
        let answer = join::refused(&error);
        assert_eq!((answer.status.as_u16(), text_of(&answer)), (code, body));
    }
}

#[test]
fn a_node_is_ready_only_if_every_check_passes() {
    let good = node_status();
    let answer = health::render(&health::local_checks(&good, false), true);
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        text_of(&answer),
        "[+] storage ok\n[+] disk-room ok\n[+] trusted ok\n[+] member ok\n[+] started ok\n[+] leader ok\n[+] caught-up ok\nok\n"
    );
    assert_eq!(text_of(&health::render(&health::local_checks(&good, false), false)), "ok\n");

    type Break = fn(&mut NodeStatus);
    let broken: [(&str, Break); 6] = [
        ("[-] trusted: an older copy\n", |s| s.replica.withdrawn = Some("an older copy".to_owned())),
        ("[-] storage: the disk failed\n", |s| s.stopped = Some("the disk failed".to_owned())),
        ("[-] member: ", |s| s.replica.id = NodeId::new(9)),
        ("[-] started: this node has not applied", |s| s.replica.starting = true),
        ("[-] leader: no leader is known\n", |s| s.replica.leader = None),
        ("[-] caught-up: ", |s| s.replica.commit_index = LogIndex::new(1_000_000)),
    ];
    for (says, break_it) in broken {
        let mut status = node_status();
        break_it(&mut status);
        let answer = health::render(&health::local_checks(&status, false), false);
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text_of(&answer).starts_with(says), "{}", text_of(&answer));
        assert!(text_of(&answer).ends_with("not ready\n"));
    }
    let full = health::render(&health::local_checks(&good, true), false);
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text_of(&full).starts_with("[-] disk-room: "), "{}", text_of(&full));
}

#[test]
fn the_status_shows_this_node_and_every_member() {
    let json: serde_json::Value = serde_json::from_slice(&status::render(
        &node_status(),
        &DiskView::default(),
        HttpView::default(),
        TlsView::default(),
    ))
    .expect("JSON");
    for (pointer, expected) in [
        ("/cluster", serde_json::json!("00000000000000000000000000000abc")),
        ("/name", "node-1".into()),
        ("/role", "leader".into()),
        ("/term", 3.into()),
        ("/leader/http_addr", "localhost:8011".into()),
        ("/commit_index", 12.into()),
        ("/applied_index", 11.into()),
        ("/queues/storage", 4.into()),
        ("/queues/watches", 9.into()),
        ("/compacted", 4.into()),
        ("/history_bytes", 77.into()),
        ("/answers_bytes", 8.into()),
        ("/oldest_answer_seconds", 12.5.into()),
        ("/leases", 6.into()),
        ("/uptime_seconds", 2.5.into()),
        ("/members/0/applied_index", 11.into()),
        ("/members/1/name", "node-2".into()),
        ("/members/1/role", "learner".into()),
        ("/members/1/raft_addr", "localhost:8020".into()),
        ("/members/1/match_index", 10.into()),
        ("/members/1/lag", 2.into()),
        ("/members/1/applied_index", serde_json::Value::Null),
    ] {
        assert_eq!(json.pointer(pointer), Some(&expected), "{pointer} in {json:#}");
    }
}

proptest! {
    #[test]
    fn any_utf8_survives_the_answer(key in ".{1,40}", value in ".{0,80}") {
        let json: serde_json::Value = serde_json::from_slice(&get::render(&key, value.as_bytes())).expect("JSON");
        prop_assert_eq!(json, serde_json::json!({"key": key, "value": value}));
    }
}
