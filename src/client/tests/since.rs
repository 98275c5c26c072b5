//! What a repetition says of what its client had seen before the first attempt.

use crate::client::tests::scripted::{Act, Scripted, answer, client_of, nobody, options, problem};
use crate::client::{Client, ClientOptions, ErrorKind, WriteOptions, WriteOutcome};
use crate::kv::Revision;

fn say(text: String) -> Act {
    Act::Say(text.into())
}

fn put(told: u64) -> String {
    let header = format!("infinitystore-revision: {told}\r\n");
    answer("200 OK", &header, &format!("{{\"revision\":{told},\"version\":2}}\n"))
}

fn settings(told: u64) -> String {
    let body = "{\"history_bytes\":1,\"quota_bytes\":1,\"answers_bytes\":1}\n";
    answer("200 OK", &format!("infinitystore-revision: {told}\r\n"), body)
}

fn lost() -> Act {
    Act::SayAndClose(Vec::new())
}

/// What each request says that its client had seen.
fn since_of(server: &Scripted) -> Vec<Option<u64>> {
    let number = |request: &String| {
        let said = request.lines().find_map(|line| line.strip_prefix("idempotency-since: "))?;
        Some(said.parse().expect("a revision"))
    };
    server.asked().iter().map(number).collect()
}

fn first_line(request: &str) -> &str {
    request.lines().next().expect("a request")
}

/// One that has seen nothing.
fn new_client(servers: &[&Scripted]) -> Client {
    Client::new(servers.iter().map(|server| server.endpoint.clone()).collect::<Vec<_>>(), options())
}

const LOOK: &str = "GET /v1/settings?level=local HTTP/1.1";

#[tokio::test]
async fn a_repetition_says_what_was_seen_before_the_first_attempt() {
    // The first server tells 8, and then breaks the connection twice.
    let first = Scripted::start(vec![vec![say(put(8)), lost()], vec![lost()]]).await;
    let second = Scripted::saying(&put(20)).await;
    let mut client = client_of(vec![first.endpoint.clone(), second.endpoint.clone()]);
    for _ in 0..3 {
        client.put_key(b"k", "v", &WriteOptions::default()).await.expect("it is written");
    }
    assert_eq!(since_of(&first), [None, None, Some(8)], "over a new connection, too");
    assert_eq!(since_of(&second), [Some(8), None], "and not in a first attempt");
    assert_eq!(client.seen(), Some(Revision(20)));
    // A revision of an older state does not make it forget.
    let behind = Scripted::start(vec![vec![say(put(5)), lost()], vec![lost()]]).await;
    let second = Scripted::saying(&put(20)).await;
    let mut client = client_of(vec![behind.endpoint.clone(), second.endpoint.clone()]);
    client = client.having_seen(Revision(9)).having_seen(Revision(4));
    for _ in 0..2 {
        client.put_key(b"k", "v", &WriteOptions::default()).await.expect("it is written");
    }
    assert_eq!(since_of(&behind), [None, None, Some(9)]);
}

#[tokio::test]
async fn what_was_certainly_not_done_is_no_repetition() {
    let refusing = Scripted::saying(&problem("503 x", "no-leader", ",\"outcome\":\"not-applied\"")).await;
    let second = Scripted::saying(&put(7)).await;
    let endpoints = vec![nobody().await, refusing.endpoint.clone(), second.endpoint.clone()];
    client_of(endpoints).put_key(b"k", "v", &WriteOptions::default()).await.expect("it is written");
    assert_eq!((since_of(&refusing), since_of(&second)), (vec![None], vec![None]));
}

#[tokio::test]
async fn a_client_that_has_seen_nothing_looks_before_it_writes() {
    let first = Scripted::start(vec![vec![say(settings(4)), lost()], vec![lost()]]).await;
    let second = Scripted::saying(&put(7)).await;
    let mut client = new_client(&[&first, &second]);
    client.put_key(b"k", "v", &WriteOptions::default()).await.expect("it is written");
    assert_eq!(first_line(&first.asked()[0]), LOOK);
    assert_eq!((since_of(&first), since_of(&second)), (vec![None, None, Some(4)], vec![Some(4)]));
    // Once: what it was told since is newer.
    client.put_key(b"k", "v", &WriteOptions::default()).await.expect("it is written");
    assert_eq!(second.count(), 2);
    // The first node that tells it will do.
    let down = Scripted::saying(&problem("503 x", "starting", "")).await;
    let second = Scripted::start(vec![vec![say(settings(4)), say(put(7))]]).await;
    new_client(&[&down, &second]).increment(b"n", 1).await.expect_err("no sum is in that answer");
    assert_eq!((down.count(), second.count()), (1, 2));
}

