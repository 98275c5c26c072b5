//! `wal verify|stat`, `wal dump --json`, `snapshot dump|verify` and `recover`, on the files of real
//! nodes.

use crate::support::{Cluster, Ran, Shell, argument, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn nowhere() -> Shell {
    Shell::at("localhost:1")
}

/// The files below a data directory that end so.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.extension().is_some_and(|extension| extension == end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn look(words: &[&str], path: &Path) -> Ran {
    nowhere().run(&[words, &[argument(path)]].concat())
}

#[test]
fn logs_and_snapshots_are_looked_at_beside_a_node_and_without_one() {
    let cluster = Cluster::start(1, &["--snapshot-log-entries=20"]);
    let node = &cluster.nodes[0];
    for key in 0..60 {
        assert_eq!(node.call("PUT", &format!("/v1/kv/key-{key}"), "a secret").status, 200);
    }
    let dir = node.data_dir();
    // The node runs.
    assert!(look(&["wal", "verify"], &dir).ok().contains(" is sound: "));
    let dumped = look(&["wal", "dump", "--json"], &dir);
    let lines: Vec<Value> = dumped.ok().lines().map(json_of).collect();
    assert_eq!(lines[0]["identity"]["name"], "node-1");
    assert!(lines.iter().any(|line| line["record"].as_str().is_some_and(|text| text.contains("key-59"))));
    assert!(!dumped.text().contains("a secret"));
    node.signal(Signal::TERM);
    node.wait_for_end();
    let stat = json_of(look(&["wal", "stat", "--json"], &dir).ok());
    assert!(stat["records"].as_u64().unwrap() > 20 && stat["snapshots"].as_u64().unwrap() > 0, "{stat}");
    assert_eq!(stat["unreadable"], 0);
    assert!(look(&["wal", "stat"], &dir).ok().contains("record_bytes"));
    let snapshots = files(&dir, "snap");
    for snapshot in &snapshots {
        assert!(look(&["snapshot", "verify"], snapshot).ok().contains(" is whole: "));
        let dumped = look(&["snapshot", "dump", "--json"], snapshot);
        let described = json_of(dumped.ok().lines().next().unwrap());
        assert_eq!(dumped.text().lines().count() as u64, 1 + described["keys"].as_u64().unwrap());
        assert!(dumped.text().contains("\"key\":\"key-0\"") && !dumped.text().contains("a secret"));
    }
    // Damage is found in either.
    let snapshot = snapshots.last().expect("there are snapshots");
    damage(snapshot, 5000);
    look(&["snapshot", "verify"], snapshot).failed(3, "is damaged");
    look(&["wal", "verify"], &dir).failed(3, "one place");
    look(&["snapshot", "verify"], &dir.join("identity")).failed(3, "identity");
    look(&["wal", "stat"], &dir.join("nothing")).failed(3, "does not exist");
    look(&["wal", "verify"], cluster.dir.path()).failed(3, "holds no node's data");
    look(&["wal", "repair"], cluster.dir.path()).failed(3, "holds no node's data");
    // So is what is not there, though all that is there is sound.
    files(&dir, "snap").iter().chain(&files(&dir, "seg")).for_each(|file| fs::remove_file(file).unwrap());
    look(&["wal", "verify"], &dir).failed(3, "one place");
}

/// Each file, with what is in it.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn damage(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_member_that_is_left_becomes_a_cluster_and_says_what_may_be_lost() {
    let mut cluster = Cluster::start(3, &[]);
    for key in 0..50 {
        assert_eq!(cluster.nodes[0].call("PUT", &format!("/v1/kv/{key}"), "v").status, 200);
    }
    cluster.assert_same_state();
    let before = cluster.nodes[1].status().unwrap();
    let dir = cluster.nodes[1].data_dir();
    // A node that runs is left alone.
    look(&["recover"], &dir).failed(3, "in use");
    for node in &cluster.nodes {
        node.kill();
    }
    let held = content(&dir);
    let told = look(&["recover"], &dir);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(content(&dir) == held, "a look changes nothing");
    for part in ["node-1, node-2, node-3", "MAY BE LOST", "nothing was changed"] {
        assert!(told.err.contains(part), "{part}: {}", told.err);
    }
    let unsure = nowhere().run_with(&["recover", argument(&dir), "--accept-loss"], b"no\n");
    unsure.failed(1, "nothing was changed");
    // It is still the old member.
    cluster.nodes[1].start();
    eventually("its status", || cluster.nodes[1].status().filter(|now| now["cluster"] == before["cluster"]));
    cluster.nodes[1].kill();

    let done = nowhere().run_with(&["recover", argument(&dir), "--accept-loss"], b"recover\n");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(fs::read_to_string(dir.join("recovered.txt")).unwrap().contains("node-1, node-2, node-3"));
    cluster.nodes[1].start();
    cluster.nodes[1].wait_until_ready();
    let after = cluster.nodes[1].status().unwrap();
    assert_ne!(after["cluster"], before["cluster"]);
    assert_eq!((&after["state_hash"], &after["revision"]), (&before["state_hash"], &before["revision"]));
    assert_eq!(after["members"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.nodes[1].call("PUT", "/v1/kv/after", "v").status, 200);
    look(&["recover", "--accept-loss", "--yes"], &dir).failed(3, "in use");
    // An old member does not disturb it, and joins with an empty directory.
    cluster.nodes[0].start();
    let refused = cluster.nodes[1].join(&cluster.nodes[0]);
    assert_eq!(refused.status, 409, "{}", refused.body);
    // It takes the new cluster's node for its member, and that is told.
    eventually("an alarm", || cluster.nodes[1].get("/v1/alarms").body.contains("two-clusters").then_some(()));
    cluster.nodes[0].kill();
    fs::remove_dir_all(cluster.nodes[0].data_dir()).unwrap();
    cluster.nodes[0].start();
    assert_eq!(cluster.nodes[1].join(&cluster.nodes[0]).status, 200);
    cluster.nodes.truncate(2);
    cluster.assert_same_state();
    // What is a cluster of its own has nothing to recover.
    let alone = Cluster::start(1, &[]);
    alone.nodes[0].kill();
    look(&["recover"], &alone.nodes[0].data_dir()).failed(2, "cluster of one");
}
