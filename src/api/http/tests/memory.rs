//! One budget for all that clients cause to be held.

use crate::api::HttpOptions;
use crate::api::http::tests::fixture::{Answered, Fixture, receive_all, take_apart};
use crate::kv::VALUE_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

const NO_ROOM: &str = "\"too many bytes of requests and answers are held now; try again\"\n";

fn with_memory(memory_bytes_max: usize) -> HttpOptions {
    HttpOptions { memory_bytes_max, ..HttpOptions::default() }
}

/// A write whose body has begun and does not end.
async fn begin(fixture: &Fixture, headers: &str, start: &[u8]) -> TcpStream {
    let mut stream = fixture.connect().await;
    let head = format!("POST /set HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\n{headers}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), start].concat()).await.expect("sent");
    stream
}

/// The first line that comes back, without its end: the server says `100 Continue` when it has made
/// room for the body.
async fn first_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.expect("an answer"));
    }
    String::from_utf8(line).expect("text").trim_end().to_owned()
}

/// An answer that is this large does not fit into the buffers of the system.
const LARGE_BYTES: usize = 6 * VALUE_BYTES_MAX;

/// A value whose answer is of [`LARGE_BYTES`], and a little more.
async fn set_large(fixture: &Fixture) {
    let value = "\\u0001".repeat(VALUE_BYTES_MAX);
    let body = format!(r#"{{"key":"large","value":"{value}","action":"set"}}"#);
    assert_eq!(fixture.ask("POST", "/set", body.as_bytes()).await.code, 200);
}

/// Asks for large values over a connection that takes little in before it is read.
async fn ask_and_do_not_read(fixture: &Fixture, times: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(fixture.addr.parse().expect("an address")).await.expect("it listens");
    let request = "GET /get?key=large HTTP/1.1\r\nhost: t\r\n\r\n".repeat(times);
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

pub(super) async fn read_answer(stream: &mut BufReader<TcpStream>) -> Answered {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.expect("a head"));
    }
    let head = take_apart(&bytes);
    let length = head.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    Answered { body, ..head }
}

/// Waits until an answer has begun to arrive; nothing of it is taken.
async fn wait_for_answer(stream: &TcpStream) {
    let mut first = [0];
    assert_eq!(stream.peek(&mut first).await.expect("an answer"), 1);
}

#[tokio::test]
async fn bodies_beyond_the_budget_are_refused_before_they_are_read() {
    let fixture = Fixture::start(with_memory(1200 << 10)).await;
    let mut held = begin(&fixture, "content-length: 400000", b"").await;
    assert_eq!(first_line(&mut held).await, "HTTP/1.1 100 Continue");
    assert_eq!(first_line(&mut held).await, "");
    held.write_all(&[b' '; 399_999]).await.expect("sent");
    // As long as the node has not read that, there is room.
    let answered = loop {
        let mut other = begin(&fixture, "content-length: 400000", b"").await;
        if first_line(&mut other).await != "HTTP/1.1 100 Continue" {
            let mut again = begin(&fixture, "content-length: 400000", b"").await;
            break receive_all(&mut again).await;
        }
    };
    assert_eq!((answered.code, answered.text()), (503, NO_ROOM));
    assert_eq!(answered.header("infinitystore-outcome"), Some("not-appended"));
    assert_eq!(answered.header("retry-after"), Some("1"));
    let small = br#"{"key":"foo","value":"bar","action":"set"}"#;
    assert_eq!(fixture.ask("POST", "/set", small).await.code, 200, "what fits is taken");
    assert_eq!(fixture.ask("GET", "/livez", b"").await.code, 200);

    // The first one is given up by its client; its room is free when the server has ended the
    // connection.
    held.shutdown().await.expect("sent");
    let mut rest = Vec::new();
    held.read_to_end(&mut rest).await.expect("the end");
    let mut next = begin(&fixture, "content-length: 400000", b"").await;
    assert_eq!(first_line(&mut next).await, "HTTP/1.1 100 Continue");
}