#[tokio::test]
async fn nobody_is_asked_first_where_nothing_would_be_repeated() {
    let server = Scripted::start(vec![vec![say(put(7))]; 3]).await;
    let other = Scripted::saying(&put(7)).await;
    let write = WriteOptions::default();
    new_client(&[&server]).put_key(b"k", "v", &write).await.expect("there is no other node");
    let endpoints = vec![server.endpoint.clone(), other.endpoint.clone()];
    for options in [
        ClientOptions { attempts_max: 1, ..options() },
        ClientOptions { idempotency_keys: false, ..options() },
    ] {
        let mut client = Client::new(endpoints.clone(), options);
        client.put_key(b"k", "v", &write).await.expect("it is written");
    }
    assert!(server.asked().iter().all(|request| request.starts_with("PUT ")), "{:?}", server.asked());
    assert_eq!((server.count(), other.count()), (3, 0));
}

/// Nobody would know whether it is done twice.
#[tokio::test]
async fn a_write_is_not_repeated_by_a_client_that_was_told_nothing() {
    let silent = answer("200 OK", "", "{}\n");
    let first = Scripted::start(vec![vec![say(silent), lost()], vec![lost()]]).await;
    let second = Scripted::saying(&put(7)).await;
    let done = new_client(&[&first, &second]).put_key(b"k", "v", &WriteOptions::default()).await;
    assert_eq!(done.expect_err("nobody knows").kind(), ErrorKind::OutcomeUnknown);
    assert_eq!((first.count(), second.count()), (2, 0));
    // An endpoint may say anything.
    let absurd = answer("200 OK", "infinitystore-revision: 18446744073709551615\r\n", "{}\n");
    let lying = Scripted::saying(&absurd).await;
    let mut client = new_client(&[&lying]);
    let _ = client.settings().await;
    assert_eq!((lying.count(), client.seen()), (1, None));
}

#[tokio::test]
async fn a_forgotten_answer_leaves_the_outcome_unknown() {
    let forgotten = problem("409 x", "answer-forgotten", ",\"outcome\":\"unknown\",\"revision\":9");
    let first = Scripted::start(vec![vec![lost()]]).await;
    let second = Scripted::saying(&forgotten).await;
    let third = Scripted::saying(&put(7)).await;
    let endpoints = [&first, &second, &third].map(|server| server.endpoint.clone()).to_vec();
    let done = client_of(endpoints).put_key(b"k", "v", &WriteOptions::default()).await;
    let error = done.expect_err("nobody knows");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::OutcomeUnknown, WriteOutcome::Unknown));
    assert_eq!((error.code(), third.count()), (Some("answer-forgotten"), 0));
    assert_eq!(error.refusal().expect("an answer").revision, Some(Revision(9)));
    // Also where this call had no attempt before.
    let options = WriteOptions {
        idempotency_key: Some("order 17".to_owned()),
        since: Some(Revision(2)),
        ..WriteOptions::default()
    };
    let again = Scripted::saying(&forgotten).await;
    let done = client_of(vec![again.endpoint.clone()]).put_key(b"k", "v", &options).await;
    assert_eq!(done.expect_err("nobody knows").kind(), ErrorKind::OutcomeUnknown);
}

#[tokio::test]
async fn what_a_caller_had_seen_is_said_each_time() {
    let options = |since| WriteOptions {
        idempotency_key: Some("order 17".to_owned()),
        since,
        ..WriteOptions::default()
    };
    let first = Scripted::start(vec![vec![lost()]; 2]).await;
    let second = Scripted::start(vec![vec![say(put(7))]; 2]).await;
    for since in [Some(Revision(2)), None] {
        let endpoints = vec![first.endpoint.clone(), second.endpoint.clone()];
        let mut client = client_of(endpoints).having_seen(Revision(6));
        client.put_key(b"k", "v", &options(since)).await.expect("it is written");
    }
    assert_eq!(since_of(&first), [Some(2), None]);
    assert_eq!(since_of(&second), [Some(2), Some(6)]);
}
