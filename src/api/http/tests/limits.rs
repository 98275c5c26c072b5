//! What is too much, too long or too late.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::{Fixture, receive_all};
use crate::api::http::tests::memory::read_answer;
use crate::kv::VALUE_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_is_sent() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let head = "POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: 67108864\r\n\r\n";
    let mut stream = fixture.connect().await;
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer without a byte of body");
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_client_that_sends_too_much_gets_to_read_the_answer() {
    let options = HttpOptions { body_bytes_max: 1000, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    for (headers, body) in [
        ("content-length: 4000000", vec![b'x'; 4_000_000]),
        (
            "transfer-encoding: chunked",
            [b"3d0900\r\n".as_slice(), &vec![b'x'; 4_000_000], b"\r\n0\r\n\r\n"].concat(),
        ),
    ] {
        let head = format!("POST /set HTTP/1.1\r\nhost: t\r\n{headers}\r\n\r\n");
        let answered = fixture.raw(&[head.as_bytes(), &body].concat()).await;
        assert_eq!(
            (answered.code, answered.text()),
            (413, "\"the body is larger than 1000 bytes\"\n"),
            "{headers}"
        );
        assert_eq!(answered.header("connection"), Some("close"), "{headers}");
    }
}

#[tokio::test]
async fn the_largest_value_fits_and_one_byte_more_does_not() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let body =
        |length: usize| format!(r#"{{"key":"k","value":"{}","action":"set"}}"#, "\\u0001".repeat(length));
    assert_eq!(fixture.ask("POST", "/set", body(VALUE_BYTES_MAX).as_bytes()).await.code, 200);
    let read = fixture.ask("GET", "/get?key=k", b"").await;
    let json: serde_json::Value = serde_json::from_slice(&read.body).expect("JSON");
    assert_eq!(json["value"].as_str().map(str::len), Some(VALUE_BYTES_MAX));
    let refused = fixture.ask("POST", "/set", body(VALUE_BYTES_MAX + 1).as_bytes()).await;
    assert_eq!((refused.code, refused.text()), (413, "\"the value is larger than 1048576 bytes\"\n"));
}

#[tokio::test]
async fn heads_that_are_too_large_or_no_http_are_refused() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let long = format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", "x: y\r\n".repeat(200));
    let uri = format!("GET /get?key={} HTTP/1.1\r\nhost: t\r\n\r\n", "x".repeat(70_000));
    for (request, code) in [
        (long.as_str(), 431),
        (&many, 431),
        (&uri, 414),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: t\r\nbad header\r\n\r\n", 400),
        ("POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: x\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1} a TLS client's hello\r\n\r\n", 400),
        // What stands behind it would be passed over: another key is written, or all are deleted.
        ("PUT /v1/kv/issue#1 HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\n\r\nx", 400),
        ("DELETE /v1/kv?prefix=a#zz HTTP/1.1\r\nhost: t\r\n\r\n", 400),
        ("GET http://t/v1/kv/issue# HTTP/1.1\r\nhost: t\r\n\r\n", 400),
    ] {
        assert_eq!(fixture.raw(request.as_bytes()).await.code, code, "{request:.40}");
    }
    assert_eq!(fixture.ask("GET", "/livez", b"").await.code, 200, "it goes on serving others");
    assert_eq!(fixture.ask("GET", "/v1/kv/issue", b"").await.code, 404, "nothing was written");
}

/// In a header and in a body it stands for itself, and percent-encoded in a key. A request may come
/// in pieces of any size.
#[tokio::test]
async fn a_number_sign_is_only_refused_in_a_request_line() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for step in [1, 7, 1000] {
        let mut stream = BufReader::new(fixture.connect().await);
        for (request, code) in [
            ("PUT /v1/kv/a%23b HTTP/1.1\r\nhost: t\r\nx: #\r\ncontent-length: 7\r\n\r\n#\r\n #\r\n", 200),
            ("GET /v1/kv/a%23b HTTP/1.1\r\nhost: t\r\n\r\n", 200),
            ("GET /v1/kv/a#b HTTP/1.1\r\nhost: t\r\n\r\n", 400),
        ] {
            for piece in request.as_bytes().chunks(step) {
                // The rest of it is not waited for.
                let _ = stream.get_mut().write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let answered = read_answer(&mut stream).await;
            assert_eq!(answered.code, code, "{request} by {step}: {}", answered.text());
        }
        assert_eq!(stream.read(&mut [0; 1]).await.expect("it is closed"), 0);
    }
}

