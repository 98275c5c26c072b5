//! Every documented answer, over a socket.

use crate::api::HttpOptions;
use crate::api::http::routes::Routes;
use crate::api::http::tests::fixture::{Fixture, HELD_KEY, RELEASE_KEY, receive_all};
use crate::kv::Store;
use crate::node::NodeHandle;
use crate::node::handle::{ClientCall, NodeFacts};
use crate::replica::{ClientRequest, Level};
use crate::runtime::{Env, TokioEnv};
use crate::storage::MemoryDisk;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

const SET: &[u8] = br#"{"key":"foo", "value":"bar","action":"set"}"#;

#[tokio::test]
async fn requests_get_their_documented_answers() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let write = |key: &str| format!(r#"{{"key":"{key}","value":"v","action":"set"}}"#);
    let (no_leader, unknown) = (write("fails: no leader"), write("fails: unknown"));
    let too_large = write("fails: too large");
    for (method, target, body, code, answer) in [
        ("GET", "/get?key=foo", "", 404, "\"Key does not exist\"\n"),
        (
            "POST",
            "/set",
            "{\"key\":\"foo\", \"value\":\"bar\",\"action\":\"set\"}",
            200,
            "\"Set Successfull\"\n",
        ),
        ("GET", "/get?key=foo", "", 200, "{\"key\":\"foo\",\"value\":\"bar\"}\n"),
        ("GET", "/get?key=f%6F%6f&level=local", "", 200, "{\"key\":\"foo\",\"value\":\"bar\"}\n"),
        (
            "POST",
            "/set",
            "{\"key\":\"foo\", \"value\":\"bar\",\"action\":\"delete\"}",
            200,
            "\"Set Successfull\"\n",
        ),
        ("POST", "/set", "{\"key\":\"foo\",\"action\":\"delete\"}", 200, "\"Set Successfull\"\n"),
        ("GET", "/get?key=foo", "", 404, "\"Key does not exist\"\n"),
        ("POST", "/set", "", 400, "\"Invalid Body\"\n"),
        ("POST", "/set", "{\"key\":\"foo\",\"value\":\"bar\",\"action\":\"add\"}", 400, "\"Invalid Body\"\n"),
        ("POST", "/set", &no_leader, 500, "\"Couldn't Add to store\"\n"),
        ("POST", "/set", &unknown, 500, "\"Couldn't Add to store\"\n"),
        (
            "POST",
            "/set",
            &too_large,
            413,
            "\"the command takes 18122 bytes in the log; the limit is 16384\"\n",
        ),
        ("GET", "/get", "", 400, "\"Missing Key\"\n"),
        ("GET", "/get?key=%ff", "", 400, "\"key is not UTF-8\"\n"),
        ("GET", "/get?key=fails:+no+quorum", "", 503, "\"no quorum answered in time\"\n"),
        ("POST", "/join?nodeid=good&nodeaddr=h:1", "", 200, "\"Voter added\"\n"),
        (
            "POST",
            "/join?nodeid=good",
            "",
            400,
            "\"nodeaddr is missing: host:port, the --raft-addr of the node to join\"\n",
        ),
        ("POST", "/join?nodeid=leaderless&nodeaddr=h:1", "", 400, "\"Not a leader\"\n"),
        ("POST", "/join?nodeid=has-data&nodeaddr=h:1", "", 409, "\"h:1 has data\"\n"),
        ("POST", "/join?nodeid=dead&nodeaddr=h:1", "", 500, "\"Failed to add voter \"\n"),
        ("GET", "/livez", "", 200, "ok\n"),
        ("GET", "/readyz", "", 200, "ok\n"),
        ("GET", "/nowhere", "", 404, "\"Not Found\"\n"),
        ("GET", "/set/", "", 404, "\"Not Found\"\n"),
    ] {
        let answered = fixture.ask(method, target, body.as_bytes()).await;
        assert_eq!((answered.code, answered.text()), (code, answer), "{method} {target} {body}");
        let json = answer.starts_with(['"', '{']);
        let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
        assert_eq!(answered.header("content-type"), Some(kind), "{method} {target}");
    }
}

