//! Transactions, compaction and settings over `/v1`.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use serde_json::json;

#[tokio::test]
async fn a_transaction_takes_one_branch() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let body = br#"{"if":[{"key":"a","version":0}],"then":[{"put":{"key":"a","value":"x"}},
        {"put":{"key64":"/w==","value64":"AP8="}},{"get":{"prefix":""}},{"delete":{"key":"a"}}],
        "else":[{"get":{"key":"a","keys_only":true}}]}"#;
    let first = fixture.ask("POST", "/v1/txn", body).await;
    let expected = "{\"revision\":1,\"succeeded\":true,\"results\":[{\"put\":{\"version\":1}},{\"put\":{\"version\":1}},\
        {\"get\":{\"revision\":1,\"kvs\":[{\"key\":\"a\",\"value\":\"x\",\"create_revision\":1,\"mod_revision\":1,\"version\":1,\"lease\":0},\
        {\"key64\":\"/w==\",\"value64\":\"AP8=\",\"create_revision\":1,\"mod_revision\":1,\"version\":1,\"lease\":0}],\"count\":2,\"more\":false}}";
    assert_eq!(first.problem(), (400, "put-into-deleted".to_owned()), "a key is put and deleted");
    let body = String::from_utf8_lossy(body).replace(",{\"delete\":{\"key\":\"a\"}}", "");
    let first = fixture.ask("POST", "/v1/txn", body.as_bytes()).await;
    assert_eq!(first.text(), format!("{expected}]}}\n"));
    let second = fixture.ask("POST", "/v1/txn", body.as_bytes()).await.json();
    assert_eq!(
        (&second["succeeded"], &second["revision"]),
        (&json!(false), &json!(1)),
        "a read makes no revision"
    );
    assert_eq!(second["results"][0]["get"]["kvs"][0]["key"], "a");
    assert!(second["results"][0]["get"]["kvs"][0].get("value").is_none());
}

