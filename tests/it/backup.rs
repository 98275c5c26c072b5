//! Backups of real clusters: saved under load, restored, equal; and whatever is not whole, refused.

use crate::support::{Cluster, Load, Node, Shell, argument, eventually};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Restores a backup into the data directory of a node that is not there yet.
fn restored(shell: &Shell, file: &Path, node: &Node) {
    let (dir, name) = (node.data_dir(), &node.name);
    shell.run(&["backup", "restore", argument(file), "--data-dir", argument(&dir), "--node-id", name]).ok();
}

#[test]
fn a_backup_under_load_is_restored_into_a_new_cluster_and_equal_at_its_revision() {
    let cluster = Cluster::start(3, &[]);
    let shell = Shell::of(&cluster.nodes);
    shell.run(&["kv", "put", "before", "the load"]).ok();
    shell.run(&["kv", "put", "leased", "x", "--ttl", "600s"]).ok();
    let load = Load::fresh_keys(&cluster.nodes, 8);
    let file = cluster.dir.path().join("all.backup");
    // From each of the members, and all of them while the others write.
    for node in &cluster.nodes {
        let other = cluster.dir.path().join(format!("{}.backup", node.name));
        let said = Shell::of([node]).run(&["backup", "save", argument(&other)]);
        assert!(said.ok().contains(" as of revision "), "{said:?}");
        shell.run(&["backup", "verify", argument(&other)]).ok();
    }
    shell.run(&["backup", "save", argument(&file)]).ok();
    load.wait_for(200);
    let seen = load.finish(&cluster.nodes);
    assert!(seen.operations.len() > 100, "there was a load");
    let described = json_of(shell.run(&["backup", "inspect", argument(&file), "-o", "json"]).ok());
    assert_eq!(described["leases"], 1);
    let status = cluster.nodes[0].status().unwrap();
    assert_eq!(described["cluster"], status["cluster"]);

    let mut new = Cluster::prepare("restored");
    let node = &new.nodes[0];
    restored(&shell, &file, node);
    node.start();
    node.wait_until_ready();
    let restored = node.status().unwrap();
    for field in ["revision", "keys", "store_bytes", "state_hash", "compacted", "history_bytes"] {
        assert_eq!(restored[field], described[field], "{field}");
    }
    assert_ne!(restored["cluster"], described["cluster"], "a cluster of its own");
    // The old cluster answers the same at that revision.
    let at = format!("/v1/kv?at={}&count_only", described["revision"]);
    let count = |node: &Node| json_of(&node.get(&at).body)["count"].clone();
    assert_eq!((count(node), &described["keys"]), (count(&cluster.nodes[1]), &described["keys"]));
    // The lease has its whole time again.
    let lease = json_of(&node.get("/v1/leases/1").body);
    assert!(lease["left"].as_f64().unwrap() > 500.0, "{lease}");
    // Revisions go on, and others join.
    let put = json_of(&node.call("PUT", "/v1/kv/after", "x").body);
    assert_eq!(put["revision"].as_u64(), described["revision"].as_u64().map(|revision| revision + 1));
    new.add_node();
    new.assert_same_state();
    assert_eq!(new.nodes[1].get("/v1/kv/before").body, "the load");
}

