//! One key over `/v1`.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use crate::kv::VALUE_BYTES_MAX;
use crate::node::NodeHandle;
use crate::node::handle::ClientCall;
use crate::replica::{ClientError, ClientReply, ClientRequest, Level};
use tokio::sync::mpsc;

const BINARY: &[u8] = b"\x00\xff\r\n\x80";

#[tokio::test]
async fn a_value_comes_back_as_it_was_sent() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let set = fixture.ask("PUT", "/v1/kv/a/b", BINARY).await;
    assert_eq!((set.code, set.text()), (200, "{\"revision\":1,\"version\":1}\n"));
    assert_eq!(set.header("etag"), Some("\"1\""));
    let got = fixture.ask("GET", "/v1/kv/a/b", b"").await;
    assert_eq!((got.code, &got.body[..]), (200, BINARY));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("etag", "\"1\""),
        ("infinitystore-revision", "1"),
        ("infinitystore-term", "1"),
        ("infinitystore-served-by", "node-1"),
        ("infinitystore-create-revision", "1"),
        ("infinitystore-version", "1"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    let head = fixture.ask("HEAD", "/v1/kv/a/b", b"").await;
    assert_eq!((head.code, head.body.len(), head.header("content-length")), (200, 0, Some("5")));
    let json = fixture.ask_with("GET", "/v1/kv/a/b", "accept: application/json\r\n", b"").await;
    let expected = "{\"key\":\"a/b\",\"value64\":\"AP8NCoA=\",\"create_revision\":1,\"mod_revision\":1,\"version\":1,\"lease\":0}\n";
    assert_eq!((json.text(), json.header("content-type")), (expected, Some("application/json")));
    assert_eq!(fixture.ask("DELETE", "/v1/kv/a/b", b"").await.text(), "{\"revision\":2,\"deleted\":1}\n");
    assert_eq!(fixture.ask("DELETE", "/v1/kv/a/b", b"").await.text(), "{\"revision\":2,\"deleted\":0}\n");
    assert_eq!(fixture.ask("GET", "/v1/kv/a/b", b"").await.problem(), (404, "key-not-found".to_owned()));
    assert_eq!(fixture.ask("GET", "/v1/kv/a/b?at=1", b"").await.body, BINARY, "as it was");
    assert_eq!(fixture.ask("PUT", "/v1/kv/empty", b"").await.code, 200);
    for method in ["GET", "HEAD"] {
        let empty = fixture.ask(method, "/v1/kv/empty", b"").await;
        assert_eq!((empty.code, empty.header("content-length")), (200, Some("0")), "{method}");
    }
}

#[tokio::test]
async fn a_key_is_any_bytes_in_the_path_or_beside_it() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (target, key64) in [
        ("/v1/kv/%00%FF+%2b/..", "AP8rKy8uLg=="),
        ("/v1/kv?key=%00%FF+%2b/..", "AP8gKy8uLg=="),
        ("/v1/kv?key64=AP8gKy8u", "AP8gKy8u"),
        ("/v1/kv?key64=_-8", "/+8="),
        ("/v1/kv//", "Lw=="),
    ] {
        assert_eq!(fixture.ask("PUT", target, b"v").await.code, 200, "{target}");
        let got = fixture.ask_with("GET", target, "accept: text/html, application/json;q=0.5\r\n", b"").await;
        let json = got.json();
        let key = json["key64"].as_str().map_or_else(
            || crate::codec::to_base64(json["key"].as_str().expect("a key").as_bytes()),
            str::to_owned,
        );
        assert_eq!(key, key64, "{target}");
        assert_eq!(fixture.ask("DELETE", target, b"").await.json()["deleted"], 1, "{target}");
    }
    // The original's routes see the same keys.
    assert_eq!(fixture.ask("PUT", "/v1/kv/foo", b"bar").await.code, 200);
    assert_eq!(fixture.ask("GET", "/get?key=foo", b"").await.text(), "{\"key\":\"foo\",\"value\":\"bar\"}\n");
}

