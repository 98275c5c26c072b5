//! A cluster is upgraded node by node while it serves, and goes back as long as nothing new is in
//! its files.

use crate::support::{Cluster, Load, Node, Shell, assert_linearizable, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// What makes a node behave as the release before.
const OLD: &[&str] = &["--protocol-max=7"];
const NEW: &[&str] = &[];

/// Stops a node, and starts it as another release.
fn change_release(node: &mut Node, flags: &[&str]) {
    node.signal(Signal::TERM);
    assert_eq!(node.wait_for_end().code(), Some(0));
    node.give_flags(flags);
    node.start();
    node.wait_until_ready();
}

fn level(node: &Node) -> Option<u64> {
    node.status()?["feature_level"].as_u64()
}

/// The number in the identity of its data directory.
fn format(node: &Node) -> String {
    let identity = fs::read_to_string(node.data_dir().join("identity")).unwrap();
    identity.lines().find(|line| line.starts_with("format")).unwrap().to_owned()
}

/// What a node says of another member.
fn of_member(node: &Node, name: &str, field: &str) -> Value {
    let status = node.status().unwrap();
    let members = status["members"].as_array().unwrap();
    members.iter().find(|member| member["name"] == name).unwrap()[field].clone()
}

#[track_caller]
fn wait_for_level(cluster: &Cluster, wanted: u64) {
    eventually("the level of the cluster to be raised", || {
        cluster.nodes.iter().all(|node| level(node) == Some(wanted)).then_some(())
    });
}

#[test]
fn a_cluster_is_upgraded_node_by_node_under_load() {
    let mut cluster = Cluster::start(3, OLD);
    cluster.nodes.iter().for_each(|node| assert_eq!(level(node), Some(7)));
    let load = Load::mixed(&cluster.nodes, 4);
    load.wait_for(200);
    for upgraded in 0..3 {
        change_release(&mut cluster.nodes[upgraded], NEW);
        load.wait_for(200);
        if upgraded < 2 {
            // With one member of the older release, everybody goes on as that does.
            cluster.nodes.iter().for_each(|node| {
                assert_eq!((level(node), format(node)), (Some(7), "format = 7".to_owned()));
            });
            assert_eq!(of_member(&cluster.nodes[upgraded], "node-3", "spoken_level"), 7);
        }
    }
    eventually("all to talk as the new release does", || {
        let spoken = ["node-2", "node-3"].map(|name| of_member(&cluster.nodes[0], name, "spoken_level"));
        spoken.iter().all(|level| *level == 8).then_some(())
    });
    wait_for_level(&cluster, 8);
    load.wait_for(200);
    let seen = load.finish(&cluster.nodes);
    assert_linearizable(&seen.operations);
    assert!(seen.longest_gap < Duration::from_secs(8), "no write for {:?}", seen.longest_gap);
    cluster.nodes.iter().for_each(|node| assert_eq!(format(node), "format = 8"));
    cluster.assert_same_state();
    let said = Shell::of(&cluster.nodes).run(&["status"]);
    assert!(said.text().contains("level"), "{}", said.text());
}

#[test]
fn a_node_goes_back_until_the_level_is_raised_and_is_refused_afterwards() {
    let mut cluster = Cluster::start(3, OLD);
    assert_eq!(cluster.nodes[0].set("before", "1").status, 200);
    change_release(&mut cluster.nodes[0], NEW);
    change_release(&mut cluster.nodes[1], NEW);
    assert_eq!(cluster.nodes[1].set("between", "2").status, 200);
    // Back, with what the newer release has written.
    change_release(&mut cluster.nodes[0], OLD);
    for (key, value) in [("before", "1"), ("between", "2")] {
        assert!(cluster.nodes[0].get(&format!("/get?key={key}")).body.contains(value), "{key}");
    }
    assert_eq!(cluster.nodes[0].set("back", "3").status, 200);
    cluster.assert_same_state();
    change_release(&mut cluster.nodes[0], NEW);
    change_release(&mut cluster.nodes[2], NEW);
    wait_for_level(&cluster, 8);
    // Now its directory holds what the older release does not know.
    let node = &mut cluster.nodes[0];
    node.signal(Signal::TERM);
    node.wait_for_end();
    node.give_flags(OLD);
    assert_eq!(node.try_start(), Err(3));
    let log = node.log();
    let refusal = log.lines().last().unwrap();
    for word in ["format version 8", "reads version 7", "or a newer one"] {
        assert!(refusal.contains(word), "{refusal}");
    }
    node.give_flags(NEW);
    node.start();
    node.wait_until_ready();
    cluster.assert_same_state();
}

#[test]
fn a_node_of_an_older_release_does_not_join_a_cluster_that_has_left_it_behind() {
    let cluster = Cluster::start(1, NEW);
    eventually("a new cluster to be at the newest level", || {
        (level(&cluster.nodes[0]) == Some(8)).then_some(())
    });
    let old = Node::new(cluster.dir.path(), "old", OLD);
    old.start();
    let answer = cluster.nodes[0].join(&old);
    assert_eq!(answer.status, 409, "{}", answer.body);
    for word in ["feature level 7", "level 8", "start this node's release there"] {
        assert!(answer.body.contains(word), "{}", answer.body);
    }
    assert_eq!(cluster.nodes[0].status().unwrap()["members"].as_array().unwrap().len(), 1);
}

#[test]
fn a_node_of_the_newest_release_joins_a_cluster_of_an_older_one() {
    let cluster = Cluster::start(2, OLD);
    let new = Node::new(cluster.dir.path(), "new", NEW);
    new.start();
    assert_eq!(cluster.nodes[1].join(&new).pair(), (200, "\"Voter added\"\n"));
    assert_eq!(new.set("key", "value").status, 200);
    assert_eq!((level(&new), format(&new)), (Some(7), "format = 7".to_owned()));
    assert_eq!(of_member(&new, "node-1", "spoken_level"), 7);
    assert_eq!(of_member(&new, "node-1", "speaks")["highest"], 7);
}
