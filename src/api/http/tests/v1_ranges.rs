//! Ranges over `/v1`.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use crate::codec::to_base64;
use crate::kv::KEY_BYTES_MAX;
use crate::raft::Time;
use crate::runtime::Env;
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
        ("?start=a/b&keys_only", vec!["a/b/3", "a/b/4", "b"], 3),
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
        ("?start=", "missing-parameter"),
        ("?prefix=a&all", "conflicting-parameters"),
        ("?prefix=a&start=b", "conflicting-parameters"),
        ("?key=a&prefix=b", "conflicting-parameters"),
        ("?key=a&all=true", "conflicting-parameters"),
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

#[tokio::test]
async fn a_range_may_be_asked_for_with_a_body() {
    let fixture = filled().await;
    let ask = async |body: &str| fixture.ask("POST", "/v1/range", body.as_bytes()).await;
    for (body, query) in [
        ("{}", ""),
        (r#"{"prefix":"a/"}"#, "?prefix=a/"),
        (r#"{"prefix64":"YS8=","limit":2,"keys_only":true}"#, "?prefix=a/&limit=2&keys_only"),
        (r#"{"start":"a/2","end":"a/b/4","at":"4"}"#, "?start=a/2&end=a/b/4&at=4"),
        (r#"{"prefix":"a/","count_only":true,"level":"local"}"#, "?prefix=a/&count_only&level=local"),
        (r#"{"prefix":"a/","delimiter":"/"}"#, "?prefix=a/&delimiter=/"),
        (r#"{"key":"b"}"#, "?key=b"),
    ] {
        let expected = fixture.ask("GET", &format!("/v1/kv{query}"), b"").await;
        assert_eq!((ask(body).await.text(), expected.code), (expected.text(), 200), "{body}");
    }
    for (body, code) in [
        ("[]", "bad-json"),
        ("{", "bad-json"),
        (r#"{"limit":null}"#, "bad-field"),
        (r#"{"limit":-1}"#, "bad-field"),
        (r#"{"limit":1.5}"#, "bad-field"),
        (r#"{"prefix":["a"]}"#, "bad-field"),
        (r#"{"limit":1,"limit":2}"#, "repeated-parameter"),
        (r#"{"prefix":"a","prefix64":"YQ=="}"#, "conflicting-parameters"),
        (r#"{"what":1}"#, "unknown-parameter"),
        (r#"{"limit":0}"#, "bad-parameter"),
        (r#"{"cursor":"x"}"#, "bad-cursor"),
    ] {
        let (status, found) = ask(body).await.problem();
        assert_eq!((status, &*found), (400, code), "{body}");
    }
    let many = format!("{{{}}}", vec!["\"limit\":1"; 100].join(","));
    assert_eq!(ask(&many).await.problem(), (400, "bad-field".to_owned()));
}

/// The longest keys there are, of bytes that are no text: neither they nor a cursor that has three
/// of them fit into a URL.
#[tokio::test]
async fn keys_of_the_greatest_length_are_written_listed_and_read() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let long: Vec<Vec<u8>> =
        (0..5).map(|last| [&vec![0xff; KEY_BYTES_MAX - 1][..], &[last]].concat()).collect();
    let base64: Vec<String> = long.iter().map(|key| to_base64(key)).collect();
    for key in &base64 {
        let put = format!("{{\"then\":[{{\"put\":{{\"key64\":\"{key}\",\"value\":\"v\"}}}}]}}");
        assert_eq!(fixture.ask("POST", "/v1/txn", put.as_bytes()).await.code, 200);
    }
    assert_eq!(fixture.ask("GET", &format!("/v1/kv?key64={}", base64[0]), b"").await.code, 431);
    let one = format!("{{\"key64\":\"{}\"}}", base64[1]);
    assert_eq!(fixture.ask("POST", "/v1/range", one.as_bytes()).await.text(), "v");
    // A range with both bounds, and a delimiter as long.
    let (start, end) = (&base64[0], &base64[4]);
    let delimiter = to_base64(&vec![7; KEY_BYTES_MAX]);
    let mut body = format!(
        "{{\"start64\":\"{start}\",\"end64\":\"{end}\",\"delimiter64\":\"{delimiter}\",\"limit\":1,\"keys_only\":true}}"
    );
    let mut seen = Vec::new();
    loop {
        let page = fixture.ask("POST", "/v1/range", body.as_bytes()).await.json();
        seen.push(page["kvs"][0]["key64"].as_str().expect("a key").to_owned());
        let Some(cursor) = page["cursor"].as_str() else { break };
        body = format!("{{\"cursor\":\"{cursor}\"}}");
    }
    assert_eq!(seen, base64[..4]);
}

#[tokio::test]
async fn a_local_read_tells_how_old_it_may_be() {
    let fixture = filled().await;
    let age = async |target: &str| {
        let answered = fixture.ask("GET", target, b"").await;
        answered.header("infinitystore-age-ms").map(|age| age.parse::<u64>().expect("a number"))
    };
    assert_eq!(age("/v1/kv/b?level=local").await, None, "no leader was ever heard of");
    // The node proves it as it reads, and may have heard of a leader only just now.
    assert_ne!(age("/v1/kv/b?max_staleness=1h").await, None);
    let heard = fixture.env.now();
    fixture.node.facts().note_fresh(heard);
    for target in ["/v1/kv/b", "/v1/kv/none", "/v1/kv?prefix=a/", "/v1/leases", "/v1/settings"] {
        let separator = if target.contains('?') { '&' } else { '?' };
        for level in ["level=local", "max_staleness=1h"] {
            let told = age(&format!("{target}{separator}{level}")).await.expect(target);
            assert!(told <= fixture.env.now().since(heard).div_ceil(1000), "{target} {level}: {told}");
        }
        assert_eq!(age(target).await, None, "{target} is linearizable");
    }
    // The older, the more.
    fixture.node.facts().note_fresh(Time::new(0));
    let told = age("/v1/kv/b?level=local").await.expect("an age");
    assert!(told >= heard.get() / 1000);
}
