//! Bounds of `/v1`: what is refused, and how much memory answers take.

use crate::api::HttpOptions;
use crate::api::http::budget::MemoryUse;
use crate::api::http::tests::fixture::Fixture;
use crate::kv::VALUE_BYTES_MAX;
use serde_json::json;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn an_empty_end_is_no_range_without_an_end() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for key in ["jobs/1", "users/1"] {
        assert_eq!(fixture.ask("PUT", &format!("/v1/kv/{key}"), b"v").await.code, 200);
    }
    for (method, target, body) in [
        ("DELETE", "/v1/kv?start=jobs/&end=", ""),
        ("DELETE", "/v1/kv?start=jobs/&end64=", ""),
        ("DELETE", "/v1/kv?start=&end=", ""),
        ("GET", "/v1/kv?start=jobs/&end=", ""),
        ("GET", "/v1/watch?start=jobs/&end=", ""),
        ("POST", "/v1/range", r#"{"start":"jobs/","end":""}"#),
        ("POST", "/v1/txn", r#"{"then":[{"delete":{"start":"jobs/","end":""}}]}"#),
        ("POST", "/v1/txn", r#"{"then":[{"delete":{"start":"jobs/","end64":""}}]}"#),
        ("POST", "/v1/txn", r#"{"then":[{"delete":{"prefix":""}}]}"#),
        ("POST", "/v1/auth/roles", r#"{"name":"a","grants":[{"access":"write","start":"jobs/","end":""}]}"#),
        (
            "POST",
            "/v1/auth/roles",
            r#"{"name":"a","grants":[{"access":"write","start":"jobs/","end64":""}]}"#,
        ),
    ] {
        let refused = fixture.ask(method, target, body.as_bytes()).await;
        assert_eq!(refused.problem(), (400, "empty-range".to_owned()), "{method} {target} {body}");
    }
    assert_eq!(fixture.ask("GET", "/v1/kv?count_only", b"").await.json()["count"], 2);
    let all = r#"{"then":[{"delete":{"start":""}}]}"#;
    assert_eq!(fixture.ask("POST", "/v1/txn", all.as_bytes()).await.code, 200);
    assert_eq!(fixture.ask("GET", "/v1/kv?count_only", b"").await.json()["count"], 0);
}

#[tokio::test]
async fn a_revision_that_can_never_be_is_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let most = u64::MAX;
    for target in
        ["/v1/kv/k?wait=1h&after=", "/v1/kv/k?at=", "/v1/kv?prefix=k&at=", "/v1/watch?prefix=k&from="]
    {
        let refused = fixture.ask("GET", &format!("{target}{most}"), b"").await;
        assert_eq!(refused.problem(), (400, "bad-parameter".to_owned()), "{target}");
    }
    let refused = fixture.ask_with("GET", "/v1/watch", &format!("last-event-id: {most}\r\n"), b"").await;
    assert_eq!(refused.problem(), (400, "bad-event-id".to_owned()));
}

#[tokio::test]
async fn a_scan_with_an_enormous_limit_goes_on() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for key in ["a", "b", "c"] {
        assert_eq!(fixture.ask("PUT", &format!("/v1/kv/{key}"), &[b'v'; 700_000]).await.code, 200);
    }
    for limit in [1 << 62, u64::MAX] {
        let page = fixture.ask("GET", &format!("/v1/kv?limit={limit}"), b"").await.json();
        let cursor = page["cursor"].as_str().expect("it does not fit into one page");
        let rest = fixture.ask("GET", &format!("/v1/kv?cursor={cursor}&limit={limit}"), b"").await.json();
        assert_eq!((&rest["kvs"][0]["key"], &rest["more"]), (&json!("c"), &json!(false)), "{limit}");
    }
}

#[tokio::test]
async fn settings_that_would_undo_a_promise_are_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let mib = 1 << 20;
    for (history, answers, is_good) in [
        (64, 16 * mib, false),
        (mib - 1, 16 * mib, false),
        (64 * mib, 0, false),
        (64 * mib, mib - 1, false),
        (u64::MAX, mib, false),
        (mib, u64::MAX, false),
        (mib, mib, true),
    ] {
        let body = format!(r#"{{"history_bytes":{history},"quota_bytes":5,"answers_bytes":{answers}}}"#);
        let answered = fixture.ask("PUT", "/v1/settings", body.as_bytes()).await;
        if is_good {
            assert_eq!(answered.code, 200, "{body}");
        } else {
            assert_eq!(answered.problem(), (400, "bad-parameter".to_owned()), "{body}");
            assert_eq!(answered.json()["outcome"], "not-applied", "{body}");
        }
    }
}

#[tokio::test]
async fn many_reads_of_one_large_key_make_one_small_answer() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    assert_eq!(fixture.ask("PUT", "/v1/kv/big", &[0; VALUE_BYTES_MAX]).await.code, 200);
    let body = format!(r#"{{"then":[{}]}}"#, vec![r#"{"get":{"key":"big"}}"#; 511].join(","));
    let read = fixture.ask("POST", "/v1/txn", body.as_bytes()).await;
    assert_eq!(read.code, 200);
    assert!(read.body.len() < 8 << 20, "{} bytes", read.body.len());
    let results = &read.json()["results"];
    assert_eq!(results[0]["get"]["kvs"].as_array().map(Vec::len), Some(1));
    let cut = &results[510]["get"];
    assert_eq!((&cut["kvs"], &cut["count"], &cut["more"]), (&json!([]), &json!(1), &json!(true)));
}

#[tokio::test]
async fn a_transaction_whose_answer_would_find_no_room_is_not_begun() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let budget = &fixture.server.context.budget;
    let of_one = budget.answer_bytes_max();
    let of_another = budget.bytes_max() / 4 * 3 - of_one - 1000;
    let others = [of_one, of_another]
        .map(|bytes| budget.reserve(&Arc::default(), MemoryUse::Answer, bytes).expect("it is free"));
    let body = br#"{"then":[{"put":{"key":"k","value":"v"}},{"get":{"key":"k"}}]}"#;
    let refused = fixture.ask("POST", "/v1/txn", body).await;
    assert_eq!(refused.problem(), (503, "no-memory".to_owned()));
    assert_eq!(refused.json()["outcome"], "not-applied");
    assert_eq!(fixture.ask("GET", "/v1/kv/k", b"").await.code, 404);
    drop(others);
    assert_eq!(fixture.ask("POST", "/v1/txn", body).await.code, 200);
}

#[tokio::test]
async fn a_watch_ends_with_a_code_where_a_revision_is_larger_than_the_memory() {
    let options = HttpOptions { memory_bytes_max: 8 << 20, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    for key in ["a", "b", "c"] {
        assert_eq!(fixture.ask("PUT", &format!("/v1/kv/{key}"), &[0; 400_000]).await.code, 200);
    }
    assert_eq!(fixture.ask("DELETE", "/v1/kv?all=true", b"").await.code, 200);
    let mut watch = fixture.connect().await;
    watch
        .write_all(b"GET /v1/watch?from=1&previous HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut all = Vec::new();
    watch.read_to_end(&mut all).await.expect("it ends");
    let text = String::from_utf8_lossy(&all);
    for id in 1..=3 {
        assert!(text.contains(&format!("id: {id}\ndata: ")), "revision {id} is told");
    }
    let last = text.split("event: failed\n").nth(1).expect("it ends with a failure");
    assert!(last.starts_with("data: {\"revision\":4,\"code\":\"revision-too-large\""), "{last:.200}");
}
