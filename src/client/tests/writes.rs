//! Writes of `/v1`: what is repeated, and under which name.

use crate::client::tests::scripted::{
    Act, SEEN, Scripted, answer, client, client_of, nobody, options, problem,
};
use crate::client::{Client, ClientOptions, Condition, ErrorKind, LeaseChoice, WriteOptions, WriteOutcome};
use crate::kv::{LeaseId, Revision};
use std::collections::BTreeSet;
use std::time::Duration;

fn say(text: String) -> Act {
    Act::Say(text.into())
}

fn put() -> String {
    answer("200 OK", "etag: \"7\"\r\n", "{\"revision\":7,\"version\":2}\n")
}

/// The idempotency key of a request.
fn name_of(request: &str) -> Option<&str> {
    request.lines().find_map(|line| line.strip_prefix("idempotency-key: "))
}

fn without_keys(servers: &[&Scripted]) -> Client {
    let options = ClientOptions { idempotency_keys: false, ..options() };
    let endpoints: Vec<_> = servers.iter().map(|server| server.endpoint.clone()).collect();
    Client::new(endpoints, options).having_seen(SEEN)
}

/// What leaves it open whether the write was carried out.
fn open_endings() -> [Act; 4] {
    [
        say(problem("504 x", "outcome-unknown", ",\"outcome\":\"unknown\"")),
        Act::SayAndClose(Vec::new()),
        Act::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"rev".into()),
        say(answer("502 x", "", "bad gateway")),
    ]
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_repeated_under_its_name() {
    for ending in open_endings() {
        let first = Scripted::start(vec![vec![ending.clone()]; 3]).await;
        let second = Scripted::saying(&put()).await;
        let done = client(&[&first, &second]).put_key(b"k", "v", &WriteOptions::default()).await;
        let done = done.unwrap_or_else(|error| panic!("{ending:?}: {error}"));
        assert_eq!((done.revision, done.version), (Revision(7), 2));
        let (asked, again) = (first.asked(), second.asked());
        assert_eq!((asked.len(), again.len()), (1, 1), "{ending:?}");
        assert!(name_of(&asked[0]).is_some_and(|name| name.len() == 32), "{}", asked[0]);
        assert_eq!(name_of(&asked[0]), name_of(&again[0]), "the same name: it is done once");
    }
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_not_repeated_without_a_name() {
    for ending in open_endings() {
        let first = Scripted::start(vec![vec![ending.clone()]; 3]).await;
        let second = Scripted::saying(&put()).await;
        let done = without_keys(&[&first, &second]).put_key(b"k", "v", &WriteOptions::default()).await;
        let error = done.expect_err("nobody knows");
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{ending:?}: {error}");
        assert_eq!((first.count(), second.count()), (1, 0), "{ending:?}");
        assert_eq!(name_of(&first.asked()[0]), None);
    }
}

#[tokio::test]
async fn a_name_of_the_caller_is_used_as_it_is() {
    let options = WriteOptions { idempotency_key: Some("order 17".to_owned()), ..WriteOptions::default() };
    let first = Scripted::start(vec![vec![Act::SayAndClose(Vec::new())]]).await;
    let second = Scripted::saying(&put()).await;
    without_keys(&[&first, &second]).put_key(b"k", "v", &options).await.expect("it is repeated");
    assert_eq!(name_of(&second.asked()[0]), Some("order 17"));
    let bad = WriteOptions { idempotency_key: Some("line\nbreak".to_owned()), ..WriteOptions::default() };
    let error = client(&[&second]).put_key(b"k", "v", &bad).await.expect_err("no header");
    assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
}

#[tokio::test]
async fn every_write_has_a_name_of_its_own() {
    let server = Scripted::saying(&put()).await;
    let mut client = client(&[&server]);
    for _ in 0..3 {
        client.put_key(b"k", "v", &WriteOptions::default()).await.expect("it is written");
    }
    let asked = server.asked();
    assert_eq!(asked.iter().filter_map(|request| name_of(request)).collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn what_may_have_been_done_stays_so_until_somebody_knows() {
    let first = Scripted::start(vec![vec![Act::SayAndClose(Vec::new())]]).await;
    // The second node does not take it, which says nothing of what became of the first attempt.
    for refusal in [
        problem("503 x", "no-leader", ",\"outcome\":\"not-applied\""),
        problem("507 x", "disk-full", ",\"outcome\":\"not-applied\""),
        // Nor what a node says by itself, before it asks the cluster.
        problem("401 x", "unauthenticated", ",\"outcome\":\"not-applied\""),
        problem("403 x", "forbidden", ",\"outcome\":\"not-applied\""),
        problem("404 x", "not-holder", ",\"outcome\":\"not-applied\""),
        problem("408 x", "body-late", ",\"outcome\":\"not-applied\""),
        problem("429 x", "too-many-attempts", ",\"outcome\":\"not-applied\""),
        answer("404 x", "", "of a proxy"),
    ] {
        let second = Scripted::saying(&refusal).await;
        let error = client(&[&first, &second]).put_key(b"k", "v", &WriteOptions::default()).await;
        let error = error.expect_err("nobody knows");
        assert_eq!(error.outcome(), WriteOutcome::Unknown, "{refusal}: {error}");
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{refusal}");
    }
    let endpoints = vec![first.endpoint.clone(), nobody().await];
    let error = client_of(endpoints).put_key(b"k", "v", &WriteOptions::default()).await.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    // Nor what the cluster says once it has forgotten the answer to the first attempt: that one may
    // have moved the revision, ended the lease, or filled the store.
    for (status, code) in [
        ("412 x", "condition-failed"),
        ("409 x", "not-a-number"),
        ("409 x", "overflow"),
        ("404 x", "no-lease"),
        ("507 x", "quota-exceeded"),
    ] {
        let refusal = problem(status, code, ",\"outcome\":\"not-applied\"");
        let first = Scripted::start(vec![vec![Act::SayAndClose(Vec::new())]]).await;
        let second = Scripted::saying(&refusal).await;
        let error = client(&[&first, &second]).put_key(b"k", "v", &WriteOptions::default()).await;
        let error = error.expect_err("it was refused");
        assert_eq!(error.outcome(), WriteOutcome::Unknown, "{code}");
        assert_eq!((error.kind(), error.code()), (ErrorKind::OutcomeUnknown, Some(code)));
        // Without a first attempt, the same is certain.
        let alone = Scripted::saying(&refusal).await;
        let error = client(&[&alone]).put_key(b"k", "v", &WriteOptions::default()).await;
        assert_eq!(error.expect_err("it was refused").outcome(), WriteOutcome::NotApplied, "{code}");
    }
}

#[tokio::test]
async fn a_write_over_an_idle_connection_that_broke_may_have_been_done() {
    // The second write reaches the node, which ends before it answers; and then it is gone.
    let server = Scripted::start(vec![
        vec![say(put()), Act::SayAndClose(Vec::new())],
        vec![Act::SayAndClose(Vec::new())],
    ])
    .await;
    let mut client = client(&[&server]);
    client.put_key(b"k", "1", &WriteOptions::default()).await.expect("it is written");
    let error = client.put_key(b"k", "2", &WriteOptions::default()).await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let names: Vec<_> =
        server.asked()[1..].iter().map(|request| name_of(request).map(str::to_owned)).collect();
    assert_eq!(names.len(), 2, "it was repeated over a new connection");
    assert_eq!(names[0], names[1]);
}

#[tokio::test]
async fn conditions_and_leases_are_said_as_http_has_them() {
    let server =
        Scripted::saying(&answer("200 OK", "", "{\"revision\":7,\"version\":1,\"lease\":9,\"ttl\":2}\n"))
            .await;
    let mut client = without_keys(&[&server]);
    let options = |condition, lease| WriteOptions { condition, lease, ..WriteOptions::default() };
    let key = b"a/b \xff?";
    let done = client
        .put_key(key, &b"\0\xff"[..], &options(None, LeaseChoice::New(Duration::from_millis(1500))))
        .await;
    assert_eq!(done.expect("written").granted, Some((LeaseId(9), Duration::from_secs(2))));
    let with = options(Some(Condition::ModRevision(Revision(17))), LeaseChoice::Given(LeaseId(3)));
    client.put_key(key, "v", &with).await.expect("written");
    let missing = options(Some(Condition::IsMissing), LeaseChoice::None);
    client.put_key(b"k", "", &missing).await.expect("written");
    let asked = server.asked();
    assert!(asked[0].starts_with("PUT /v1/kv/a/b%20%FF%3F?ttl=1500ms HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[1].starts_with("PUT /v1/kv/a/b%20%FF%3F?lease=3 HTTP/1.1\r\n"), "{}", asked[1]);
    assert!(asked[1].contains("if-match: \"17\"\r\n") && asked[1].ends_with("\r\n\r\nv"), "{}", asked[1]);
    assert!(asked[2].contains("if-none-match: *\r\n"), "{}", asked[2]);
    assert!(asked[2].contains("content-length: 0\r\n"), "an empty value: {}", asked[2]);
}

#[tokio::test]
async fn errors_are_told_apart() {
    for (status, code, kind) in [
        ("404 x", "key-not-found", ErrorKind::NotFound),
        ("404 x", "no-lease", ErrorKind::NotFound),
        ("410 x", "compacted", ErrorKind::NotFound),
        ("404 x", "no-such-route", ErrorKind::Other),
        ("412 x", "condition-failed", ErrorKind::ConditionFailed),
        ("409 x", "held", ErrorKind::ConditionFailed),
        ("409 x", "lease-exists", ErrorKind::ConditionFailed),
        ("409 x", "not-a-number", ErrorKind::Other),
        ("400 x", "empty-key", ErrorKind::BadRequest),
        ("413 x", "value-too-large", ErrorKind::BadRequest),
        ("422 x", "idempotency-key-reused", ErrorKind::BadRequest),
        ("503 x", "no-leader", ErrorKind::Unavailable),
        ("507 x", "quota-exceeded", ErrorKind::Other),
        ("507 x", "disk-full", ErrorKind::Unavailable),
    ] {
        let server =
            Scripted::saying(&problem(status, code, ",\"outcome\":\"not-applied\",\"revision\":5")).await;
        let error = client(&[&server]).revoke_lease(LeaseId(1)).await.expect_err("it is refused");
        assert_eq!((error.kind(), error.code()), (kind, Some(code)), "{error}");
        assert_eq!(error.refusal().expect("an answer").revision, Some(Revision(5)));
        assert!(error.to_string().ends_with(&format!("in words ({code})")), "{error}");
    }
    let unknown = problem("504 x", "outcome-unknown", ",\"outcome\":\"unknown\"");
    let error = client(&[&Scripted::saying(&unknown).await]).revoke_lease(LeaseId(1)).await;
    assert_eq!(error.expect_err("unknown").kind(), ErrorKind::OutcomeUnknown);
    // Nothing that a proxy says of a read makes its outcome unknown.
    let error = client(&[&Scripted::saying(&answer("502 x", "", "")).await]).settings().await;
    assert_eq!(error.expect_err("refused").kind(), ErrorKind::Unavailable);
    let present = ",\"present\":{\"key64\":\"/w==\",\"mod_revision\":9,\"create_revision\":8,\"version\":2,\"lease\":0}";
    let server = Scripted::saying(&problem("412 x", "condition-failed", present)).await;
    let error = client(&[&server]).put_key(b"\xff", "v", &WriteOptions::default()).await.expect_err("failed");
    let present = error.refusal().and_then(|refusal| refusal.present.clone()).expect("the key as it is");
    assert_eq!((&present.key[..], present.mod_revision), (&b"\xff"[..], Revision(9)));
}