#[tokio::test]
async fn conditions_compare_and_set() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (method, headers, code, tag) in [
        ("PUT", "if-match: *\r\n", 412, None),
        ("PUT", "if-match: \"1\"\r\n", 412, None),
        ("PUT", "if-none-match: *\r\n", 200, Some("\"1\"")),
        ("PUT", "if-none-match: *\r\n", 412, Some("\"1\"")),
        ("PUT", "if-match: \"1\"\r\n", 200, Some("\"2\"")),
        ("PUT", "if-match: \"1\"\r\n", 412, Some("\"2\"")),
        ("PUT", "if-match: *\r\n", 200, Some("\"3\"")),
        ("PUT", "if-none-match: \"3\"\r\n", 412, Some("\"3\"")),
        ("PUT", "if-none-match: W/\"2\"\r\n", 200, Some("\"4\"")),
        ("GET", "if-none-match: \"4\"\r\n", 304, Some("\"4\"")),
        ("GET", "if-none-match: *\r\n", 304, Some("\"4\"")),
        ("GET", "if-none-match: 3\r\n", 200, Some("\"4\"")),
        ("GET", "if-match: \"3\"\r\n", 412, Some("\"4\"")),
        ("DELETE", "if-match: \"3\"\r\n", 412, Some("\"4\"")),
        ("DELETE", "if-match: \"4\"\r\n", 200, None),
        ("DELETE", "if-match: *\r\n", 412, None),
        ("GET", "if-match: *\r\n", 412, None),
        ("GET", "if-none-match: *\r\n", 404, None),
    ] {
        let answered = fixture.ask_with(method, "/v1/kv/k", headers, b"x").await;
        assert_eq!((answered.code, answered.header("etag")), (code, tag), "{method} {headers}");
        if code == 412 {
            assert_eq!(answered.problem().1, "condition-failed");
            let outcome = answered.json().get("outcome").cloned();
            assert_eq!(outcome.is_some(), method != "GET", "{method} {headers}");
        }
    }
}

#[tokio::test]
async fn a_key_ends_with_its_lease() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let set = fixture.ask("PUT", "/v1/kv/k?ttl=1500ms", b"v").await;
    assert_eq!(set.text(), "{\"revision\":1,\"version\":1,\"lease\":1,\"ttl\":2}\n");
    assert_eq!(fixture.ask("GET", "/v1/kv/k", b"").await.header("infinitystore-lease"), Some("1"));
    assert_eq!(fixture.ask("PUT", "/v1/kv/l?lease=1", b"v").await.code, 200);
    assert_eq!(fixture.ask("DELETE", "/v1/leases/1", b"").await.text(), "{\"revision\":3,\"deleted\":2}\n");
    assert_eq!(fixture.ask("GET", "/v1/kv/k", b"").await.code, 404);
    let refused = fixture.ask("PUT", "/v1/kv/l?lease=1", b"v").await;
    assert_eq!(refused.problem(), (404, "no-lease".to_owned()));
    // A write that is refused leaves no lease behind.
    let refused = fixture.ask_with("PUT", "/v1/kv/k?ttl=9", "if-match: \"77\"\r\n", b"v").await;
    assert_eq!(refused.code, 412);
    assert_eq!(fixture.ask("GET", "/v1/leases", b"").await.json()["leases"], serde_json::json!([]));
}

