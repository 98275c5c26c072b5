//! Locks and elections whose clients and nodes come and go.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::{Answered, Fixture};
use crate::api::http::tests::http2_kit::Client2;
use crate::runtime::Env;
use serde_json::{Value, json};
use std::fmt::Write as _;
use tokio::io::AsyncWriteExt;

/// A lease that a client has chosen.
const CHOSEN: u64 = 1_000_000_000_000_000;
const WAITS: &str = "/v1/locks/n?wait=1h";

async fn grant(fixture: &Fixture, id: u64) {
    let body = format!("{{\"ttl\":10,\"id\":{id}}}");
    assert_eq!(fixture.ask("POST", "/v1/leases", body.as_bytes()).await.code, 200);
}

/// Waits until so many wait for the lock.
async fn until_waiting(fixture: &Fixture, count: u64) {
    while fixture.ask("GET", "/v1/locks/n", b"").await.json()["waiting"] != count {}
}

async fn take(fixture: &Fixture) -> Value {
    let taken = fixture.ask("POST", "/v1/locks/n", b"").await;
    assert_eq!(taken.code, 200, "{}", taken.text());
    taken.json()
}

async fn release(fixture: &Fixture, won: &Value) -> Answered {
    fixture.ask("DELETE", &format!("/v1/locks/n?lease={}", won["lease"]), b"").await
}

/// Sends a request and goes away once it waits for the lock, without the answer.
async fn ask_and_go(fixture: &Fixture, target: &str, headers: &str) {
    let mut stream = fixture.connect().await;
    let request = format!("POST {target} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    until_waiting(fixture, 1).await;
}

#[tokio::test]
async fn a_candidate_outlives_the_node_that_it_waits_at() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let other = fixture.beside().await;
    grant(&fixture, CHOSEN).await;
    for (target, headers) in [
        (WAITS.to_owned(), "idempotency-key: one\r\n"),
        (format!("{WAITS}&lease={CHOSEN}"), "idempotency-key: two\r\n"),
        (format!("{WAITS}&lease={CHOSEN}"), ""),
    ] {
        let node = fixture.beside().await;
        let holder = take(&other).await;
        let far = node.env.now().plus(3_600_000_000);
        let (stopped, ()) = tokio::join!(node.ask_with("POST", &target, headers, b"me"), async {
            until_waiting(&other, 1).await;
            node.server.stop(far).await;
        });
        assert_eq!(stopped.problem(), (503, "stopping".to_owned()));
        assert_eq!(stopped.json()["outcome"], "unknown", "it may still get it");
        // Another one comes, and stands behind it.
        let (later, again) = tokio::join!(
            async {
                assert_eq!(other.ask("GET", "/v1/locks/n", b"").await.json()["waiting"], 1);
                other.ask("POST", WAITS, b"").await.json()
            },
            async {
                until_waiting(&other, 2).await;
                let (again, _) = tokio::join!(other.ask_with("POST", &target, headers, b"me"), async {
                    assert_eq!(release(&other, &holder).await.code, 200);
                });
                assert_eq!(again.code, 200, "{target}: {}", again.text());
                assert_eq!(release(&other, &again.json()).await.code, 200);
                again.json()
            }
        );
        assert!(again["fence"].as_u64() < later["fence"].as_u64(), "in the order in which they came");
        assert_eq!(release(&other, &later).await.code, 200);
    }
}

#[tokio::test]
async fn a_candidate_that_nobody_can_come_back_to_leaves_with_its_node() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let other = fixture.beside().await;
    take(&other).await;
    let far = fixture.env.now().plus(3_600_000_000);
    let (stopped, ()) = tokio::join!(fixture.ask("POST", WAITS, b""), async {
        until_waiting(&other, 1).await;
        fixture.server.stop(far).await;
    });
    assert_eq!(stopped.json()["outcome"], "not-applied");
    assert_eq!(other.ask("GET", "/v1/locks/n", b"").await.json()["waiting"], 0);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_queue() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let holder = take(&fixture).await;
    ask_and_go(&fixture, WAITS, "").await;
    until_waiting(&fixture, 0).await;
    // Over HTTP/2 a client takes one request back.
    let client = Client2::connect(&fixture).await;
    let asked = tokio::spawn(client.send("POST", WAITS, &[], b""));
    until_waiting(&fixture, 1).await;
    asked.abort();
    until_waiting(&fixture, 0).await;
    assert_eq!(release(&fixture, &holder).await.code, 200);
    assert_eq!(fixture.ask("POST", WAITS, b"").await.code, 200, "nobody is before it");
}

