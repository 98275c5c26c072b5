//! `--initial-cluster`: the same words on every node, one cluster, and never a second one.

use crate::support::{Node, eventually, failed_start};
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

/// Three nodes with one list, in whatever order.
struct Trio {
    nodes: Vec<Node>,
    // After the nodes: it is removed when they are gone.
    _dir: TempDir,
}

impl Trio {
    /// Not started.
    fn new(flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let nodes: Vec<Node> =
            ["node-1", "node-2", "node-3"].iter().map(|name| Node::new(dir.path(), name, flags)).collect();
        let list: Vec<String> =
            nodes.iter().map(|node| format!("{}=localhost:{}", node.name, node.raft_port)).collect();
        // The order of the words does not matter.
        let lists = [list.join(","), format!("{},{},{}", list[2], list[0], list[1]), list.join(",")];
        let nodes = nodes.into_iter().zip(lists);
        let nodes =
            nodes.map(|(node, list)| node.with_flag(|_| format!("--initial-cluster={list}"))).collect();
        Self { nodes, _dir: dir }
    }

    fn started(flags: &[&str]) -> Self {
        let trio = Self::new(flags);
        trio.nodes.iter().for_each(Node::start);
        trio.wait_for_voters();
        trio
    }

    #[track_caller]
    fn wait_for_voters(&self) {
        for node in &self.nodes {
            eventually(&format!("{} to see three voters", node.name), || {
                let status = node.status()?;
                let voters = status["members"].as_array()?.iter().filter(|one| one["standing"] == "voter");
                (voters.count() == 3).then_some(())
            });
            node.wait_until_ready();
        }
    }

    fn clusters(&self) -> Vec<String> {
        let cluster = |node: &Node| node.status().unwrap()["cluster"].as_str().unwrap().to_owned();
        let mut clusters: Vec<String> = self.nodes.iter().map(cluster).collect();
        clusters.dedup();
        clusters
    }
}

fn code(node: &Node) -> Option<String> {
    let answer = node.call("PUT", "/v1/kv/k", "v");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    (answer.status != 200).then(|| body["code"].as_str().unwrap().to_owned())
}

#[test]
fn three_nodes_with_one_list_become_one_cluster_and_serve_when_most_are_voters() {
    let trio = Trio::new(&[]);
    let [first, second, third] = &trio.nodes[..] else { panic!("three") };
    first.start();
    second.start();
    // One is missing: nothing is made, and no client is served.
    eventually("the first to wait", || {
        first.log().contains("the initial cluster is not complete yet").then_some(())
    });
    for node in [first, second] {
        eventually(&format!("{} to wait", node.name), || {
            (code(node).as_deref() == Some("joining")).then_some(())
        });
        assert_eq!(node.get("/readyz").status, 503);
        assert_eq!(node.status().unwrap()["members"].as_array().unwrap().len(), 1);
    }
    third.start();
    trio.wait_for_voters();
    assert_eq!(trio.clusters().len(), 1);
    trio.nodes.iter().for_each(|node| assert_eq!(code(node), None, "{} serves", node.name));

    // Once there is data the list means nothing.
    trio.nodes.iter().for_each(Node::kill);
    trio.nodes.iter().for_each(Node::start);
    trio.wait_for_voters();
    assert_eq!(first.get("/v1/kv/k").pair(), (200, "v"));
    assert!(first.log().contains("--initial-cluster is ignored: this node has data"));
}

#[test]
fn a_first_node_that_was_wiped_joins_the_cluster_again_and_makes_no_second_one() {
    let trio = Trio::started(&[]);
    let [first, second, third] = &trio.nodes[..] else { panic!("three") };
    let cluster = trio.clusters();
    assert_eq!(second.set("k", "v").status, 200);
    first.kill();
    third.kill();
    fs::remove_dir_all(first.data_dir()).unwrap();
    // The others are not all there: it waits, although the one that it reaches cannot take it.
    first.start();
    eventually("it to look for the others", || first.log().contains("trying again").then_some(()));
    assert_eq!(code(first).as_deref(), Some("joining"));
    third.start();
    trio.wait_for_voters();
    assert_eq!(trio.clusters(), cluster);
    assert_eq!(first.get("/get?key=k").pair(), (200, "{\"key\":\"k\",\"value\":\"v\"}\n"));
}

#[test]
fn lists_that_make_no_sense_are_wrong_usage() {
    let dir = TempDir::new().unwrap();
    let own = ["--node-id=a", "--raft-addr=localhost:7001", "--http-addr=:7002"];
    for (list, says) in [
        ("b=localhost:7003", "is not among them"),
        ("a=localhost:7001,a=localhost:7003", "a is there twice"),
        ("a=localhost:7001,b=localhost:7001", "the address localhost:7001 is there twice"),
        ("a=localhost:7009,b=localhost:7003", "--raft-addr says localhost:7001"),
        ("a", "expected NAME=HOST:PORT"),
        ("a=localhost", "is no address"),
    ] {
        let flag = format!("--initial-cluster={list}");
        let (code, said) = failed_start(dir.path(), &[&own[..], &[&*flag]].concat());
        assert_eq!(code, 2, "{list}: {said}");
        assert!(said.contains(says), "{list}: {said}");
    }
    let both = ["--initial-cluster=a=localhost:7001", "--join=localhost:7003"];
    assert_eq!(failed_start(dir.path(), &[&own[..], &both[..]].concat()).0, 2);
}