#[tokio::test]
async fn a_write_under_an_idempotency_key_is_done_once() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let key = "idempotency-key: one\r\n";
    for _ in 0..2 {
        let set = fixture.ask_with("PUT", "/v1/kv/k", key, b"v").await;
        assert_eq!(set.text(), "{\"revision\":1,\"version\":1}\n");
    }
    let other = fixture.ask_with("PUT", "/v1/kv/k", key, b"other").await;
    assert_eq!(other.problem(), (422, "idempotency-key-reused".to_owned()));
    let with_lease = "idempotency-key: two\r\n";
    for _ in 0..2 {
        let set = fixture.ask_with("PUT", "/v1/kv/l?ttl=10", with_lease, b"v").await;
        assert_eq!(set.text(), "{\"revision\":2,\"version\":1,\"lease\":1,\"ttl\":10}\n");
    }
    for _ in 0..2 {
        let sum = fixture.ask_with("POST", "/v1/incr/n?by=-5", "idempotency-key: three\r\n", b"").await;
        assert_eq!(sum.text(), "{\"revision\":3,\"version\":1,\"value\":-5}\n");
    }
    assert_eq!(fixture.ask("POST", "/v1/incr/n", b"").await.json()["value"], -4);
    for long in ["", &"x".repeat(300)] {
        let headers = format!("idempotency-key: {long}\r\n");
        let refused = fixture.ask_with("PUT", "/v1/kv/k", &headers, b"v").await;
        assert_eq!(refused.problem(), (400, "bad-idempotency-key".to_owned()));
    }
}

#[tokio::test]
async fn a_repetition_whose_answer_may_be_forgotten_is_refused() {
    let fixture = &Fixture::start(HttpOptions::default()).await;
    let little = b"{\"history_bytes\":67108864,\"quota_bytes\":4294967296,\"answers_bytes\":1048576}";
    assert_eq!(fixture.ask("PUT", "/v1/settings", little).await.code, 200);
    assert_eq!(fixture.ask("PUT", "/v1/kv/large", &[b'x'; 100 << 10]).await.code, 200);
    let add = |since: &str| {
        let headers = format!("idempotency-key: one\r\n{since}");
        async move { fixture.ask_with("POST", "/v1/incr/n", &headers, b"").await }
    };
    for since in ["", "idempotency-since: 1\r\n", "idempotency-since: 0\r\n"] {
        assert_eq!(add(since).await.json()["value"], 1, "{since}: the answer is remembered");
    }
    let read = b"{\"then\":[{\"get\":{\"key\":\"large\"}},{\"put\":{\"key\":\"k\",\"value\":\"v\"}}]}";
    for number in 0..12 {
        let key = format!("idempotency-key: other {number}\r\n");
        assert_eq!(fixture.ask_with("POST", "/v1/txn", &key, read).await.code, 200);
    }
    // That of revision 2, and those of the first others.
    for since in ["idempotency-since: 1\r\n", "Idempotency-Since: 2\r\n"] {
        let refused = add(since).await;
        assert_eq!(refused.problem(), (409, "answer-forgotten".to_owned()));
        assert_eq!(refused.json()["outcome"], "unknown", "it may have been done");
        assert_eq!(refused.json()["revision"], 4);
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("new idempotency key"), "what to do: {detail}");
        assert_eq!(fixture.ask("GET", "/v1/kv/n", b"").await.text(), "1");
    }
    let ahead = add("idempotency-since: 99\r\n").await;
    assert_eq!((ahead.problem().1, &ahead.json()["revision"]), ("answer-forgotten".to_owned(), &14.into()));
    // A write whose parts have names of their own is refused as a whole.
    let with_lease = "idempotency-key: leased\r\nidempotency-since: 4\r\n";
    for (method, target) in [("PUT", "/v1/kv/l?ttl=10"), ("POST", "/v1/locks/l?ttl=10")] {
        let refused = fixture.ask_with(method, target, with_lease, b"v").await;
        assert_eq!(refused.problem(), (409, "answer-forgotten".to_owned()), "{target}");
    }
    assert_eq!(fixture.ask("GET", "/v1/leases", b"").await.json()["leases"], serde_json::json!([]));
    // Its client had seen what came after all that is forgotten; and without a word of it.
    assert_eq!(add("idempotency-since: 5\r\n").await.json()["value"], 2);
}

