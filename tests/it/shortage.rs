//! A node that runs out of what the system gives: file descriptors.

use crate::support::{Connection, Node, eventually};
use rustix::process::{Resource, Rlimit, prlimit};
use std::net::{SocketAddr, TcpStream};
use tempfile::TempDir;

/// Small files, so that the log needs new ones all the time.
const FLAGS: [&str; 2] = ["--segment-bytes=64KiB", "--snapshot-log-bytes=256KiB"];

fn large() -> String {
    "v".repeat(30_000)
}

#[test]
fn clients_beyond_the_limit_of_open_files_do_not_end_a_node() {
    let dir = TempDir::new().unwrap();
    let node = Node::new(dir.path(), "node-1", &FLAGS).with_open_files(256);
    node.start();
    node.wait_until_ready();
    let mut writer = Connection::open(node.http_port).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], node.http_port));
    let clients: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(addr).unwrap()).collect();
    // Far more files than the segment at hand.
    for number in 0..100 {
        let body = serde_json::json!({"key": number.to_string(), "value": large(), "action": "set"});
        let response = writer.request("POST", "/set", &body.to_string()).unwrap();
        assert_eq!(response.status, 200, "{}", response.body);
    }
    let status: serde_json::Value =
        serde_json::from_str(&writer.request("GET", "/v1/status", "").unwrap().body).unwrap();
    assert_eq!(status["http"]["open_files_max"], 256);
    assert_eq!(status["http"]["connections_low"], false, "one address has not all of them");
    assert!(node.log().contains("the limit of open files allows fewer http connections"), "{}", node.log());
    assert!(!node.log().contains("cannot accept"), "{}", node.log());
    drop(clients);
}

#[test]
fn a_node_without_descriptors_waits_for_them() {
    let dir = TempDir::new().unwrap();
    let node = Node::new(dir.path(), "node-1", &FLAGS);
    node.start();
    node.wait_until_ready();
    let mut writer = Connection::open(node.http_port).unwrap();
    let mut write = |number: usize| {
        let body = serde_json::json!({"key": number.to_string(), "value": large(), "action": "set"});
        writer.request("POST", "/set", &body.to_string()).unwrap().status
    };
    assert_eq!(write(0), 200);
    let pid = node.pid();
    let none = Rlimit { current: Some(3), maximum: Some(1024) };
    prlimit(Some(pid), Resource::Nofile, none).unwrap();
    let mut number = 1;
    // What is prepared ahead is used up, then a file has to be opened.
    eventually("the node to need a file", || {
        number += 1;
        // A write that has to wait is not known to have failed.
        let _ = write(number);
        node.log().contains("cannot open a file").then_some(())
    });
    // And a new connection cannot be accepted, which is said once.
    let clients: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(("127.0.0.1", node.http_port)).unwrap()).collect();
    eventually("the node to say that it cannot accept", || {
        node.log().contains("cannot accept http connections").then_some(())
    });
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(1024) }).unwrap();
    eventually("writes to go on", || {
        number += 1;
        (write(number) == 200).then_some(())
    });
    drop(clients);
    node.wait_until_ready();
    assert_eq!(node.log().matches("cannot accept http connections").count(), 1, "{}", node.log());
    assert_eq!(write(0), 200);
}

#[test]
fn one_address_with_all_its_connections_leaves_room_for_others() {
    let dir = TempDir::new().unwrap();
    let node = Node::new(dir.path(), "node-1", &["--http-connections=64"]);
    node.start();
    node.wait_until_ready();
    // Another address of this machine: Linux has all of 127.0.0.0/8.
    let greedy: Vec<TcpStream> = (0..200).map(|_| connect_from([127, 0, 0, 2], node.http_port)).collect();
    let answered = node.get("/livez");
    assert_eq!(answered.status, 200, "{}", answered.body);
    assert_eq!(node.set("foo", "bar").status, 200);
    assert_eq!(
        node.status().unwrap()["http"]["connections"].as_u64(),
        Some(49),
        "three of four, and this one"
    );
    drop(greedy);
}

/// A connection from an address of this machine.
fn connect_from(source: [u8; 4], port: u16) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    connect(&socket, &SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    TcpStream::from(socket)
}