#[tokio::test]
async fn a_client_that_goes_away_and_can_come_back_keeps_its_place() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    grant(&fixture, CHOSEN).await;
    for (target, headers) in
        [(WAITS.to_owned(), "idempotency-key: one\r\n"), (format!("{WAITS}&lease={CHOSEN}"), "")]
    {
        let holder = take(&fixture).await;
        ask_and_go(&fixture, &target, headers).await;
        fixture.wait_until_all_closed().await;
        assert_eq!(release(&fixture, &holder).await.code, 200);
        let again = fixture.ask_with("POST", &target, headers, b"").await;
        assert_eq!(again.code, 200, "{}", again.text());
        assert_eq!(release(&fixture, &again.json()).await.code, 200);
    }
}

#[tokio::test]
async fn a_long_poll_ends_with_its_client() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mut stream = fixture.connect().await;
    let request = b"GET /v1/kv/k?wait=1h HTTP/1.1\r\nhost: test\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    while fixture.server.context.connections().open.is_empty() {
        tokio::task::yield_now().await;
    }
    stream.shutdown().await.expect("it is open");
    fixture.wait_until_all_closed().await;
}

#[tokio::test]
async fn a_candidate_keeps_its_place_between_two_requests_if_it_wants_to() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    grant(&fixture, CHOSEN).await;
    let holder = take(&fixture).await;
    let mine = format!("/v1/locks/n?lease={CHOSEN}");
    for wait in ["", "&wait=10ms"] {
        let held = fixture.ask("POST", &format!("{mine}&stay{wait}"), b"").await;
        assert_eq!(held.problem(), (409, "held".to_owned()));
        assert_eq!(held.json()["outcome"], "unknown", "it may still get it");
    }
    until_waiting(&fixture, 1).await;
    let (later, first) = tokio::join!(fixture.ask("POST", WAITS, b""), async {
        until_waiting(&fixture, 2).await;
        let again = format!("{mine}&wait=1h&stay");
        let (first, _) = tokio::join!(fixture.ask("POST", &again, b""), release(&fixture, &holder));
        assert_eq!(first.code, 200, "it came before");
        assert_eq!(release(&fixture, &first.json()).await.code, 200);
        first
    });
    assert!(first.json()["fence"].as_u64() < later.json()["fence"].as_u64());
    // Without that it leaves the queue.
    let held = fixture.ask("POST", &format!("{mine}&wait=10ms"), b"").await;
    assert_eq!((held.code, &held.json()["outcome"]), (409, &json!("not-applied")));
    assert_eq!(fixture.ask("GET", "/v1/locks/n", b"").await.json()["waiting"], 0);
    assert_eq!(fixture.ask("POST", "/v1/locks/n?stay", b"").await.problem().1, "missing-parameter");
}

#[tokio::test]
async fn a_place_that_was_given_up_is_told_apart_from_a_lease_that_ended() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (id, end, code) in [
        (CHOSEN, format!("/v1/locks/n?lease={CHOSEN}"), "not-holder"),
        (CHOSEN + 1, format!("/v1/leases/{}", CHOSEN + 1), "no-lease"),
    ] {
        grant(&fixture, id).await;
        let holder = take(&fixture).await;
        let target = format!("{WAITS}&lease={id}");
        let (waiting, ()) = tokio::join!(fixture.ask("POST", &target, b""), async {
            until_waiting(&fixture, 1).await;
            assert_eq!(fixture.ask("DELETE", &end, b"").await.code, 200);
            release(&fixture, &holder).await;
        });
        // It looks when the one before it has gone.
        assert_eq!(waiting.problem(), (404, code.to_owned()));
    }
}