#[tokio::test]
async fn what_was_seen_before_the_first_attempt_is_a_revision_and_goes_with_a_key() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (key, since) in [
        ("", "1"),
        ("k", ""),
        ("k", "x"),
        ("k", "-1"),
        ("k", "+1"),
        ("k", "1.0"),
        ("k", "\"1\""),
        ("k", "4611686018427387905"),
    ] {
        let key = if key.is_empty() { String::new() } else { format!("idempotency-key: {key}\r\n") };
        let headers = format!("{key}idempotency-since: {since}\r\n");
        let refused = fixture.ask_with("PUT", "/v1/kv/k", &headers, b"v").await;
        assert_eq!(refused.problem(), (400, "bad-idempotency-since".to_owned()), "{headers}");
        assert_eq!(refused.json()["outcome"], "not-applied");
    }
    // Of two, one would be passed over.
    for name in ["if-match", "if-none-match", "idempotency-key", "idempotency-since"] {
        let headers = format!("idempotency-key: k\r\n{name}: 1\r\n{name}: 1\r\n");
        let refused = fixture.ask_with("PUT", "/v1/kv/k", &headers, b"v").await;
        assert_eq!(refused.problem(), (400, "bad-condition".to_owned()), "{name}");
    }
    assert_eq!(fixture.ask("GET", "/v1/kv/k", b"").await.code, 404);
}

/// Whoever lost its majority may wait for what it still hears of.
#[tokio::test]
async fn a_long_poll_asks_no_quorum_where_the_client_wants_none() {
    let fixture = Fixture::start_without_node(HttpOptions::default()).await;
    let (clients, mut calls) = mpsc::channel::<ClientCall>(64);
    fixture.slot.fill(NodeHandle { clients, ..fixture.node.clone() });
    let node = fixture.node.clone();
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            if let ClientRequest::Read { level: Level::Linearizable, .. } = call.request {
                let _ = call.reply.send(ClientReply::Failed(ClientError::NoQuorum));
            } else {
                let _ = node.clients.send(call).await;
            }
        }
    });
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"1").await.code, 200);
    let asked = fixture.ask("GET", "/v1/kv/k?wait=10ms", b"").await;
    assert_eq!(asked.problem(), (503, "no-quorum".to_owned()));
    let local = fixture.ask("GET", "/v1/kv/k?wait=10ms&level=local", b"").await;
    assert_eq!((local.code, local.header("infinitystore-revision")), (304, Some("1")), "{}", local.text());
}

#[tokio::test]
async fn a_long_poll_waits_for_the_next_change() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"1").await.code, 200);
    assert_eq!(
        fixture.ask("GET", "/v1/kv/k?wait=1h&after=0", b"").await.body,
        b"1",
        "it has changed already"
    );
    let unchanged = fixture.ask("GET", "/v1/kv/k?wait=1ms&after=1", b"").await;
    assert_eq!((unchanged.code, unchanged.header("infinitystore-revision")), (304, Some("1")));
    assert_eq!(fixture.ask("GET", "/v1/kv/k?wait=1us", b"").await.code, 304);
    let (changed, set) = tokio::join!(
        fixture.ask("GET", "/v1/kv/k?wait=1h&after=1", b""),
        fixture.ask("PUT", "/v1/kv/k", b"2")
    );
    assert_eq!((&changed.body[..], changed.header("etag"), set.code), (&b"2"[..], Some("\"2\""), 200));
    let (changed, _) = tokio::join!(
        fixture.ask("GET", "/v1/kv/k?wait=1h&after=2", b""),
        fixture.ask("DELETE", "/v1/kv/k", b"")
    );
    assert_eq!((changed.code, changed.header("infinitystore-revision")), (404, Some("3")));
    assert_eq!(fixture.ask("POST", "/v1/compact", b"{\"revision\":3}").await.text(), "{\"compacted\":3}\n");
    let gone = fixture.ask("GET", "/v1/kv/k?wait=1h&after=1", b"").await;
    assert_eq!((gone.problem(), &gone.json()["revision"]), ((410, "compacted".to_owned()), &4.into()));
}