#[tokio::test]
async fn a_failure_says_why_and_whether_the_write_may_yet_happen() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (body, reason, outcome) in [
        (
            r#"{"key":"fails: no leader","value":"","action":"set"}"#,
            "no leader is known",
            Some("not-appended"),
        ),
        (
            r#"{"key":"fails: unknown","action":"delete"}"#,
            "it is not known whether the write was committed",
            Some("unknown"),
        ),
        (r#"{"key":"k","action":"delete it"}"#, "the action is neither \"set\" nor \"delete\"", None),
        (r#"{"key":"k""#, "EOF while parsing an object at line 1 column 10", None),
    ] {
        let answered = fixture.ask("POST", "/set", body.as_bytes()).await;
        assert_eq!(answered.header("infinitystore-reason"), Some(reason), "{body}");
        assert_eq!(answered.header("infinitystore-outcome"), outcome, "{body}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (method, target, allowed) in [
        ("GET", "/set", "POST"),
        ("HEAD", "/set", "POST"),
        ("PUT", "/set", "POST"),
        ("GET", "/join", "POST"),
        ("POST", "/get", "GET, HEAD"),
        ("DELETE", "/get?key=foo", "GET, HEAD"),
        ("OPTIONS", "/v1/status", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ] {
        let answered = fixture.ask(method, target, b"").await;
        assert_eq!((answered.code, answered.header("allow")), (405, Some(allowed)), "{method} {target}");
    }
}

#[tokio::test]
async fn head_gets_the_headers_of_get_alone() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("POST", "/set", SET).await.code, 200);
    for target in ["/get?key=foo", "/", "/livez", "/readyz", "/v1/status", "/metrics"] {
        let head = fixture.ask("HEAD", target, b"").await;
        assert_eq!((head.code, head.body.len()), (200, 0), "{target}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{target}");
    }
}

#[tokio::test]
async fn operators_get_status_metrics_and_checks() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let status = fixture.ask("GET", "/v1/status", b"").await;
    let json: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
    assert_eq!(json["name"], "node-1");
    assert!(fixture.ask("GET", "/readyz?verbose", b"").await.text().contains("[+] quorum ok\n"));
    let metrics = fixture.ask("GET", "/metrics", b"").await;
    assert_eq!(
        metrics.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(
        metrics.text().contains("infinitystore_http_requests_total{route=\"/v1/status\",code=\"200\"} 1\n")
    );
}

#[tokio::test]
async fn every_route_is_counted_under_its_path_and_on_the_page_of_commands() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let page = fixture.ask("GET", "/", b"").await;
    let expected = r#"InfinityStore

  curl -i -X POST http://HOST/set -d '{"key":"foo", "value":"bar","action":"set"}'
  curl -i -X POST http://HOST/set -d '{"key":"foo","action":"delete"}'
  curl -X GET  'http://HOST/get?key=foo'
  curl -X GET  'http://HOST/get?key=foo&level=local'
  curl -i -X POST 'http://HOST/join?nodeid=node-2&nodeaddr=localhost:8010'
  curl -X PUT http://HOST/v1/kv/foo --data-binary bar
  curl -X DELETE http://HOST/v1/kv/foo
  curl 'http://HOST/v1/kv?prefix=a/&limit=100'
  curl -X DELETE 'http://HOST/v1/kv?prefix=a/'
  curl -N 'http://HOST/v1/watch?prefix=a/'
  curl -X POST http://HOST/v1/txn -d '{"if":[{"key":"a","version":0}],"then":[{"put":{"key":"a","value":"x"}}]}'
  curl -X POST 'http://HOST/v1/incr/visits?by=1'
  curl -X POST http://HOST/v1/leases -d '{"ttl":10}'
  curl -X POST 'http://HOST/v1/locks/nightly?ttl=10s&wait=5s'
  curl -X POST 'http://HOST/v1/elections/api?ttl=10s' -d http://me:80
  curl -X POST http://HOST/v1/members -d '{"name":"node-4","raft_addr":"localhost:8030"}'
  curl -X DELETE http://HOST/v1/members/node-4
  curl -X POST http://HOST/v1/leader/transfer -d '{"to":"node-2"}'
  (-i shows the headers: infinitystore-reason says why something was refused, infinitystore-outcome
  whether a write that failed may still happen)

  curl http://HOST/v1/status        this node, and the cluster as it sees it
  curl http://HOST/livez            whether the process runs
  curl http://HOST/readyz?verbose   whether it can serve
  curl http://HOST/metrics          for Prometheus
  curl http://HOST/openapi.json     this API, for programs
  curl -i http://HOST/v1/kv/foo     read a key, or wait until it changes
  curl http://HOST/v1/members       the members, and how they are
"#;
    let (examples, all) = page.text().split_once("\nEvery route:\n").expect("examples, and every route");
    assert_eq!(examples, expected);
    for route in Routes::<TokioEnv<MemoryDisk>>::all() {
        for operation in route.operations {
            let names = |line: &&str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.starts_with(&[operation.method, route.path]) && line.ends_with(operation.about)
            };
            assert_eq!(all.lines().filter(names).count(), 1, "{} {}\n{all}", operation.method, route.path);
        }
    }
    let paths: Vec<&str> = Routes::<TokioEnv<MemoryDisk>>::names().collect();
    assert_eq!(BTreeSet::from_iter(&paths).len(), paths.len(), "each path is there once");
    for path in &paths {
        let (target, code) = if *path == "other" { ("/nowhere", 404) } else { (*path, 405) };
        assert_eq!(fixture.ask("BREW", target, b"").await.code, code, "{target}");
    }
    let metrics = fixture.ask("GET", "/metrics", b"").await;
    for path in paths {
        let code = if path == "other" { 404 } else { 405 };
        let line = format!("infinitystore_http_requests_total{{route=\"{path}\",code=\"{code}\"}} 1\n");
        assert!(metrics.text().contains(&line), "{line} is not in\n{}", metrics.text());
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let set = format!("POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", SET.len());
    let get = "GET /get?key=foo HTTP/1.1\r\nhost: t\r\n\r\n";
    let last = "GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    let mut stream = fixture.connect().await;
    stream.write_all(&[set.as_bytes(), SET, get.as_bytes(), last.as_bytes()].concat()).await.expect("sent");
    let mut received = String::new();
    stream.read_to_string(&mut received).await.expect("text, and then the end");
    let bodies: Vec<&str> = received
        .split("HTTP/1.1 200 OK")
        .filter_map(|part| part.split_once("\r\n\r\n"))
        .map(|(_, b)| b)
        .collect();
    assert_eq!(bodies, ["\"Set Successfull\"\n", "{\"key\":\"foo\",\"value\":\"bar\"}\n", "ok\n"]);
}

