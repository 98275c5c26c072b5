//! Processes that are killed and paused while clients go on.

use crate::support::{Cluster, Connection, Load, assert_linearizable, eventually};
use rustix::process::Signal;

/// Reads every acknowledged write back, through each node in turn.
#[track_caller]
fn assert_all_there(cluster: &Cluster, acknowledged: &[crate::support::Acknowledged]) {
    let mut connections: Vec<Connection> =
        cluster.nodes.iter().map(|node| Connection::open(node.http_port).unwrap()).collect();
    let count = connections.len();
    for (index, write) in acknowledged.iter().enumerate() {
        let target = format!("/get?key={}", write.key);
        let response = connections[index % count].request("GET", &target, "").unwrap();
        let expected = format!("{{\"key\":\"{}\",\"value\":\"{}\"}}\n", write.key, write.value);
        assert_eq!(response.pair(), (200, &*expected), "an acknowledged write is not there");
    }
}

#[test]
fn writes_go_on_when_the_leader_is_killed_and_it_comes_back() {
    let cluster = Cluster::start(3, &[]);
    let load = Load::mixed(&cluster.nodes, 8);
    for round in 0..3 {
        load.wait_for(500);
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        load.wait_for(500);
        cluster.nodes[leader].start();
        cluster.nodes[leader].wait_until_ready();
        println!("round {round}: {} was killed and serves again", cluster.nodes[leader].name);
    }
    load.wait_for(500);
    cluster.wait_until_ready();
    let seen = load.finish(&cluster.nodes);
    println!("longest time without an acknowledged write: {:?}", seen.longest_gap);
    assert_linearizable(&seen.operations);
    cluster.assert_same_state();
}

#[test]
fn a_killed_leader_is_replaced_long_before_an_election_timeout() {
    // The test's patience is shorter than this silence would have to be.
    let cluster = Cluster::start(3, &["--election-timeout=600s"]);
    let leader = cluster.leader();
    // A connection that has only just been made is no sign of life, and its end none of death.
    cluster.wait_until_connections_last();
    cluster.nodes[leader].kill();
    let load = Load::fresh_keys(&cluster.nodes, 2);
    load.wait_for(10);
    drop(load);
    cluster.nodes[leader].start();
    cluster.wait_until_ready();
}

#[test]
fn every_acknowledged_write_survives_when_all_nodes_are_killed_at_once() {
    // Small files, so that segments, snapshots and their removal are under way when it happens.
    let flags = ["--segment-bytes=256KiB", "--snapshot-log-entries=1500", "--log-tail-entries=200"];
    let cluster = Cluster::start(3, &flags);
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let load = Load::fresh_keys(&cluster.nodes, 16);
        load.wait_for(1_500);
        cluster.nodes.iter().for_each(|node| node.signal(Signal::KILL));
        for node in &cluster.nodes {
            node.wait_for_end();
        }
        let round = load.acknowledged();
        assert!(round.len() >= 1_500);
        cluster.nodes.iter().for_each(|node| node.start());
        cluster.wait_until_ready();
        assert_all_there(&cluster, &round);
        // The same keys are set again in the next round: only the last count.
        acknowledged = round;
    }
    assert_all_there(&cluster, &acknowledged);
    cluster.assert_same_state();
}

#[test]
fn a_paused_leader_neither_answers_wrongly_nor_disturbs() {
    let cluster = Cluster::start(3, &[]);
    let load = Load::mixed(&cluster.nodes, 8);
    for round in 0..3 {
        load.wait_for(300);
        let leader = cluster.leader();
        let paused = &cluster.nodes[leader];
        paused.signal(Signal::STOP);
        load.wait_for(500);
        paused.signal(Signal::CONT);
        paused.wait_until_ready();
        println!("round {round}: {} was paused and goes on", paused.name);
    }
    load.wait_for(300);
    cluster.wait_until_ready();
    let seen = load.finish(&cluster.nodes);
    println!("longest time without an acknowledged write: {:?}", seen.longest_gap);
    assert_linearizable(&seen.operations);
    cluster.assert_same_state();
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over() {
    let cluster = Cluster::start(3, &[]);
    let load = Load::mixed(&cluster.nodes, 4);
    load.wait_for(200);
    let leader = cluster.leader();
    cluster.nodes[leader].signal(Signal::TERM);
    assert_eq!(cluster.nodes[leader].wait_for_end().code(), Some(0), "{}", cluster.nodes[leader].log());
    load.wait_for(200);
    cluster.nodes[leader].start();
    cluster.wait_until_ready();
    let seen = load.finish(&cluster.nodes);
    println!("longest time without an acknowledged write: {:?}", seen.longest_gap);
    assert_linearizable(&seen.operations);
}

#[test]
fn a_node_outlives_its_terminal_and_stops_on_request() {
    let mut cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    node.signal(Signal::HUP);
    eventually("the node to say that it goes on", || node.log().contains("SIGHUP").then_some(()));
    assert_eq!(node.call("POST", "/set", r#"{"key":"k","value":"v","action":"set"}"#).status, 200);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_for_end().code(), Some(0), "{}", node.log());
    cluster.nodes.clear();
}
