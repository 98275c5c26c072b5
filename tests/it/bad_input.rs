//! What strangers, mistakes and broken clients send; and what is said about it.

use crate::support::{Cluster, Connection, Node, eventually, failed_start, failed_start_with, free_port};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use tempfile::TempDir;

#[test]
fn oversized_requests_are_refused_and_change_nothing() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    let set = |key: &str, value: &str| node.set(key, value).status;
    assert_eq!(set(&"k".repeat(64 << 10), "v"), 200, "the longest key");
    assert_eq!(set(&"k".repeat((64 << 10) + 1), "v"), 413, "a longer key");
    assert_eq!(set("k", &"v".repeat(1 << 20)), 200, "the longest value");
    assert_eq!(set("k", &"v".repeat((1 << 20) + 1)), 413, "a longer value");

    // 64 MB, announced: refused before they are sent.
    let mut connection = Connection::open(node.http_port).unwrap();
    let response =
        connection.raw(b"POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: 67108864\r\n\r\n").unwrap();
    assert_eq!(response.status, 413);
    // Not announced.
    let mut connection = Connection::open(node.http_port).unwrap();
    let mut chunks = b"POST /set HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..16 {
        chunks.extend_from_slice(b"100000\r\n");
        chunks.extend_from_slice(&[b' '; 0x10_0000]);
        chunks.extend_from_slice(b"\r\n");
    }
    assert_eq!(connection.raw(&chunks).unwrap().status, 413);
    // Headers without end.
    let mut connection = Connection::open(node.http_port).unwrap();
    let headers = format!("GET /livez HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    assert_eq!(connection.raw(headers.as_bytes()).unwrap().status, 431);

    assert_eq!(node.status().unwrap()["revision"], 2, "only the two that were accepted are in the store");
}

#[test]
fn malformed_requests_are_answered_or_closed_and_the_node_goes_on() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    for request in [
        &b"\r\n\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /get?key=k HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /get?key=%zz HTTP/1.1\r\nhost: t\r\n\r\n",
        b"GET /get?key=%ff%fe HTTP/1.1\r\nhost: t\r\n\r\n",
        b"POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\n",
        b"POST /set HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\n\xff\xfe\xfd\xfc",
        b"POST /set HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{\"key\"",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", node.http_port)).unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A reset instead of an answer is fine too.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let refused =
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 505");
        assert!(refused, "{:?} was answered {answer:?}", request.escape_ascii().to_string());
    }
    assert_eq!(node.set("k", "v").status, 200);
    assert_eq!(node.status().unwrap()["revision"], 1);
}

#[test]
fn garbage_on_the_raft_port_is_turned_away_with_a_word_in_the_log() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    // As of a browser, a TLS client, a stray zero, and one of us of another version.
    let mut newer = b"InfStore".to_vec();
    newer.extend_from_slice(&999_u16.to_le_bytes());
    newer.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let requests: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        &[0; 4096],
        &newer,
        &[0xff; 1 << 16],
    ];
    for request in requests {
        let mut stream = TcpStream::connect(("127.0.0.1", node.raft_port)).unwrap();
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 4096, "a stranger is not told much");
    }
    eventually("the log to speak of it", || node.log().contains("does not speak").then_some(()));
    // Nobody waits for one who says nothing.
    let silent = TcpStream::connect(("127.0.0.1", node.raft_port)).unwrap();
    assert_eq!(node.set("k", "v").status, 200);
    drop(silent);
}

#[test]
fn wrong_usage_is_told_and_exits_with_2() {
    let dir = TempDir::new().unwrap();
    for (flags, mentions) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["--node-id=a/b"], "--node-id"),
        (&["--node-id="], "--node-id"),
        (&["--raft-addr=nowhere"], "--raft-addr"),
        (&["--http-addr=localhost:99999"], "--http-addr"),
        (&["--election-timeout=1ms"], "--election-timeout"),
        (&["--election-timeout=soon"], "--election-timeout"),
        (&["--join=nowhere"], "nowhere"),
        (&["--join="], "--join"),
        (&["--heartbeat-interval=1us"], "--heartbeat-interval"),
        (&["bench", "--endpoints="], "--endpoints"),
        (&["bench", "--endpoints=localhost"], "HOST:PORT"),
    ] {
        let (code, text) = failed_start(dir.path(), flags);
        assert_eq!(code, 2, "{flags:?}: {text}");
        assert!(text.contains(mentions), "{flags:?}: {text}");
        assert!(!text.contains("panicked"), "{flags:?}: {text}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was made on the disk");
}

#[test]
fn an_empty_variable_counts_as_one_that_is_not_set() {
    let dir = TempDir::new().unwrap();
    let mut node = Node::new(dir.path(), "unset", &[]);
    for name in [
        "DATA_DIR",
        "JOIN",
        "ADVERTISE_RAFT_ADDR",
        "ADVERTISE_HTTP_ADDR",
        "HEARTBEAT_INTERVAL",
        "SEGMENT_BYTES",
        "THREADS",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "STOP_WITH_STDIN",
    ] {
        node = node.with_variable(&format!("INFINITYSTORE_{name}"), "");
    }
    node.start();
    node.wait_until_ready();
    assert_eq!(node.set("k", "v").status, 200, "it waits for no cluster to join");
    assert!(node.data_dir().exists());
    assert!(node.log().contains("INFO"), "the usual lines");
}

