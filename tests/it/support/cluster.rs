//! Several nodes, joined as the original's page does.

use crate::support::eventually;
use crate::support::node::Node;
use serde_json::Value;
use std::collections::BTreeSet;
use tempfile::TempDir;

/// Nodes `node-1`, `node-2`, … of one cluster, in a directory of their own that goes with them.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    // After the nodes: it is removed when they are gone.
    pub(crate) dir: TempDir,
    flags: Vec<String>,
}

impl Cluster {
    /// One node, a cluster of itself.
    pub(crate) fn of_one(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut cluster = Self { nodes: Vec::new(), dir: TempDir::new().unwrap(), flags };
        cluster.start_node();
        cluster
    }

    /// No node yet.
    pub(crate) fn of_none(flags: &[&str]) -> Self {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self { nodes: Vec::new(), dir: TempDir::new().unwrap(), flags }
    }

    /// One node of that name, which has not been started.
    pub(crate) fn prepare(name: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let nodes = vec![Node::new(dir.path(), name, &[])];
        Self { nodes, dir, flags: Vec::new() }
    }

    /// `count` nodes, joined and ready.
    pub(crate) fn start(count: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::of_one(flags);
        cluster.nodes[0].wait_until_ready();
        for _ in 1..count {
            cluster.add_node();
        }
        cluster.wait_until_ready();
        cluster
    }

    /// Starts another node, which is a cluster of itself until it is joined.
    pub(crate) fn start_node(&mut self) -> &Node {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let name = format!("node-{}", self.nodes.len() + 1);
        self.nodes.push(Node::new(self.dir.path(), &name, &flags));
        let node = self.nodes.last().unwrap();
        node.start();
        node
    }

    /// Starts another node with these variables in its environment, and joins it to the first, if
    /// there is one.
    pub(crate) fn add_node_with(&mut self, variables: &[(String, String)]) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let name = format!("node-{}", self.nodes.len() + 1);
        let new = Node::new(self.dir.path(), &name, &flags);
        let with = |node: Node, (name, value): &(String, String)| node.with_variable(name, value);
        let new = variables.iter().fold(new, with);
        new.start();
        if let Some(first) = self.nodes.first() {
            assert_eq!(first.join(&new).pair(), (200, "\"Voter added\"\n"));
        } else {
            new.wait_until_ready();
        }
        self.nodes.push(new);
    }

    /// Starts another node and joins it to the first.
    pub(crate) fn add_node(&mut self) {
        self.start_node();
        let (first, new) = (&self.nodes[0], self.nodes.last().unwrap());
        assert_eq!(first.join(new).pair(), (200, "\"Voter added\"\n"));
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        self.nodes.iter().filter(|node| node.is_running()).for_each(Node::wait_until_ready);
    }

    /// Waits until each node has been up for two seconds more, and its connections with it.
    pub(crate) fn wait_until_connections_last(&self) {
        let uptime = |node: &Node| node.status()?["uptime_seconds"].as_f64();
        let since: Vec<f64> = self.nodes.iter().map(|node| uptime(node).unwrap()).collect();
        for (node, since) in self.nodes.iter().zip(since) {
            eventually("connections to last", || uptime(node).filter(|now| *now >= since + 2.0));
        }
    }

    /// The place in `nodes` of the leader that one of the others (or it alone) follows.
    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        eventually("a leader", || {
            let statuses = self.nodes.iter().filter(|node| node.is_running()).filter_map(Node::status);
            // An old leader that does not know it yet is in an older term.
            let newest = statuses.max_by_key(|status| status["term"].as_u64())?;
            let name = newest["leader"]["name"].as_str()?.to_owned();
            self.nodes.iter().position(|node| node.name == name && node.is_running())
        })
    }

    /// Waits until all nodes that run have applied the same entries, and compares their states.
    #[track_caller]
    pub(crate) fn assert_same_state(&self) {
        self.wait_until_ready();
        let state = |status: &Value| (status["applied_index"].to_string(), status["state_hash"].to_string());
        let states = eventually("all nodes to have applied the same", || {
            let running = self.nodes.iter().filter(|node| node.is_running());
            let states: Option<BTreeSet<_>> = running.map(|node| node.status().as_ref().map(state)).collect();
            let indices: BTreeSet<_> = states.iter().flatten().map(|(index, _)| index.clone()).collect();
            states.filter(|_| indices.len() == 1)
        });
        assert_eq!(states.len(), 1, "the same entries made different states: {states:?}");
    }
}
