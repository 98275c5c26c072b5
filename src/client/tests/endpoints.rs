//! Which node is asked next, and what is never asked twice.

use crate::client::tests::scripted::{
    Act, Scripted, answer, client, client_of, nobody, not_appended, options, written,
};
use crate::client::{CallFailure, Client, WriteOutcome};
use crate::replica::Level;
use std::time::Duration;

fn say(text: String) -> Act {
    Act::Say(text.into())
}

#[tokio::test]
async fn a_node_that_is_down_is_passed_over() {
    let server = Scripted::saying(&written()).await;
    let mut client = client_of(vec![nobody().await, server.endpoint.clone()]);
    client.set("k", "1").await.expect("the other node takes it");
    // The next call begins with the node that answered.
    client.set("k", "2").await.expect("the same node takes it");
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_write_that_reached_nobody_is_not_applied() {
    let error = client_of(vec![nobody().await, nobody().await]).set("k", "v").await.expect_err("nobody");
    assert!(matches!(error.failure, CallFailure::Unreachable(_)), "{error}");
    assert_eq!(error.outcome(), WriteOutcome::NotApplied);
}

#[tokio::test]
async fn a_write_that_was_not_appended_goes_to_the_next_node() {
    let (first, second) = (Scripted::saying(&not_appended()).await, Scripted::saying(&written()).await);
    client(&[&first, &second]).set("k", "v").await.expect("the second node takes it");
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn no_node_is_asked_twice() {
    let refusing = vec![vec![say(not_appended())]; 2];
    let (first, second) = (Scripted::start(refusing.clone()).await, Scripted::start(refusing).await);
    let error = client(&[&first, &second]).set("k", "v").await.expect_err("nobody takes it");
    assert_eq!((error.outcome(), error.endpoint), (WriteOutcome::NotApplied, second.endpoint.clone()));
    assert_eq!((first.count(), second.count()), (1, 1));
    let mut once = Client::new(
        vec![first.endpoint.clone(), second.endpoint.clone()],
        crate::client::ClientOptions { attempts_max: 1, ..options() },
    );
    assert!(once.set("k", "v").await.is_err());
    assert_eq!((first.count(), second.count()), (2, 1), "one attempt is one node");
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_never_repeated() {
    let unknown = answer("500 x", "infinitystore-outcome: unknown\r\n", "\"Couldn't Add to store\"\n");
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n\"Set";
    for act in [
        say(unknown),
        Act::SayAndClose(Vec::new()),
        Act::SayAndClose(broken.into()),
        Act::SayAndClose(b"SSH-2.0-x\r\n\r\n".to_vec()),
        say(answer("503 x", "", "too busy")),
        say(answer("200 OK", "", "welcome")),
    ] {
        let first = Scripted::start(vec![vec![act.clone()]; 3]).await;
        let second = Scripted::saying(&written()).await;
        let error = client(&[&first, &second]).set("k", "v").await.expect_err("nobody knows");
        assert_eq!(error.outcome(), WriteOutcome::Unknown, "{act:?}: {error}");
        assert_eq!((first.count(), second.count()), (1, 0), "{act:?}");
    }
}

#[tokio::test]
async fn a_write_without_an_answer_in_time_is_unknown_and_not_repeated() {
    let first = Scripted::start(vec![vec![Act::Hang]; 3]).await;
    let second = Scripted::saying(&written()).await;
    let options = crate::client::ClientOptions { answer_timeout: Duration::from_millis(20), ..options() };
    let mut client = Client::new(vec![first.endpoint.clone(), second.endpoint.clone()], options);
    let error = client.set("k", "v").await.expect_err("no answer");
    assert!(matches!(error.failure, CallFailure::Late), "{error}");
    assert_eq!((error.outcome(), second.count()), (WriteOutcome::Unknown, 0));
}

#[tokio::test]
async fn a_read_is_repeated_elsewhere() {
    let value = answer("200 OK", "", "{\"key\":\"k\",\"value\":\"v\"}\n");
    for act in [
        Act::SayAndClose(Vec::new()),
        Act::SayAndClose(b"SSH-2.0-x\r\n\r\n".to_vec()),
        say(answer("503 x", "", "\"no quorum\"\n")),
    ] {
        let first = Scripted::start(vec![vec![act.clone()]; 3]).await;
        let second = Scripted::saying(&value).await;
        let read = client(&[&first, &second]).get("k", Level::Linearizable).await;
        assert_eq!(read.expect("the second node answers").as_deref(), Some("v"), "{act:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_in_itself_is_asked_once() {
    let bad = answer("400 Bad Request", "infinitystore-reason: the key is empty\r\n", "\"Invalid Body\"\n");
    let (first, second) = (Scripted::saying(&bad).await, Scripted::saying(&written()).await);
    let error = client(&[&first, &second]).set("", "v").await.expect_err("it is refused");
    assert_eq!(error.refusal().expect("an answer").reason.as_deref(), Some("the key is empty"));
    assert_eq!((first.count(), second.count()), (1, 0));
}

#[tokio::test]
async fn an_idle_connection_that_the_node_closed_is_replaced() {
    let close = answer("200 OK", "connection: close\r\n", "\"Set Successfull\"\n");
    let server =
        Scripted::start(vec![vec![say(written()), Act::SayAndClose(close.into())], vec![say(written())]])
            .await;
    let mut client = client(&[&server]);
    for value in ["1", "2", "3"] {
        client.set("k", value).await.expect("it is written");
    }
    assert_eq!(server.count(), 3, "each was sent once");
}
