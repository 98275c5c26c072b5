//! Answers that no node gives.

use crate::client::tests::scripted::{ANSWER_BYTES_MAX, Act, Scripted, answer, client};
use crate::client::{CallError, CallFailure};

/// What the client says of a status that is answered with these bytes, after which the connection
/// is closed.
async fn told(bytes: impl Into<Vec<u8>>) -> CallError {
    let server = Scripted::start(vec![vec![Act::SayAndClose(bytes.into())]]).await;
    client(&[&server]).status().await.expect_err("a bad answer")
}

#[tokio::test]
async fn what_is_no_http_is_told_from_a_broken_connection() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.9\r\n\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n",
        b"HTTP/1.1 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        // It says not how long it is.
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nwelcome",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
    ] {
        let error = told(garbage).await;
        assert!(matches!(error.failure, CallFailure::Nonsense(_)), "{garbage:?}: {error}");
        assert!(error.to_string().contains("no answer of an InfinityStore node: "), "{error}");
    }
    for cut in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"version\"",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let error = told(cut).await;
        assert!(matches!(error.failure, CallFailure::Lost(_)), "{cut:?}: {error}");
        assert!(error.to_string().contains("broke before the answer was complete"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_is_bounded() {
    let long_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\n{{}}", "y".repeat(200_000));
    let many_headers =
        format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\n{{}}", "x: y\r\n".repeat(5_000));
    // Refused before a byte of it is there.
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", u64::MAX / 2);
    let long = answer("200 OK", "", &"x".repeat(ANSWER_BYTES_MAX + 1));
    let chunk = format!("{ANSWER_BYTES_MAX:x}\r\n{}\r\n", "x".repeat(ANSWER_BYTES_MAX));
    let chunks = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk.repeat(2));
    for bytes in [long_head, many_headers, announced, long, chunks] {
        let beginning = bytes[..bytes.len().min(60)].to_owned();
        let error = told(bytes).await;
        assert!(matches!(error.failure, CallFailure::Nonsense(_)), "{beginning}: {error}");
        assert!(error.to_string().len() < 1000, "{error}");
    }
}

#[tokio::test]
async fn an_error_quotes_the_beginning_of_an_answer_on_one_line() {
    let body = format!("<html>\r\n\u{1b}[2J{}", "ü".repeat(1500));
    let error = told(answer("418 I'm a teapot", "", &body)).await;
    let text = error.to_string();
    assert!(text.contains(": 418 <html>") && text.chars().count() < 400, "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn an_answer_in_chunks_is_an_answer() {
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n# metric\r\n7\r\ns\n# EOF\r\n1\r\n\n\r\n0\r\n\r\n";
    let server = Scripted::saying(chunks).await;
    assert_eq!(client(&[&server]).metrics().await.expect("it is whole"), "# metrics\n# EOF\n");
}