#[tokio::test]
async fn a_lock_is_never_held_without_a_lease() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for path in ["/v1/locks/n?lease=0", "/v1/elections/n?lease=0"] {
        for method in ["POST", "PUT", "DELETE"] {
            let refused = fixture.ask(method, path, b"").await;
            assert_eq!(refused.problem(), (400, "bad-parameter".to_owned()), "{method} {path}");
        }
    }
    // A candidate's key of an import has no lease.
    let left = "/v1/kv/%00lock/n%000000000000000001";
    assert_eq!(fixture.ask("PUT", left, b"").await.code, 200);
    assert_eq!(take(&fixture).await["lease"], 1);
    assert_eq!(fixture.ask("GET", "/v1/leases/1", b"").await.json()["count"], 1);
    assert_eq!(fixture.ask("DELETE", "/v1/leases/1", b"").await.code, 200);
    take(&fixture).await;
}

#[tokio::test]
async fn a_long_queue_is_looked_at_to_its_end() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    // More than a page has room for.
    let name = "n".repeat(256);
    let path = format!("/v1/locks/{name}");
    grant(&fixture, u64::MAX).await;
    let first = fixture.ask("POST", &format!("{path}?lease={}", u64::MAX), b"me").await;
    assert_eq!(first.json()["fence"], 1);
    for round in 0..8 {
        let mut puts = String::new();
        for number in 0..500 {
            let comma = if number > 0 { "," } else { "" };
            let lease = round * 500 + number + 1000;
            write!(
                puts,
                "{comma}{{\"put\":{{\"key\":\"\\u0000lock/{name}\\u0000{lease:016x}\",\"value\":\"\"}}}}"
            )
            .expect("a string");
        }
        let txn = format!("{{\"then\":[{puts}]}}");
        assert_eq!(fixture.ask("POST", "/v1/txn", txn.as_bytes()).await.code, 200);
    }
    let holder = fixture.ask("GET", &path, b"").await.json();
    assert_eq!((&holder["value"], &holder["waiting"]), (&json!("me"), &json!(4000)));
    let held = fixture.ask("POST", &path, b"").await;
    assert_eq!((held.problem().1.as_str(), &held.json()["present"]["lease"]), ("held", &json!(u64::MAX)));
    let proclaimed = fixture.ask("PUT", &format!("{path}?lease={}", u64::MAX), b"still me").await;
    assert_eq!(proclaimed.code, 200, "{}", proclaimed.text());
}

#[tokio::test]
async fn a_lease_of_a_write_that_may_come_again_stays() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    // No leader takes the write, though one has made the lease.
    let target = "/v1/kv/fails:%20no%20leader?ttl=10s";
    for (headers, leases) in [("", 0), ("idempotency-key: one\r\n", 1)] {
        let refused = fixture.ask_with("PUT", target, headers, b"v").await;
        assert_eq!(refused.problem(), (503, "no-leader".to_owned()));
        let list = fixture.ask("GET", "/v1/leases", b"").await.json();
        assert_eq!(list["leases"].as_array().map(Vec::len), Some(leases), "{headers}");
    }
}

#[tokio::test]
async fn chosen_leases_and_those_that_the_store_chooses_are_apart() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for id in [1, 80, CHOSEN - 1] {
        let body = format!("{{\"ttl\":10,\"id\":{id}}}");
        let refused = fixture.ask("POST", "/v1/leases", body.as_bytes()).await;
        assert_eq!(refused.problem(), (400, "bad-parameter".to_owned()), "{id}");
    }
    grant(&fixture, CHOSEN).await;
    let chosen = fixture.ask("POST", "/v1/leases", b"{\"ttl\":10}").await.json();
    assert!(chosen["id"].as_u64() < Some(CHOSEN), "{chosen}");
}
