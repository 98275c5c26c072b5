//! A write whose answer is lost on its way, repeated at another node: before its answer is
//! forgotten, and after.

use crate::support::{Cluster, Connection, Shell, call};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// What becomes of a request, between the command line and a node.
enum Fate {
    /// It is passed on, and its answer comes back.
    Relay,
    /// It is passed on, and the connection breaks before its answer comes back.
    LoseAnswer,
    /// The connection breaks before it is passed on.
    HangUp,
}

/// Stands between clients and a node; `decide` is asked about the first line of each request. Where
/// it listens.
fn between(node: u16, mut decide: impl FnMut(&str) -> Fate + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while let Some(request) = read_request(&mut stream) {
                let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
                let fate = decide(&line);
                if let Fate::HangUp = fate {
                    break;
                }
                let answer = Connection::open(node).unwrap().raw(&request).unwrap();
                if let Fate::LoseAnswer = fate {
                    break;
                }
                let headers: String =
                    answer.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let text = format!("HTTP/1.1 {} x\r\n{headers}\r\n{}", answer.status, answer.body);
                stream.write_all(text.as_bytes()).unwrap();
            }
        }
    });
    address
}

fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    request.extend(body);
    Some(request)
}

/// Loses the answer to the first write, and takes nothing more.
fn first_node(node: u16) -> String {
    let mut writes = 0;
    between(node, move |line| {
        if line.starts_with("GET ") {
            return Fate::Relay;
        }
        writes += 1;
        if writes == 1 { Fate::LoseAnswer } else { Fate::HangUp }
    })
}

/// Answers of 100 KiB, under idempotency keys, in the least room that there can be.
fn push_answers_out(node: u16) {
    let settings = r#"{"history_bytes":67108864,"quota_bytes":4294967296,"answers_bytes":1048576}"#;
    assert_eq!(call(node, "PUT", "/v1/settings", settings).unwrap().status, 200);
    assert_eq!(call(node, "PUT", "/v1/kv/large", &"x".repeat(100 << 10)).unwrap().status, 200);
    let read = r#"{"then":[{"get":{"key":"large"}},{"put":{"key":"other","value":""}}]}"#;
    for number in 0..12 {
        let request = format!(
            "POST /v1/txn HTTP/1.1\r\nhost: test\r\nidempotency-key: other {number}\r\ncontent-length: {}\r\n\r\n{read}",
            read.len()
        );
        assert_eq!(Connection::open(node).unwrap().raw(request.as_bytes()).unwrap().status, 200);
    }
}

#[test]
fn a_write_is_not_done_twice_whether_its_answer_is_remembered_or_not() {
    let cluster = Cluster::start(1, &[]);
    let node = cluster.nodes[0].http_port;
    let direct = Shell::of(&cluster.nodes);
    let second = between(node, |_| Fate::Relay);
    let shell = Shell::at(&format!("{},{second}", first_node(node)));
    assert_eq!(shell.run(&["kv", "incr", "n", "-o", "raw"]).ok(), "1\n", "the first answer");
    assert_eq!(direct.run(&["kv", "get", "n"]).ok(), "1");

    let second = between(node, move |line| {
        if line.starts_with("POST ") {
            push_answers_out(node);
        }
        Fate::Relay
    });
    let shell = Shell::at(&format!("{},{second}", first_node(node)));
    shell.run(&["kv", "incr", "n"]).failed(6, "answer-forgotten");
    assert_eq!(direct.run(&["kv", "get", "n"]).ok(), "2", "by the first attempt alone");
}
