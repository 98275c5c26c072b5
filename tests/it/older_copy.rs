//! Data directories that go back in time, stand twice, or are emptied: nothing that was
//! acknowledged may go with them.

use crate::support::{Cluster, Node, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::thread;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn stop(node: &Node) {
    node.signal(Signal::TERM);
    node.wait_for_end();
}

/// Why a node takes no part, once it says so.
#[track_caller]
fn withdrawn(node: &Node) -> String {
    eventually(&format!("{} to withdraw", node.name), || {
        node.status()?["withdrawn"].as_str().map(str::to_owned)
    })
}

/// The keys among `keys` that a read of the whole cluster finds.
fn found<'k>(node: &Node, keys: &'k [String]) -> Vec<&'k String> {
    keys.iter().filter(|key| node.get(&format!("/get?key={key}")).status == 200).collect()
}

#[test]
fn an_older_copy_of_a_data_directory_loses_no_acknowledged_write() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let (older, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let write = |cluster: &Cluster, name: &str, count: usize| -> Vec<String> {
        let keys = (0..count).map(|key| format!("{name}-{key}"));
        keys.filter(|key| cluster.nodes[older].set(key, "v").status == 200).collect()
    };
    stop(&cluster.nodes[older]);
    let (directory, kept) = (cluster.nodes[older].data_dir(), cluster.dir.path().join("kept"));
    copy(&directory, &kept);
    cluster.nodes[older].start();
    cluster.nodes[older].wait_until_ready();
    let before = write(&cluster, "before", 300);
    assert_eq!(before.len(), 300);
    stop(&cluster.nodes[older]);
    fs::remove_dir_all(&directory).unwrap();
    copy(&kept, &directory);
    cluster.nodes[older].start();
    // All at once, and the leader goes while they wait.
    let since: Vec<String> = thread::scope(|scope| {
        let nodes = &cluster.nodes;
        let set = |write: usize| {
            let key = format!("since-{write}");
            (nodes[older].set(&key, "v").status == 200).then_some(key)
        };
        let writers: Vec<_> = (0..100).map(|write| scope.spawn(move || set(write))).collect();
        stop(&nodes[leader]);
        writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect()
    });
    let why = withdrawn(&cluster.nodes[older]);
    assert!(why.contains("older copy") && why.contains("join it again"), "{why}");
    assert_eq!(cluster.nodes[older].get("/readyz").status, 503);
    eventually("another member to name it", || {
        let status = cluster.nodes[third].status()?;
        let members = status["members"].as_array()?;
        let named =
            |member: &Value| member["withdrawn"].as_str().is_some_and(|why| why.contains("older copy"));
        members.iter().any(named).then_some(())
    });
    // The two that are left are no quorum: one of them has forgotten what it acknowledged.
    cluster.nodes[leader].start();
    for node in [leader, third] {
        cluster.nodes[node].wait_until_ready();
        assert_eq!(found(&cluster.nodes[node], &before).len(), before.len());
        assert_eq!(found(&cluster.nodes[node], &since).len(), since.len(), "answered as set, and gone");
    }
    // Started again, it is no more trusted than before.
    stop(&cluster.nodes[older]);
    cluster.nodes[older].start();
    withdrawn(&cluster.nodes[older]);
    // The remedy.
    stop(&cluster.nodes[older]);
    fs::remove_dir_all(&directory).unwrap();
    cluster.nodes[older].start();
    let first = cluster.leader();
    assert_eq!(cluster.nodes[first].join(&cluster.nodes[older]).pair(), (200, "\"Voter added\"\n"));
    cluster.nodes[older].wait_until_ready();
    cluster.assert_same_state();
}

#[test]
fn of_two_processes_on_copies_of_one_directory_the_second_is_not_let_in() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let original = &cluster.nodes[(leader + 1) % 3];
    let elsewhere = cluster.dir.path().join("elsewhere");
    copy(&original.data_dir(), &elsewhere.join("data").join(&original.name));
    let twin = Node::new(&elsewhere, &original.name, &[]);
    twin.start();
    for node in cluster.nodes.iter().filter(|node| node.name != original.name) {
        eventually("the twin to be named", || node.log().contains("TWO PROCESSES").then_some(()));
    }
    assert_eq!(twin.get("/readyz").status, 503);
    original.wait_until_ready();
    assert_eq!(original.set("k", "v").status, 200);
    assert_eq!(original.status().unwrap()["withdrawn"], Value::Null);
}

#[test]
fn a_node_that_comes_back_empty_serves_nobody_until_it_is_joined_again() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let emptied = &cluster.nodes[(leader + 1) % 3];
    emptied.kill();
    fs::remove_dir_all(emptied.data_dir()).unwrap();
    emptied.start();
    // However often it is started.
    for _ in 0..2 {
        let why = withdrawn(emptied);
        assert!(why.contains("calls this node as its member"), "{why}");
        emptied.kill();
        emptied.start();
    }
    withdrawn(emptied);
    assert_eq!(emptied.set("k", "v").status, 500);
    assert_eq!(emptied.get("/readyz").status, 503);
    assert_eq!(cluster.nodes[leader].join(emptied).pair(), (200, "\"Voter added\"\n"));
    emptied.wait_until_ready();
    assert_eq!(emptied.set("k", "v").status, 200);
}