#[tokio::test]
async fn comparisons_compare_what_they_say() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for value in ["1", "2"] {
        assert_eq!(fixture.ask("PUT", "/v1/kv/k", value.as_bytes()).await.code, 200);
    }
    for (compare, holds) in [
        (r#"{"key":"k","value":"2"}"#, true),
        (r#"{"key":"k","value":"1"}"#, false),
        (r#"{"key":"k","value64":"Mg=="}"#, true),
        (r#"{"key":"k","version":2,"create_revision":1,"mod_revision":2,"lease":0}"#, true),
        (r#"{"key":"k","version":2,"create_revision":1,"mod_revision":1}"#, false),
        (r#"{"key64":"aw","target":"mod_revision","op":">","to":1}"#, true),
        (r#"{"key":"k","target":"version","op":"<","to":2}"#, false),
        (r#"{"key":"k","target":"value","op":"!=","to":"x"}"#, true),
        (r#"{"key":"k","target":"value","to64":"Mg"}"#, true),
        (r#"{"key":"none","target":"value","op":"!=","to":"x"}"#, false),
        (r#"{"prefix":"","target":"lease","op":"=","to":0}"#, true),
        (r#"{"start":"a","end":"z","version":7}"#, false),
    ] {
        let body = format!("{{\"if\":[{compare}]}}");
        let answered = fixture.ask("POST", "/v1/txn", body.as_bytes()).await;
        assert_eq!(answered.code, 200, "{compare}: {}", answered.text());
        assert_eq!(answered.json()["succeeded"], holds, "{compare}");
    }
    let nested = br#"{"then":[{"txn":{"if":[{"key":"k","version":9}],"else":[{"get":{"key":"k","count_only":true}}]}}]}"#;
    let answered = fixture.ask("POST", "/v1/txn", nested).await;
    let expected = "{\"revision\":2,\"succeeded\":true,\"results\":[{\"txn\":{\"succeeded\":false,\"results\":[{\"get\":{\"revision\":2,\"count\":1,\"more\":false}}]}}]}\n";
    assert_eq!(answered.text(), expected);
}

#[tokio::test]
async fn a_transaction_that_makes_no_sense_is_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let many = format!("{{\"then\":[{}]}}", vec![r#"{"get":{"key":"k"}}"#; 513].join(","));
    let flood = format!("{{\"then\":[{}]}}", vec!["{}"; 100_000].join(","));
    let deep = format!("{}{}", r#"{"then":[{"txn":"#.repeat(5), "{}".to_owned() + &"}]}".repeat(5));
    let deeper = format!("{}{}", r#"{"then":[{"txn":"#.repeat(500), "{}".to_owned() + &"}]}".repeat(500));
    for (body, status, code) in [
        ("", 400, "bad-json"),
        ("[]", 400, "bad-json"),
        ("{", 400, "bad-json"),
        (r#"{"iff":[]}"#, 400, "bad-field"),
        (r#"{"then":[{"put":{"key":"a"}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"put":{"value":"a"}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"put":{"key":"","value":"a"}}]}"#, 400, "empty-key"),
        (r#"{"then":[{"put":{"key":"a","key":"b","value":"a"}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"put":{"key":"a","key64":"Yg","value":"a"}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"put":{"key":"a","value64":"!"}}]}"#, 400, "bad-base64"),
        (r#"{"then":[{"put":{"key":"a","value":1}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"put":{"key":"a","value":"","lease":7}}]}"#, 404, "no-lease"),
        (r#"{"then":[{"put":{"key":"a","value":""},"get":{"key":"a"}}]}"#, 400, "bad-json"),
        (r#"{"then":[{"burn":{"key":"a"}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"get":{}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"get":{"key":"a","prefix":"a"}}]}"#, 400, "bad-field"),
        (r#"{"then":[{"get":{"start":"b","end":"a"}}]}"#, 400, "empty-range"),
        (r#"{"then":[{"get":{"key":"a","at":77}}]}"#, 409, "future-revision"),
        (r#"{"if":[{"key":"a"}]}"#, 400, "bad-field"),
        (r#"{"if":[{"key":"a","target":"value"}]}"#, 400, "bad-field"),
        (r#"{"if":[{"key":"a","op":"<","to":1}]}"#, 400, "bad-field"),
        (r#"{"if":[{"key":"a","target":"version","op":"<=","to":1}]}"#, 400, "bad-field"),
        (r#"{"if":[{"key":"a","target":"version","to":"1"}]}"#, 400, "bad-field"),
        (r#"{"if":[{"key":"a","target":"value","to":1}]}"#, 400, "bad-field"),
        (r#"{"then":[{"put":{"key":"a","value":"1"}},{"put":{"key":"a","value":"2"}}]}"#, 400, "put-twice"),
        (&many, 400, "too-many-steps"),
        (&flood, 400, "too-many-steps"),
        (&deep, 400, "too-deep"),
        (&deeper, 400, "bad-json"),
    ] {
        let answered = fixture.ask("POST", "/v1/txn", body.as_bytes()).await;
        assert_eq!(answered.problem(), (status, code.to_owned()), "{body:.80}: {}", answered.text());
        assert_eq!(answered.json()["outcome"], "not-applied", "{body:.80}");
    }
    assert_eq!(fixture.ask("GET", "/v1/kv", b"").await.json()["count"], 0);
}

#[tokio::test]
async fn settings_are_changed_all_at_once() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let before = fixture.ask("GET", "/v1/settings", b"").await;
    assert_eq!(
        before.text(),
        "{\"history_bytes\":67108864,\"quota_bytes\":4294967296,\"answers_bytes\":16777216}\n"
    );
    let part = fixture.ask("PUT", "/v1/settings", b"{\"quota_bytes\":5}").await;
    assert_eq!(part.problem(), (400, "bad-field".to_owned()));
    let other = fixture.ask("PUT", "/v1/settings", b"{\"quota\":5}").await;
    assert_eq!(other.problem(), (400, "bad-field".to_owned()));
    let all = br#"{"history_bytes":2000000,"quota_bytes":5,"answers_bytes":3000000}"#;
    let changed = fixture.ask("PUT", "/v1/settings", all).await;
    assert_eq!(changed.text(), "{\"history_bytes\":2000000,\"quota_bytes\":5,\"answers_bytes\":3000000}\n");
    assert_eq!(fixture.ask("GET", "/v1/settings", b"").await.body, changed.body);
    let full = fixture.ask("PUT", "/v1/kv/k", b"larger than that").await;
    assert_eq!(full.problem(), (507, "quota-exceeded".to_owned()));
}

#[tokio::test]
async fn what_was_before_a_revision_is_forgotten() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for value in ["1", "2", "3"] {
        assert_eq!(fixture.ask("PUT", "/v1/kv/k", value.as_bytes()).await.code, 200);
    }
    assert_eq!(fixture.ask("POST", "/v1/compact", b"{\"revision\":2}").await.text(), "{\"compacted\":2}\n");
    assert_eq!(fixture.ask("GET", "/v1/kv/k?at=2", b"").await.body, b"2");
    for (body, status, code) in [
        ("{\"revision\":1}", 410, "compacted"),
        ("{\"revision\":9}", 409, "future-revision"),
        ("{\"revision\":\"2\"}", 400, "bad-field"),
        ("{}", 400, "bad-field"),
        ("2", 400, "bad-json"),
    ] {
        let refused = fixture.ask("POST", "/v1/compact", body.as_bytes()).await;
        assert_eq!(refused.problem(), (status, code.to_owned()), "{body}");
    }
    let gone = fixture.ask("GET", "/v1/kv/k?at=1", b"").await;
    assert_eq!((gone.problem(), &gone.json()["revision"]), ((410, "compacted".to_owned()), &json!(2)));
    let large = [b" ".repeat(70_000).as_slice(), b"{\"revision\":2}"].concat();
    assert_eq!(
        fixture.ask("POST", "/v1/compact", &large).await.problem(),
        (413, "body-too-large".to_owned())
    );
}