#[tokio::test]
async fn who_announces_a_lot_and_sends_little_holds_little() {
    let fixture = Fixture::start(with_memory(4 << 20)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = begin(&fixture, "content-length: 1000000", b"").await;
        assert_eq!(first_line(&mut stream).await, "HTTP/1.1 100 Continue");
        silent.push(stream);
    }
    assert!(fixture.memory_used() <= 20 * (36 << 10), "{}", fixture.memory_used());
    let write = [br#"{"key":"foo","value":"bar","action":"set"}"#.as_slice(), &[b' '; 1 << 20]].concat();
    assert_eq!(fixture.ask("POST", "/set", &write).await.code, 200, "there is room for others");
}

#[tokio::test]
async fn a_body_of_unknown_length_takes_room_as_it_grows() {
    let fixture = Fixture::start(with_memory(1 << 20)).await;
    let chunk = [b"20000\r\n".as_slice(), &[b' '; 0x20000], b"\r\n"].concat();
    let mut stream = begin(&fixture, "transfer-encoding: chunked", b"").await;
    assert_eq!(first_line(&mut stream).await, "HTTP/1.1 100 Continue");
    assert_eq!(first_line(&mut stream).await, "");
    // Five chunks of 128 KiB, counted twice, are more than there is room for.
    let sent = stream.write_all(&chunk.repeat(5)).await;
    let answered = receive_all(&mut stream).await;
    assert_eq!((answered.code, answered.text()), (503, NO_ROOM), "{sent:?}");
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded() {
    // Three quarters of it have room for two.
    let fixture = Fixture::start(with_memory(20 << 20)).await;
    set_large(&fixture).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let stream = ask_and_do_not_read(&fixture, 1).await;
        wait_for_answer(&stream).await;
        held.push(BufReader::new(stream));
    }
    let refused = fixture.ask("GET", "/get?key=large", b"").await;
    assert_eq!((refused.code, refused.body.len()), (503, NO_ROOM.len()));
    assert_eq!(refused.text(), NO_ROOM);
    assert_eq!(fixture.ask("GET", "/get?key=missing", b"").await.code, 404, "what fits is answered");
    let write = [br#"{"key":"foo","value":"bar","action":"set"}"#.as_slice(), &[b' '; 1 << 20]].concat();
    assert_eq!(fixture.ask("POST", "/set", &write).await.code, 200, "readers do not keep writers out");

    let read = read_answer(&mut held[0]).await;
    assert!(read.code == 200 && read.body.len() > LARGE_BYTES);
    let answered = fixture.ask("GET", "/get?key=large", b"").await;
    assert_eq!(answered.code, 200, "what was read is free again");
}

#[tokio::test]
async fn a_client_that_pipelines_and_does_not_read_holds_one_answer() {
    let fixture = Fixture::start(with_memory(64 << 20)).await;
    set_large(&fixture).await;
    let stream = ask_and_do_not_read(&fixture, 5).await;
    wait_for_answer(&stream).await;
    // Answers of others, between which this one could have gone on.
    for _ in 0..3 {
        assert_eq!(fixture.ask("GET", "/get?key=missing", b"").await.code, 404);
    }
    let used = fixture.memory_used();
    assert!((LARGE_BYTES..2 * LARGE_BYTES).contains(&used), "{used} bytes are held");
    let mut stream = BufReader::new(stream);
    for _ in 0..5 {
        let answered = read_answer(&mut stream).await;
        assert!(answered.code == 200 && answered.body.len() > LARGE_BYTES);
    }
    assert_eq!(fixture.memory_used(), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_read_in_time_ends_the_connection_and_frees_its_room() {
    let options = HttpOptions {
        write_timeout_seconds: 0,
        write_bytes_per_second_min: usize::MAX,
        ..with_memory(20 << 20)
    };
    let fixture = Fixture::start(options).await;
    set_large(&fixture).await;
    let mut stream = ask_and_do_not_read(&fixture, 1).await;
    wait_for_answer(&stream).await;
    // The server ends it, which frees its room.
    fixture.wait_until_all_closed().await;
    assert_eq!(fixture.memory_used(), 0);
    let mut rest = Vec::new();
    // Cut short, or reset.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < LARGE_BYTES, "{} bytes came", rest.len());
}

#[tokio::test]
async fn heads_that_do_not_end_count() {
    let fixture = Fixture::start(HttpOptions { header_bytes_max: 80 << 10, ..with_memory(100 << 10) }).await;
    let start = format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}", "x".repeat(60_000));
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = fixture.connect().await;
        stream.write_all(start.as_bytes()).await.expect("sent");
        streams.push(stream);
    }
    // Those for which there is no room are told so; the others can be ended.
    let mut codes = Vec::new();
    for mut stream in streams {
        let sent = stream.write_all(b"\r\nconnection: close\r\n\r\n").await;
        codes.push((receive_all(&mut stream).await.code, sent.is_ok()));
    }
    let refused = codes.iter().filter(|(code, _)| *code == 503).count();
    assert!(refused > 0 && codes.iter().all(|(code, _)| matches!(code, 200 | 503)), "{codes:?}");
    assert_eq!(fixture.memory_used(), 0);
}