/// A client that polls by the ETag of what it has.
#[tokio::test]
async fn a_long_poll_with_an_etag_is_answered_at_once_if_something_else_is_there() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    fixture.ask("PUT", "/v1/kv/k", b"1").await;
    fixture.ask("PUT", "/v1/kv/k", b"2").await;
    let poll = async |tag: &str, wait: &str| {
        let headers = format!("if-none-match: \"{tag}\"\r\n");
        fixture.ask_with("GET", &format!("/v1/kv/k?wait={wait}"), &headers, b"").await
    };
    let newer = poll("1", "1h").await;
    assert_eq!((newer.code, &newer.body[..]), (200, &b"2"[..]));
    assert_eq!(poll("2", "1ms").await.code, 304);
    let (changed, _) = tokio::join!(poll("2", "1h"), fixture.ask("PUT", "/v1/kv/k", b"3"));
    assert_eq!((changed.code, &changed.body[..]), (200, &b"3"[..]));
    fixture.ask("DELETE", "/v1/kv/k", b"").await;
    assert_eq!(poll("3", "1h").await.code, 404);
}

/// As one list they would say more than one of them does.
#[tokio::test]
async fn a_header_that_comes_twice_is_refused_where_one_would_be_passed_over() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    fixture.ask("PUT", "/v1/kv/k", b"1").await;
    for headers in [
        "if-none-match: \"5\"\r\nif-none-match: \"1\"\r\n",
        "if-match: \"1\"\r\nif-match: \"2\"\r\n",
        "idempotency-key: a\r\nidempotency-key: b\r\n",
    ] {
        let refused = fixture.ask_with("PUT", "/v1/kv/k", headers, b"2").await;
        assert_eq!(refused.problem(), (400, "bad-condition".to_owned()), "{headers}");
    }
    assert_eq!(fixture.ask("GET", "/v1/kv/k", b"").await.body, b"1");
}

/// One question looks at a part of the history only.
#[tokio::test]
async fn a_long_poll_does_not_end_before_a_change_that_is_far() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"1").await.code, 200);
    // In no order, so that every change is looked at.
    let steps: Vec<_> = (0..500)
        .map(|number| serde_json::json!({"put": {"key": format!("other/{:03}", 499 - number), "value": "x"}}))
        .collect();
    let others = serde_json::json!({ "then": steps }).to_string();
    for _ in 0..45 {
        assert_eq!(fixture.ask("POST", "/v1/txn", others.as_bytes()).await.code, 200);
    }
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", b"2").await.code, 200);
    let changed = fixture.ask("GET", "/v1/kv/k?wait=0s&after=1", b"").await;
    assert_eq!((changed.code, &changed.body[..], changed.header("etag")), (200, &b"2"[..], Some("\"47\"")));
    let unchanged = fixture.ask("GET", "/v1/kv/k?wait=0s&after=47", b"").await;
    assert_eq!((unchanged.code, unchanged.header("infinitystore-revision")), (304, Some("47")));
}