/// Also one of a request that is refused for something else before it is read.
#[tokio::test]
async fn a_client_may_send_all_of_a_body_that_nobody_reads() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    for (target, code) in [
        ("/v1/kv/k?unknown=1", 400),
        ("/v1/kv/?", 400),
        ("/v1/nothing", 404),
        ("/v1/status", 405),
        ("/nothing", 404),
    ] {
        let mut stream = fixture.connect().await;
        let head = format!("PUT {target} HTTP/1.1\r\nhost: t\r\ncontent-length: 4000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        // It has answered before the body is sent.
        stream.readable().await.expect("an answer");
        for _ in 0..40 {
            stream.write_all(&[b'x'; 100_000]).await.expect("it can be sent");
            tokio::task::yield_now().await;
        }
        let answered = receive_all(&mut stream).await;
        assert_eq!((answered.code, answered.header("connection")), (code, Some("close")), "{target}");
        // A small one is taken, and the connection goes on.
        let mut stream = fixture.connect().await;
        let refused = format!("PUT {target} HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\n");
        stream.write_all(refused.as_bytes()).await.expect("sent");
        stream
            .write_all(b"12345GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
            .await
            .expect("sent");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.expect("both answers");
        let text = String::from_utf8(received).expect("text");
        assert!(text.contains(&format!("HTTP/1.1 {code}")) && text.ends_with("ok\n"), "{target}: {text}");
    }
}

#[tokio::test]
async fn a_connection_above_the_limit_is_told_so() {
    let fixture = Fixture::start(HttpOptions { connections_max: 1, ..HttpOptions::default() }).await;
    let mut first = fixture.connect().await;
    let mut second = fixture.connect().await;
    let refused = receive_all(&mut second).await;
    assert_eq!((refused.code, refused.text()), (503, "\"too many connections\"\n"));
    assert_eq!(refused.header("infinitystore-outcome"), Some("not-appended"));
    assert_eq!(refused.header("content-length"), Some(refused.body.len().to_string().as_str()));
    first.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await.expect("sent");
    assert_eq!(receive_all(&mut first).await.code, 200, "the first is served");
}

#[tokio::test]
async fn a_head_that_does_not_end_and_a_connection_that_does_nothing_are_closed() {
    let options =
        HttpOptions { header_timeout_seconds: 0, idle_timeout_seconds: 1, ..HttpOptions::default() };
    let fixture = Fixture::start(options).await;
    let mut idle = fixture.connect().await;
    let mut slow = fixture.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.expect("sent");
    // Both are closed by the server: reading ends.
    assert_eq!(slow.read(&mut [0; 1]).await.expect("the end"), 0);
    assert_eq!(idle.read(&mut [0; 1]).await.expect("the end"), 0);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408() {
    let fixture = Fixture::start(HttpOptions { body_timeout_seconds: 0, ..HttpOptions::default() }).await;
    let answered = fixture.raw(b"POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n{").await;
    assert_eq!(answered.code, 408);
}

#[tokio::test]
async fn a_body_that_is_cut_short_changes_nothing() {
    let fixture = Fixture::start(HttpOptions::default()).await;
    let body = r#"{"key":"foo","value":"bar","action":"set"}"#;
    let request =
        format!("POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}", body.len() + 1);
    let mut stream = fixture.connect().await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("sent");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.expect("the end");
    assert_eq!(fixture.ask("GET", "/get?key=foo", b"").await.code, 404);
}
