//! What a node's status is in a line.

use crate::cli::ask::status::{Answer, render, role};
use crate::client::Endpoint;
use serde_json::{Value, json};

/// What a node says that takes part, with some of it otherwise.
fn status(other: &[(&str, Value)]) -> Value {
    let mut status = json!({
        "version": "1", "cluster": "c", "name": "node-3", "id": 3, "role": "follower", "term": 7,
        "leader": { "id": 1, "name": "node-1", "raft_addr": null, "http_addr": null },
        "last_log": { "term": 7, "index": 9 }, "commit_index": 9, "applied_index": 9, "revision": 5,
        "keys": 2, "store_bytes": 10, "state_hash": "0", "members": [], "removed": false,
        "joining": false, "stopped": null, "withdrawn": null,
    });
    for (name, value) in other {
        status[*name] = value.clone();
    }
    status
}

/// The line of a node with this answer, and its role for scripts.
fn shown(answer: Answer) -> (String, String) {
    let endpoint: Endpoint = "localhost:8001".parse().unwrap();
    let raw = role(&answer).to_owned();
    let text = render(&[(&endpoint, answer)]);
    let line = text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    (line, raw)
}

#[test]
fn a_node_that_takes_part_needs_no_remark() {
    let (line, raw) = shown(Ok(status(&[])));
    assert_eq!((&*line, &*raw), ("localhost:8001 node-3 follower 7 node-1 5 2 10 1", "follower"));
}

#[test]
fn a_node_that_is_no_member_says_so_and_names_no_leader() {
    let (line, raw) = shown(Ok(status(&[("removed", json!(true))])));
    assert!(line.starts_with("localhost:8001 node-3 removed 7 - 5 2 10 1 it was removed"), "{line}");
    assert_eq!(raw, "removed");
    let own = json!({ "id": 1, "name": "node-3", "raft_addr": null, "http_addr": null });
    let waits = [("joining", json!(true)), ("role", json!("leader")), ("leader", own)];
    let (line, raw) = shown(Ok(status(&waits)));
    assert!(line.starts_with("localhost:8001 node-3 joining 7 - 5 2 10 1 it waits"), "{line}");
    assert_eq!(raw, "joining");
}

#[test]
fn a_node_that_wants_credentials_is_not_unavailable() {
    for (ready, word) in [(true, "ready"), (false, "not-ready")] {
        let (line, raw) = shown(Ok(json!({ "alive": true, "ready": ready })));
        assert_eq!(raw, word);
        assert!(line.starts_with(&format!("localhost:8001 - {word} it tells more")), "{line}");
        assert!(line.contains("--token"), "{line}");
    }
}
