//! Ranges over `/v1`.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use serde_json::{Value, json};

async fn filled() -> Fixture {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for key in ["a/1", "a/2", "a/b/3", "a/b/4", "b"] {
        assert_eq!(fixture.ask("PUT", &format!("/v1/kv/{key}"), key.as_bytes()).await.code, 200);
    }
    fixture
}

fn keys(page: &Value) -> Vec<&str> {
    page["kvs"].as_array().expect("keys").iter().map(|key| key["key"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn ranges_are_listed() {
    let fixture = filled().await;
    for (query, expected, count) in [
        ("", vec!["a/1", "a/2", "a/b/3", "a/b/4", "b"], 5),
        ("?prefix=a/", vec!["a/1", "a/2", "a/b/3", "a/b/4"], 4),
        ("?prefix64=YS8=", vec!["a/1", "a/2", "a/b/3", "a/b/4"], 4),
        ("?prefix=a/&limit=2", vec!["a/1", "a/2"], 4),
        ("?start=a/2&end=a/b/4", vec!["a/2", "a/b/3"], 2),
        ("?start=a/b", vec!["a/b/3", "a/b/4", "b"], 3),
        ("?end=a/2", vec!["a/1"], 1),
        ("?start=a/b&end=&keys_only", vec!["a/b/3", "a/b/4", "b"], 3),
        ("?prefix=a/&at=1", vec!["a/1"], 1),
        ("?prefix=zzz&level=local", vec![], 0),
    ] {
        let answered = fixture.ask("GET", &format!("/v1/kv{query}"), b"").await;
        let page = answered.json();
        assert_eq!((keys(&page), &page["count"]), (expected, &json!(count)), "{query}");
        assert_eq!(answered.header("infinitystore-revision"), Some("5"), "{query}");
    }
    let page = fixture.ask("GET", "/v1/kv?start=b", b"").await;
    let one = "{\"revision\":5,\"kvs\":[{\"key\":\"b\",\"value\":\"b\",\"create_revision\":5,\"mod_revision\":5,\"version\":1,\"lease\":0}],\"count\":1,\"more\":false}\n";
    assert_eq!(page.text(), one);
    let page = fixture.ask("GET", "/v1/kv?prefix=a/&count_only=true", b"").await;
    assert_eq!(page.text(), "{\"revision\":5,\"count\":4,\"more\":false}\n");
    let page = fixture.ask("GET", "/v1/kv?prefix=a/&delimiter=/&keys_only", b"").await.json();
    assert_eq!((keys(&page), &page["prefixes"]), (vec!["a/1", "a/2"], &json!(["a/b/"])));
    assert!(page["kvs"][0].get("value").is_none());
}

#[tokio::test]
async fn the_pages_of_a_scan_are_one_state() {
    let fixture = filled().await;
    let mut target = "/v1/kv?prefix=a/&limit=1&keys_only".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = fixture.ask("GET", &target, b"").await.json();
        assert_eq!((&page["revision"], &page["count"]), (&json!(5), &json!(4)), "{target}");
        assert!(page["kvs"][0].get("value").is_none(), "the cursor says what is wanted");
        seen.extend(keys(&page).iter().map(|key| (*key).to_owned()));
        let Some(cursor) = page["cursor"].as_str() else { break };
        target = format!("/v1/kv?cursor={cursor}&limit=2");
        // What changes meanwhile is not in the pages that follow.
        fixture.ask("PUT", &format!("/v1/kv/a/0{}", seen.len()), b"").await;
        fixture.ask("PUT", &format!("/v1/kv/a/z{}", seen.len()), b"").await;
        fixture.ask("DELETE", "/v1/kv/a/b/4", b"").await;
    }
    assert_eq!(seen, ["a/1", "a/2", "a/b/3", "a/b/4"]);
    fixture.ask("POST", "/v1/compact", b"{\"revision\":6}").await;
    assert_eq!(fixture.ask("GET", &target, b"").await.problem(), (410, "compacted".to_owned()));
}

#[tokio::test]
async fn ranges_are_deleted_when_they_are_named() {
    let fixture = filled().await;
    for (query, code) in [
        ("", "missing-parameter"),
        ("?prefix=", "missing-parameter"),
        ("?start=&end=", "missing-parameter"),
        ("?prefix=a&all", "conflicting-parameters"),
        ("?prefix=a&start=b", "conflicting-parameters"),
        ("?key=a&prefix=b", "conflicting-parameters"),
        ("?start=b&end=a", "empty-range"),
        ("?start=b&end=b", "empty-range"),
        ("?key=", "empty-key"),
        ("?key64=%", "bad-encoding"),
        ("?key64=!", "bad-base64"),
        ("?all=maybe", "bad-parameter"),
        ("?everything", "unknown-parameter"),
    ] {
        let answered = fixture.ask("DELETE", &format!("/v1/kv{query}"), b"").await;
        assert_eq!(answered.problem(), (400, code.to_owned()), "{query}");
        assert_eq!(answered.json()["outcome"], "not-applied", "{query}");
    }
    let conditional = fixture.ask_with("DELETE", "/v1/kv?prefix=a", "if-match: *\r\n", b"").await;
    assert_eq!(conditional.problem(), (400, "bad-condition".to_owned()));
    assert_eq!(fixture.ask("DELETE", "/v1/kv?key=b", b"").await.text(), "{\"revision\":6,\"deleted\":1}\n");
    assert_eq!(
        fixture.ask("DELETE", "/v1/kv?prefix=a/b/", b"").await.text(),
        "{\"revision\":7,\"deleted\":2}\n"
    );
    assert_eq!(
        fixture.ask("DELETE", "/v1/kv?all=true", b"").await.text(),
        "{\"revision\":8,\"deleted\":2}\n"
    );
}

#[tokio::test]
async fn a_range_that_makes_no_sense_is_refused() {
    let fixture = filled().await;
    for (query, status, code) in [
        ("prefix=a&end=b", 400, "conflicting-parameters"),
        ("prefix=a&prefix64=YQ", 400, "conflicting-parameters"),
        ("key=a&limit=1", 400, "conflicting-parameters"),
        ("keys_only&count_only", 400, "conflicting-parameters"),
        ("prefix=a&wait=1s", 400, "conflicting-parameters"),
        ("cursor=AQAD&prefix=a", 400, "conflicting-parameters"),
        ("cursor=AQAD&at=1", 400, "conflicting-parameters"),
        ("cursor=AQAD", 400, "bad-cursor"),
        ("cursor=", 400, "bad-cursor"),
        ("cursor=!", 400, "bad-cursor"),
        ("limit=0", 400, "bad-parameter"),
        ("limit=1e3", 400, "bad-parameter"),
        ("limit=-1", 400, "bad-parameter"),
        ("delimiter=", 400, "bad-parameter"),
        ("at=77", 409, "future-revision"),
        ("start=b&end=a", 400, "empty-range"),
        ("max_staleness=0s", 503, "stale"),
        ("prefixx=a", 400, "unknown-parameter"),
    ] {
        let answered = fixture.ask("GET", &format!("/v1/kv?{query}"), b"").await;
        assert_eq!(answered.problem(), (status, code.to_owned()), "{query}");
        assert!(answered.json().get("outcome").is_none(), "{query}");
    }
    let unknown = fixture.ask("GET", "/v1/kv?prefixx=a", b"").await.json();
    assert!(unknown["detail"].as_str().is_some_and(|detail| detail.contains("prefix, prefix64, start")));
}
