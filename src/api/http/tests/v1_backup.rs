//! `GET /v1/snapshot`.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::{Fixture, captured};
use crate::api::http::tests::http2_kit::Client2;
use crate::storage::{BackupError, BackupReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn state_hash(bytes: &[u8]) -> Result<u128, BackupError> {
    let mut reader = BackupReader::of_state();
    reader.push(bytes)?;
    reader.finish().map(|(header, _)| header.state_hash)
}

/// A body without what divides it.
fn of_chunks(mut chunks: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = chunks.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&chunks[..at]).expect("text");
        let length = usize::from_str_radix(length, 16).expect("a length");
        whole.extend_from_slice(&chunks[at + 2..at + 2 + length]);
        chunks = &chunks[at + 4 + length..];
    }
    whole
}

/// A request whose answer has begun to come, and is not read on.
async fn begun(fixture: &Fixture) -> TcpStream {
    let mut stream = fixture.connect().await;
    let request = b"GET /v1/snapshot HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("a head");
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn a_backup_is_all_there_is_over_either_protocol() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let hash = captured().store.state_hash();
    let client = Client2::connect(&fixture).await;
    let second = client.ask("GET", "/v1/snapshot?level=local", b"").await;
    assert_eq!((second.code, second.header("infinitystore-revision")), (200, Some("40")));
    assert_eq!(state_hash(&second.body).expect("whole"), hash);
    let head = client.ask("HEAD", "/v1/snapshot", b"").await;
    assert_eq!(
        (head.code, head.body.len(), head.header("content-type")),
        (200, 0, Some("application/octet-stream"))
    );
    let mut stream = begun(&fixture).await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("to its end");
    let end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(of_chunks(&rest[end..]), second.body);
    drop((client, stream));
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn two_backups_are_under_way_at_once_and_a_slow_client_holds_a_piece() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let slow = [begun(&fixture).await, begun(&fixture).await];
    let third = fixture.ask("GET", "/v1/snapshot", b"").await;
    assert_eq!(third.problem(), (503, "overloaded".to_owned()));
    assert!(fixture.memory_used() <= 2 * (256 << 10), "{} bytes are held", fixture.memory_used());
    drop(slow);
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
    assert_eq!(fixture.ask("HEAD", "/v1/snapshot", b"").await.code, 200);
}

#[tokio::test]
async fn a_client_that_is_too_slow_and_one_for_which_there_is_no_memory_are_cut_off() {
    for options in [
        HttpOptions {
            write_timeout_seconds: 0,
            write_bytes_per_second_min: usize::MAX,
            ..HttpOptions::default()
        },
        HttpOptions { memory_bytes_max: 60 << 10, ..HttpOptions::default() },
    ] {
        let fixture = Fixture::start(options).await;
        let mut stream = fixture.connect().await;
        let request = b"GET /v1/snapshot HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("sent");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("to its end");
        assert!(!all.ends_with(b"0\r\n\r\n"), "HTTP does not call it whole");
        // Nothing comes at all if it is cut off before its head has left.
        let end = all.windows(4).position(|window| window == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
        let cut = state_hash(&of_chunks(&all[end..]));
        assert!(
            matches!(cut, Err(BackupError::CutShort { .. } | BackupError::NotABackup)),
            "nor does it call itself whole"
        );
    }
}
