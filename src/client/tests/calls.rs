//! What each call asks, and what it makes of good answers.

use crate::client::tests::scripted::{Act, Scripted, answer, client, written};
use crate::client::{Endpoint, WriteOutcome};
use crate::replica::Level;

#[tokio::test]
async fn a_write_names_its_key_value_and_action() {
    let server = Scripted::saying(&written()).await;
    let mut client = client(&[&server]);
    client.set("a \"key\"", "ü\n").await.expect("it is written");
    client.delete("k").await.expect("it is deleted");
    let asked = server.asked();
    assert!(asked[0].starts_with("POST /set HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].contains(&format!("host: {}\r\n", server.endpoint)), "{}", asked[0]);
    assert!(
        asked[0].ends_with("{\"key\":\"a \\\"key\\\"\",\"value\":\"ü\\n\",\"action\":\"set\"}"),
        "{}",
        asked[0]
    );
    assert!(
        asked[1].ends_with("{\"key\":\"k\",\"action\":\"delete\"}"),
        "over the same connection: {}",
        asked[1]
    );
}

#[tokio::test]
async fn a_read_has_a_value_or_none() {
    let there = answer("200 OK", "", "{\"key\":\"a b&ü\",\"value\":\"v\\n\"}\n");
    let missing = answer("404 Not Found", "", "\"Key does not exist\"\n");
    let server = Scripted::start(vec![vec![Act::Say(there.into()), Act::Say(missing.into())]]).await;
    let mut client = client(&[&server]);
    let value = client.get("a b&ü", Level::Linearizable).await.expect("it is answered");
    assert_eq!(value.as_deref(), Some("v\n"));
    assert_eq!(client.get("gone", Level::Local).await.expect("it is answered"), None);
    let asked = server.asked();
    assert!(asked[0].starts_with("GET /get?key=a%20b%26%C3%BC HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[1].starts_with("GET /get?key=gone&level=local HTTP/1.1\r\n"), "{}", asked[1]);
}

#[tokio::test]
async fn an_answer_of_another_key_is_none_of_this_one() {
    let server = Scripted::saying(&answer("200 OK", "", "{\"key\":\"other\",\"value\":\"v\"}\n")).await;
    let error = client(&[&server]).get("mine", Level::Local).await.expect_err("another key's");
    assert!(error.to_string().contains("no answer of an InfinityStore node"), "{error}");
}

#[tokio::test]
async fn a_join_names_the_node_and_its_address() {
    let server = Scripted::saying(&answer("200 OK", "", "\"Voter added\"\n")).await;
    client(&[&server]).join("node 2", "[::1]:8010").await.expect("it is added");
    let asked = &server.asked()[0];
    assert!(
        asked.starts_with("POST /join?nodeid=node%202&nodeaddr=%5B%3A%3A1%5D%3A8010 HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("content-length: 0\r\n"), "{asked}");
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_no_error() {
    let ready = answer("200 OK", "", "ok\n");
    let not_ready = answer("503 Service Unavailable", "", "[-] leader: no leader is known\nnot ready\n");
    let acts = vec![Act::Say(ready.clone().into()), Act::Say(not_ready.into()), Act::Say(ready.into())];
    let server = Scripted::start(vec![acts]).await;
    let mut client = client(&[&server]);
    assert!(client.readyz().await.expect("it is answered").is_ready);
    let readiness = client.readyz().await.expect("it is answered");
    assert_eq!(
        (readiness.is_ready, readiness.text.as_str()),
        (false, "[-] leader: no leader is known\nnot ready")
    );
    client.livez().await.expect("it is alive");
}

#[tokio::test]
async fn a_refusal_says_why_and_what_became_of_the_write() {
    let reason = "infinitystore-reason: no leader is known\r\ninfinitystore-outcome";
    for (status, headers, outcome) in [
        ("500 x", format!("{reason}: not-appended\r\n"), WriteOutcome::NotApplied),
        ("500 x", format!("{reason}: unknown\r\n"), WriteOutcome::Unknown),
        ("500 x", format!("{reason}: of a later version\r\n"), WriteOutcome::Unknown),
        // No node's: whatever stands between may have passed the request on.
        ("500 x", String::new(), WriteOutcome::Unknown),
        ("502 x", String::new(), WriteOutcome::Unknown),
        ("503 x", String::new(), WriteOutcome::Unknown),
        ("400 x", String::new(), WriteOutcome::NotApplied),
        ("413 x", String::new(), WriteOutcome::NotApplied),
    ] {
        let server = Scripted::saying(&answer(status, &headers, "\"no\"\n")).await;
        let error = client(&[&server]).set("k", "v").await.expect_err("it is refused");
        assert_eq!(error.outcome(), outcome, "{status} {headers}");
        let refusal = error.refusal().expect("an answer");
        assert_eq!((refusal.status.to_string().as_str(), refusal.text.as_str()), (&status[..3], "\"no\""));
        let why = headers.contains("no leader").then_some("no leader is known");
        assert_eq!(refusal.reason.as_deref(), why);
    }
}

#[tokio::test]
async fn a_key_that_fits_into_no_url_is_not_sent() {
    let server = Scripted::saying(&written()).await;
    let error = client(&[&server]).get(&"ü".repeat(20_000), Level::Local).await.expect_err("too long");
    assert_eq!(error.outcome(), WriteOutcome::NotApplied);
    assert!(error.to_string().contains("cannot be asked"), "{error}");
    assert_eq!(server.count(), 0);
}

#[test]
fn an_endpoint_has_a_host_or_none_and_a_port() {
    for good in ["localhost:8001", ":8001", "[::1]:8001"] {
        assert_eq!(good.parse::<Endpoint>().map(|endpoint| endpoint.to_string()).as_deref(), Ok(good));
    }
    assert_eq!(
        ":8001".parse::<Endpoint>().map(|endpoint| endpoint.address().to_owned()).as_deref(),
        Ok("localhost:8001")
    );
    for url in ["http://localhost:8001", "http://localhost:8001/"] {
        let endpoint = url.parse::<Endpoint>().expect("what dev prints");
        assert_eq!(endpoint.to_string(), "localhost:8001");
    }
    let bad = [
        "",
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:http",
        "localhost:65536",
        "http://localhost",
    ];
    for bad in
        bad.into_iter().chain(["ftp://localhost:8001", "http://localhost:8001/get", "http://a/b:1", "ü:1"])
    {
        assert!(bad.parse::<Endpoint>().is_err_and(|error| error.contains("HOST:PORT")), "{bad}");
    }
}