#[test]
fn nothing_is_overwritten_and_what_is_damaged_is_refused() {
    let cluster = Cluster::start(1, &[]);
    let shell = Shell::of(&cluster.nodes);
    let path = |name: &str| cluster.dir.path().join(name);
    shell.run(&["kv", "put", "k", "v"]).ok();
    let file = path("a.backup");
    shell.run(&["backup", "save", argument(&file)]).ok();
    let bytes = fs::read(&file).unwrap();
    shell.run(&["backup", "save", argument(&file)]).failed(2, "exists");
    assert_eq!(fs::read(&file).unwrap(), bytes);

    let damaged = path("damaged.backup");
    let mut wrong = bytes.clone();
    wrong[bytes.len() / 2] ^= 1;
    for (content, what) in [
        (&wrong[..], "damaged"),
        (&bytes[..bytes.len() - 1], "cut short"),
        (&bytes[..50], "cut short"),
        (b"what?", "no backup"),
    ] {
        fs::write(&damaged, content).unwrap();
        let dir = path("nowhere");
        let damaged = argument(&damaged);
        shell.run(&["backup", "verify", damaged]).failed(3, what);
        shell.run(&["backup", "inspect", damaged]).failed(3, what);
        shell.run(&["backup", "restore", damaged, "--data-dir", argument(&dir)]).failed(3, what);
        assert!(!dir.exists(), "{what}");
    }
    let data = cluster.nodes[0].data_dir();
    shell.run(&["backup", "restore", argument(&file), "--data-dir", argument(&data)]).failed(3, "not empty");
    assert_eq!(shell.run(&["kv", "get", "k"]).ok(), "v");
    shell.run(&["backup", "verify", argument(&path("none"))]).failed(1, "cannot read");
    Shell::at("localhost:1").run(&["backup", "save", argument(&path("b.backup"))]).failed(5, "localhost:1");
    assert!(!path("b.backup").exists());
}

/// A node is killed while a client takes a backup from it: nothing is left that looks whole.
#[test]
fn a_backup_that_breaks_off_leaves_no_file() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    let value = "x".repeat(1 << 20);
    for key in 0..24 {
        assert_eq!(node.call("PUT", &format!("/v1/kv/{key}"), &value).status, 200);
    }
    // Between the two: what stops handing on when a little has passed.
    let relay = Relay::start(node.http_port, 4 << 20);
    let shell = Shell::at(&format!("localhost:{}", relay.port));
    let file = cluster.dir.path().join("broken.backup");
    shell.run(&["backup", "save", argument(&file)]).failed(5, "");
    assert!(!file.exists());
    let left: Vec<_> =
        fs::read_dir(cluster.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("backup")), "{left:?}");
}

/// A member serves, and applies what others write, while a client takes a backup and does not read.
#[test]
fn a_slow_client_holds_nothing_up_and_only_two_are_served() {
    let cluster = Cluster::start(3, &[]);
    let follower = (cluster.leader() + 1) % 3;
    let node = &cluster.nodes[follower];
    let value = "x".repeat(1 << 20);
    for key in 0..24 {
        assert_eq!(node.call("PUT", &format!("/v1/kv/{key}"), &value).status, 200);
    }
    let begin = || {
        let mut stream = TcpStream::connect(("127.0.0.1", node.http_port)).unwrap();
        stream.write_all(b"GET /v1/snapshot HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        stream
    };
    let slow = [begin(), begin()];
    let third = node.get("/v1/snapshot");
    assert_eq!(third.status, 503, "{}", third.body);
    assert_eq!(json_of(&third.body)["code"], "overloaded");
    for round in 0..50 {
        assert_eq!(node.call("PUT", "/v1/kv/k", &round.to_string()).status, 200);
        assert_eq!(node.get("/v1/kv/k").body, round.to_string());
    }
    cluster.assert_same_state();
    drop(slow);
    // Their places are free again.
    eventually("a place for a backup", || Some(begin_if_free(node)).filter(|free| *free));
}

fn begin_if_free(node: &Node) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", node.http_port)).unwrap();
    stream.write_all(b"GET /v1/snapshot HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    &head == b"HTTP/1.1 200"
}

/// Hands bytes of a node on, and breaks off after so many.
struct Relay {
    port: u16,
}

impl Relay {
    fn start(to: u16, bytes: u64) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(node) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let (mut from_client, mut to_node) = (client.try_clone().unwrap(), node.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from_client, &mut to_node)));
                let mut client = client;
                let _ = std::io::copy(&mut node.take(bytes), &mut client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            }
        });
        Self { port }
    }
}