#[tokio::test]
async fn a_body_may_come_in_pieces_and_chunks() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut stream = fixture.connect().await;
    let head = "POST /set HTTP/1.1\r\nhost: t\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    for piece in SET.chunks(7) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.expect("sent");
        stream.write_all(piece).await.expect("sent");
        stream.write_all(b"\r\n").await.expect("sent");
        tokio::task::yield_now().await;
    }
    stream.write_all(b"0\r\nx-trailer: ignored\r\n\r\n").await.expect("sent");
    assert_eq!(receive_all(&mut stream).await.code, 200);
    assert_eq!(fixture.ask("GET", "/get?key=foo", b"").await.text(), "{\"key\":\"foo\",\"value\":\"bar\"}\n");
}

#[tokio::test]
async fn a_stop_answers_the_request_at_hand_and_closes_the_rest() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut idle = fixture.connect().await;
    let mut held = fixture.connect().await;
    let request = |key: &str| format!("GET /get?key={key} HTTP/1.1\r\nhost: t\r\n\r\n");
    held.write_all(request(HELD_KEY).as_bytes()).await.expect("sent");
    // Answered only once the held request has reached the node: they stand in one queue.
    let mut releaser = fixture.connect().await;
    releaser.write_all(request("other").as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    releaser.read_exact(&mut first).await.expect("an answer");

    let release = ClientRequest::read(RELEASE_KEY, Level::Local);
    let stop = fixture.server.stop(fixture.env.now().plus(60_000_000));
    let clients = async {
        assert_eq!(idle.read(&mut [0; 1]).await.expect("the end"), 0, "idle connections are closed at once");
        fixture.node.request(release).await;
        assert_eq!(receive_all(&mut held).await.code, 404, "the request at hand is answered");
    };
    tokio::join!(stop, clients);
    assert!(tokio::net::TcpStream::connect(&fixture.addr).await.is_err(), "nobody listens any more");
}

#[test]
fn any_utf8_survives_a_write_and_a_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let fixture = runtime.block_on(Fixture::start(HttpOptions::default()));
    let strategy = (".{1,30}", ".{0,60}").prop_filter("special here", |(key, _)| {
        ![HELD_KEY, RELEASE_KEY].contains(&key.as_str()) && !key.starts_with("fails")
    });
    TestRunner::new(Config::with_cases(64))
        .run(&strategy, |(key, value)| {
            let body = serde_json::json!({"key": key, "value": value, "action": "set"}).to_string();
            let encoded: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let read = runtime.block_on(async {
                let written = fixture.ask("POST", "/set", body.as_bytes()).await;
                assert_eq!(written.code, 200);
                fixture.ask("GET", &format!("/get?key={encoded}"), b"").await
            });
            let json: serde_json::Value = serde_json::from_slice(&read.body).expect("JSON");
            prop_assert_eq!(json, serde_json::json!({"key": key, "value": value}));
            Ok(())
        })
        .expect("every string survives");
}