#[test]
fn a_bad_value_is_reported_under_the_name_it_was_given_by() {
    let dir = TempDir::new().unwrap();
    for (variable, value, flags, flag) in [
        // What the parser refuses, and what is refused after it.
        ("INFINITYSTORE_THREADS", "x", &[][..], "--threads"),
        ("INFINITYSTORE_LOG_FORMAT", "xml", &[], "--log-format"),
        ("INFINITYSTORE_BENCH_CLIENTS", "0", &["bench"], "--clients"),
        ("INFINITYSTORE_HEARTBEAT_INTERVAL", "1us", &[], "--heartbeat-interval"),
        ("INFINITYSTORE_LOG_LEVEL", "bogus", &[], "--log-level"),
    ] {
        let (code, text) = failed_start_with(dir.path(), flags, &[(variable, value)]);
        assert_eq!(code, 2, "{variable}: {text}");
        assert!(text.contains(variable) && text.contains(flag), "{variable}: {text}");
        // The same value as a flag is the flag's alone, whatever the environment says.
        let written = format!("{flag}={value}");
        let flags: Vec<&str> = flags.iter().copied().chain([&*written]).collect();
        let (code, text) = failed_start_with(dir.path(), &flags, &[(variable, "7")]);
        assert_eq!(code, 2, "{flag}: {text}");
        assert!(text.contains(flag) && !text.contains(variable), "{flag}: {text}");
    }
}

#[test]
fn ports_that_are_in_use_are_told_and_exit_with_4() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    for (raft, http, flag) in
        [(taken_port, free_port(), "--raft-addr"), (free_port(), taken_port, "--http-addr")]
    {
        let flags = [&*format!("--raft-addr=127.0.0.1:{raft}"), &*format!("--http-addr=:{http}")];
        let (code, text) = failed_start(dir.path(), &flags);
        assert_eq!(code, 4, "{text}");
        assert!(text.contains("in use") && text.contains(flag), "{text}");
        assert!(text.contains(&taken_port.to_string()), "{text}");
    }
    // Not an address of this machine.
    let (code, text) = failed_start(
        dir.path(),
        &["--raft-addr=192.0.2.1:8000", "--insecure", &format!("--http-addr=:{}", free_port())],
    );
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("192.0.2.1"), "{text}");
}

#[test]
fn a_dead_or_wrong_address_costs_the_cluster_nothing() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.start_node();
    let [first, other] = &cluster.nodes[..] else { panic!("two nodes were started") };
    let dead = free_port();
    for (name, addr) in [
        ("node-9", format!("localhost:{dead}")),
        ("node-9", "no-such-host.invalid:8000".to_owned()),
        // The HTTP port instead of the raft port.
        ("node-2", format!("localhost:{}", other.http_port)),
    ] {
        let answer = first.call("POST", &format!("/join?nodeid={name}&nodeaddr={addr}"), "");
        assert_eq!(answer.pair(), (500, "\"Failed to add voter \"\n"), "{addr}");
        assert!(answer.header("infinitystore-reason").is_some(), "{addr}: it says why");
    }
    // Another name than the node has.
    let answer =
        first.call("POST", &format!("/join?nodeid=wrong&nodeaddr=localhost:{}", other.raft_port), "");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("node-2"), "{answer:?}");
    assert_eq!(first.status().unwrap()["members"].as_array().unwrap().len(), 1);
    assert_eq!(first.set("k", "v").status, 200);

    // One that is told to join a dead address goes on trying, and says so.
    let dir = TempDir::new().unwrap();
    let lonely = Node::new(dir.path(), "lonely", &[&format!("--join=localhost:{dead}")]);
    lonely.start();
    eventually("the log to speak of the dead address", || {
        lonely.log().contains(&dead.to_string()).then_some(())
    });
    assert_eq!(lonely.get("/livez").status, 200);
    assert_eq!(lonely.set("k", "v").status, 500, "it takes no write before it has joined");
}

#[test]
fn a_node_that_is_told_to_join_itself_says_so() {
    let dir = TempDir::new().unwrap();
    let selfish = Node::new(dir.path(), "selfish", &[])
        .with_flag(|node| format!("--join=localhost:{}", node.raft_port));
    selfish.start();
    eventually("the log to speak of it", || selfish.log().contains("is this node itself").then_some(()));
    assert!(selfish.log().contains("--join names members of the cluster to join"), "the remedy");
    assert!(!selfish.log().contains("joined the cluster"));
    assert_eq!(selfish.set("k", "v").status, 500, "it takes no write before it has joined");
}

#[test]
fn a_node_whose_output_nobody_reads_serves_and_stops_well() {
    let dir = TempDir::new().unwrap();
    let node = Node::new(dir.path(), "unheard", &["--log-level=debug"]);
    node.start_unheard();
    node.wait_until_ready();
    assert_eq!(node.set("k", "v").status, 200);
    assert_eq!(node.get("/get?key=k").status, 200);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_for_end().code(), Some(0));
}

#[test]
fn a_load_that_reaches_nobody_fails_and_names_the_endpoints() {
    let dir = TempDir::new().unwrap();
    let endpoint = format!("localhost:{}", free_port());
    let flags = ["bench", &format!("--endpoints={endpoint}"), "--seconds=1", "--warmup=0", "--clients=1"];
    let (code, text) = failed_start(dir.path(), &flags);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("no request succeeded") && text.contains(&endpoint), "{text}");
    assert!(text.contains("--endpoints"), "the remedy: {text}");
}
