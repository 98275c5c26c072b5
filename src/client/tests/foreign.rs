//! What something else than a node says, and which of several addresses is connected to.

use crate::client::connection::first_of;
use crate::client::tests::scripted::{Act, Scripted, answer, client, client_of, nobody, problem};
use crate::client::{CallError, CallFailure, Endpoint, ErrorKind, WriteOptions};
use crate::kv::LeaseId;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

#[tokio::test]
async fn what_a_proxy_says_is_not_taken_for_an_answer_about_a_key_or_a_lease() {
    for status in ["404 Not Found", "410 Gone", "412 Precondition Failed"] {
        for page in [
            answer(status, "content-type: text/html\r\n", "<html>"),
            // A problem of another API.
            answer(status, "content-type: application/problem+json\r\n", "{\"title\":\"Not here\"}"),
        ] {
            let server = Scripted::saying(&page).await;
            let error = client(&[&server]).keep_lease_alive(LeaseId(7)).await.expect_err("no answer");
            assert!(matches!(error.failure, CallFailure::Nonsense(_)), "{error}");
            assert_eq!(error.kind(), ErrorKind::Other, "{page}");
            let server = Scripted::saying(&page).await;
            let error = client(&[&server]).put_key(b"k", "v", &WriteOptions::default()).await;
            assert_eq!(error.expect_err("no answer").kind(), ErrorKind::OutcomeUnknown, "{page}");
            // The routes of the original have no problems.
            let server = Scripted::saying(&page).await;
            let error = client(&[&server]).set("k", "v").await.expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::Other, "{page}");
        }
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_a_wrong_request() {
    let endpoint: Endpoint = "localhost:1".parse().expect("an endpoint");
    let failure = CallFailure::TooLong(4096);
    let error = CallError { endpoint, failure, is_write: false, maybe_done: false };
    assert_eq!(error.kind(), ErrorKind::BadRequest);
}

#[tokio::test]
async fn an_address_at_which_nobody_listens_hides_nothing() {
    let refusal = problem("503 x", "no-leader", ",\"outcome\":\"not-applied\"");
    let (first, third) = (nobody().await, nobody().await);
    let second = Scripted::saying(&refusal).await;
    let mut client = client_of(vec![first, second.endpoint.clone(), third]);
    let error = client.put_key(b"k", "v", &WriteOptions::default()).await.expect_err("it is refused");
    assert_eq!((error.code(), &error.endpoint), (Some("no-leader"), &second.endpoint));
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it is certain that it was not done");
    // What may have been done stays so.
    let broken = Scripted::start(vec![vec![Act::SayAndClose(Vec::new())]]).await;
    let mut client = client_of(vec![broken.endpoint.clone(), nobody().await]);
    let error = client.put_key(b"k", "v", &WriteOptions::default()).await.expect_err("it broke");
    assert_eq!((error.kind(), &error.endpoint), (ErrorKind::OutcomeUnknown, &broken.endpoint));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_answer_does_not_cost_the_time_of_the_others() {
    let addresses = |ports: &[u16]| -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    };
    // Port 1 is silent, port 2 refuses, any other takes a second.
    let connect = |address: SocketAddr| async move {
        match address.port() {
            1 => std::future::pending().await,
            2 => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            port => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(port)
            }
        }
    };
    let began = tokio::time::Instant::now();
    assert_eq!(first_of(addresses(&[1, 3]), connect).await.expect("one answers"), 3);
    assert_eq!(began.elapsed().as_millis(), 1250);
    // A refusal is no reason to wait.
    let began = tokio::time::Instant::now();
    assert_eq!(first_of(addresses(&[2, 2, 3, 4]), connect).await.expect("one answers"), 3);
    assert_eq!(began.elapsed().as_millis(), 1000);
    let error = first_of(addresses(&[2, 2]), connect).await.expect_err("nobody");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(first_of(addresses(&[]), connect).await.is_err());
}