/// Anybody may ask, and a question to the quorum goes to all members.
#[tokio::test]
async fn a_quorum_is_asked_ten_times_a_second_at_most_whoever_wants_to_know() {
    let fixture = Fixture::start_without_node(HttpOptions::default()).await;
    let (clients, mut calls) = mpsc::channel::<ClientCall>(64);
    let asked = Arc::new(AtomicU64::new(0));
    fixture.slot.fill(NodeHandle { clients, ..fixture.node.clone() });
    tokio::spawn({
        let (node, asked) = (fixture.node.clone(), asked.clone());
        async move {
            while let Some(call) = calls.recv().await {
                asked.fetch_add(u64::from(call.request == ClientRequest::Barrier), Ordering::Relaxed);
                let _ = node.clients.send(call).await;
            }
        }
    });
    let began = fixture.env.now();
    for _ in 0..100 {
        assert_eq!(fixture.ask("GET", "/readyz", b"").await.code, 200);
    }
    let tenths = fixture.env.now().since(began) / 100_000;
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..=1 + tenths).contains(&asked), "asked {asked} times within {tenths} tenths of a second");
}

#[tokio::test]
async fn a_node_that_has_not_started_lives_and_says_so_to_everybody_else() {
    let fixture = Fixture::start_without_node(HttpOptions::default()).await;
    assert_eq!(fixture.ask("GET", "/livez", b"").await.code, 200);
    let ready = fixture.ask("GET", "/readyz", b"").await;
    assert_eq!((ready.code, ready.text()), (503, "[-] started: this node is loading its data\nnot ready\n"));
    let set = br#"{"key":"k","value":"v","action":"set"}"#;
    for (method, target, body) in [
        ("POST", "/set", &set[..]),
        ("GET", "/get?key=k", b""),
        ("GET", "/get?key=k&level=local", b""),
        ("POST", "/join?nodeid=n&nodeaddr=n:1", b""),
        ("GET", "/v1/status", b""),
        ("GET", "/metrics", b""),
    ] {
        let answered = fixture.ask(method, target, body).await;
        assert_eq!(answered.code, 503, "{target}");
        assert!(answered.text().contains("this node is starting"), "{target}: {}", answered.text());
        let outcome = (method == "POST").then_some("not-appended");
        assert_eq!(answered.header("infinitystore-outcome"), outcome, "{target}");
    }
    fixture.slot.fill(fixture.node.clone());
    assert_eq!(fixture.ask("POST", "/set", set).await.code, 200);
    assert_eq!(fixture.ask("GET", "/readyz", b"").await.code, 200);
}

/// Its driver has its turn a moment later. Requests that come before that would be queued, or
/// refused for too much that waits, by a node that cannot even say its name.
#[tokio::test]
async fn a_node_is_starting_until_its_driver_has_said_where_it_stands() {
    let fixture = Fixture::start_without_node(HttpOptions::default()).await;
    let facts = Arc::new(NodeFacts::of("node-1".to_owned()));
    let (clients, _calls) = mpsc::channel(1);
    let node = NodeHandle { clients, facts: facts.clone(), ..fixture.node.clone() };
    let (reply, _answer) = oneshot::channel();
    let first = ClientCall { by: None, request: ClientRequest::Barrier, patience_micros: None, reply };
    node.clients.try_send(first).expect("room for one");
    fixture.slot.fill(node);
    let early = fixture.ask("PUT", "/v1/kv/k", b"v").await;
    assert_eq!(early.problem(), (503, "starting".to_owned()));
    assert_eq!(early.header("infinitystore-served-by"), None);
    assert_eq!(fixture.ask("GET", "/livez", b"").await.code, 200);
    facts.note_security(Store::new().security(), true);
    let late = fixture.ask("PUT", "/v1/kv/k", b"v").await;
    assert_eq!(late.problem(), (503, "overloaded".to_owned()), "its queue is full");
    assert_eq!(late.header("infinitystore-served-by"), Some("node-1"));
}