#[tokio::test]
async fn what_fails_says_why_and_whether_it_may_have_happened() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (method, key, status, code, outcome) in [
        ("PUT", "fails:%20no%20leader", 503, "no-leader", Some("not-applied")),
        ("DELETE", "fails:%20unknown", 504, "outcome-unknown", Some("unknown")),
        ("PUT", "fails:%20disk%20full", 507, "disk-full", Some("not-applied")),
        ("PUT", "fails:%20too%20large", 413, "command-too-large", Some("not-applied")),
        ("GET", "fails:%20no%20quorum", 503, "no-quorum", None),
        ("PUT", "", 400, "empty-key", Some("not-applied")),
        ("GET", "", 400, "empty-key", None),
        ("GET", "%", 400, "bad-encoding", None),
        ("GET", "%f", 400, "bad-encoding", None),
        ("PUT", "k?ttl=soon", 400, "bad-parameter", Some("not-applied")),
        ("PUT", "k?ttl=99999999999999999999", 400, "bad-parameter", Some("not-applied")),
        ("PUT", "k?ttl=1&lease=2", 400, "conflicting-parameters", Some("not-applied")),
        ("PUT", "k?lease=-1", 400, "bad-parameter", Some("not-applied")),
        ("PUT", "k?lease=77", 404, "no-lease", Some("not-applied")),
        ("PUT", "k?key=k", 400, "unknown-parameter", Some("not-applied")),
        ("GET", "k?level=fresh", 400, "bad-parameter", None),
        ("GET", "k?level=local&level=local", 400, "repeated-parameter", None),
        ("GET", "k?level=linearizable&max_staleness=1s", 400, "conflicting-parameters", None),
        ("GET", "k?max_staleness=0", 503, "stale", None),
        ("GET", "k?at=77", 409, "future-revision", None),
        ("GET", "k?at=1&wait=1s", 400, "conflicting-parameters", None),
        ("GET", "k?after=1", 400, "missing-parameter", None),
        ("GET", "k?%6cevel=%zz", 400, "bad-encoding", None),
    ] {
        let answered = fixture.ask(method, &format!("/v1/kv/{key}"), b"").await;
        assert_eq!(answered.problem(), (status, code.to_owned()), "{method} {key}");
        let json = answered.json();
        assert_eq!(json.get("outcome").and_then(|outcome| outcome.as_str()), outcome, "{method} {key}");
        assert_eq!(answered.header("retry-after").is_some(), status == 503, "{method} {key}");
    }
    for (headers, status, code) in [
        ("if-match: \"x\"\r\n", 400, "bad-condition"),
        ("if-match: \"1\", \"2\"\r\n", 400, "bad-condition"),
        ("if-match: \"1\"\r\nif-none-match: *\r\n", 400, "bad-condition"),
        ("content-encoding: gzip\r\n", 415, "unsupported-encoding"),
        ("origin: http://evil.example\r\n", 403, "other-origin"),
    ] {
        let answered = fixture.ask_with("PUT", "/v1/kv/k", headers, b"v").await;
        assert_eq!(answered.problem(), (status, code.to_owned()), "{headers}");
    }
    assert_eq!(fixture.ask("GET", "/v1/kv", b"").await.json()["count"], 0, "none of it has happened");
    assert_eq!(fixture.ask("PUT", "/v1/kv/n", b"nine").await.code, 200);
    assert_eq!(fixture.ask("POST", "/v1/incr/n", b"").await.problem(), (409, "not-a-number".to_owned()));
    assert_eq!(fixture.ask("PUT", "/v1/kv/n", b"9223372036854775807").await.code, 200);
    assert_eq!(fixture.ask("POST", "/v1/incr/n", b"").await.problem(), (409, "overflow".to_owned()));
    assert_eq!(
        fixture.ask("POST", "/v1/incr/n?by=x", b"").await.problem(),
        (400, "bad-parameter".to_owned())
    );
}

#[tokio::test]
async fn the_largest_value_fits_and_one_byte_more_is_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut value = vec![0xff; VALUE_BYTES_MAX];
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", &value).await.code, 200);
    assert!(fixture.ask("GET", "/v1/kv/k", b"").await.body == value);
    let json = fixture.ask_with("GET", "/v1/kv/k", "accept: application/json\r\n", b"").await;
    assert_eq!(json.json()["value64"].as_str().map(str::len), Some(VALUE_BYTES_MAX.div_ceil(3) * 4));
    value.push(0);
    assert_eq!(fixture.ask("PUT", "/v1/kv/k", &value).await.problem(), (413, "value-too-large".to_owned()));
    let key = format!("/v1/kv/{}", "k".repeat(65_000));
    assert_eq!(fixture.ask("PUT", &key, b"").await.code, 200);
    let key = format!("/v1/kv?key64={}", "A".repeat(65_400));
    assert_eq!(
        fixture.ask("PUT", &key, b"").await.code,
        200,
        "base64 and percent signs need more room in a URL"
    );
}
