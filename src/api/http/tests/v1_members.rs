//! The members over `/v1`: what is asked of the node, and what it answers.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::Fixture;
use crate::runtime::Env;

#[tokio::test]
async fn the_members_are_listed_as_the_leader_or_the_node_sees_them() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let all = fixture.ask("GET", "/v1/members", b"").await;
    let expected = "{\"configuration\":7,\"committed\":true,\"joint\":false,\"told_by\":\"the leader\",\"members\":[{\"id\":2,\"name\":\"node-2\",\"raft_addr\":\"localhost:8010\",\"http_addr\":\"localhost:8011\",\"standing\":\"voter\",\"leader\":true,\"health\":\"ok\",\"match_index\":12,\"lag\":0,\"replication\":\"replicate\",\"silent_seconds\":0.001}]}\n";
    assert_eq!((all.text(), all.header("etag")), (expected, Some("\"7\"")));
    let own = fixture.ask("GET", "/v1/members?level=local", b"").await;
    assert_eq!(own.json()["told_by"], "this node");
}

#[tokio::test]
async fn the_members_are_listed_by_a_node_that_is_fresh_enough() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let stale = (503, "stale".to_owned());
    assert_eq!(fixture.ask("GET", "/v1/members?max_staleness=1h", b"").await.problem(), stale);
    fixture.node.facts.note_fresh(fixture.env.now());
    let fresh = fixture.ask("GET", "/v1/members?max_staleness=1h", b"").await;
    assert_eq!(fresh.json()["told_by"], "this node");
    assert!(fresh.header("infinitystore-age-ms").is_some());
    assert_eq!(fixture.ask("GET", "/v1/members?max_staleness=0", b"").await.problem(), stale);
    let own = fixture.ask("GET", "/v1/members?level=local", b"").await;
    assert!(own.header("infinitystore-age-ms").is_some());
    assert_eq!(fixture.ask("GET", "/v1/members", b"").await.header("infinitystore-age-ms"), None);
}

#[tokio::test]
async fn an_order_reaches_the_node_as_it_was_given() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (method, target, headers, body, order) in [
        (
            "POST",
            "/v1/members",
            "",
            r#"{"name":"a","raft_addr":"h:1"}"#,
            "Add { nodes: [NewNode { name: \"a\", raft_addr: \"h:1\" }], replaces: [], learners: false } OrderConditions { expected: None, force: false }",
        ),
        (
            "POST",
            "/v1/members?force",
            "if-match: \"7\"\r\n",
            r#"{"add":[{"name":"a","raft_addr":"h:1"}],"replace":["b",3],"learner":true}"#,
            "Add { nodes: [NewNode { name: \"a\", raft_addr: \"h:1\" }], replaces: [\"b\", \"id:3\"], learners: true } OrderConditions { expected: Some(7), force: true }",
        ),
        (
            "POST",
            "/v1/members/a%2fb/promote",
            "if-match: *\r\n",
            "",
            "Promote(\"a/b\") OrderConditions { expected: None, force: false }",
        ),
        (
            "DELETE",
            "/v1/members/3",
            "",
            "",
            "Remove([\"3\"]) OrderConditions { expected: None, force: false }",
        ),
    ] {
        let answered = fixture.ask_with(method, target, headers, body.as_bytes()).await;
        let json = answered.json();
        assert_eq!((answered.code, json["members"][0]["name"].as_str()), (200, Some(order)), "{target}");
        assert_eq!(answered.header("etag"), Some("\"9\""));
    }
    let transfer = fixture.ask("POST", "/v1/leader/transfer", b"{\"to\":2}").await;
    assert_eq!((transfer.code, &transfer.json()["leader"]), (200, &serde_json::Value::Null));
}

#[tokio::test]
async fn what_is_wrong_with_an_order_has_a_code_and_an_outcome() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (method, target, headers, body, code, name, outcome) in [
        ("POST", "/v1/members", "", "{}", 400, "bad-field", "not-applied"),
        ("POST", "/v1/members", "", "", 400, "bad-json", "not-applied"),
        (
            "POST",
            "/v1/members",
            "",
            r#"{"name":"a","raft_addr":"h:1","voter":true}"#,
            400,
            "bad-field",
            "not-applied",
        ),
        ("POST", "/v1/members", "", r#"{"name":"a","add":[]}"#, 400, "bad-field", "not-applied"),
        ("DELETE", "/v1/members/a", "if-none-match: *\r\n", "", 400, "bad-condition", "not-applied"),
        ("DELETE", "/v1/members/a", "if-match: x\r\n", "", 400, "bad-condition", "not-applied"),
        ("DELETE", "/v1/members/%", "", "", 400, "bad-encoding", "not-applied"),
        ("POST", "/v1/leader/transfer", "", "[]", 400, "bad-json", "not-applied"),
        ("DELETE", "/v1/members/changed", "", "", 412, "condition-failed", "not-applied"),
        ("DELETE", "/v1/members/needed", "", "", 409, "would-lose-quorum", "not-applied"),
        ("DELETE", "/v1/members/lost", "", "", 504, "outcome-unknown", "unknown"),
    ] {
        let answered = fixture.ask_with(method, target, headers, body.as_bytes()).await;
        assert_eq!(answered.problem(), (code, name.to_owned()), "{method} {target} {body}");
        assert_eq!(answered.json()["outcome"], outcome, "{method} {target}");
        let tag = (code == 412).then_some("\"9\"");
        assert_eq!(answered.header("etag"), tag, "{method} {target}");
    }
}
