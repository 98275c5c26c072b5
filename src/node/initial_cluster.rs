//! The nodes that are to make one cluster, as every one of them was told.

use crate::peer::orders::NewNode;
use std::sync::Arc;

/// The nodes of a cluster that is to be made.
#[derive(Debug)]
pub(super) struct InitialCluster {
    /// All of them, by name.
    nodes: Vec<NewNode>,
    /// This node's name.
    me: String,
}

impl InitialCluster {
    /// `None` for an empty list.
    pub(super) fn of(nodes: &[NewNode], me: &str) -> Option<Arc<Self>> {
        let mut nodes = nodes.to_vec();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        (!nodes.is_empty()).then(|| Arc::new(Self { nodes, me: me.to_owned() }))
    }

    /// How many voters are a majority of it.
    pub(super) fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// The list in words, the same on every node.
    pub(super) fn words(&self) -> String {
        let words = self.nodes.iter().map(|node| format!("{}={}", node.name, node.raft_addr));
        words.collect::<Vec<_>>().join(",")
    }

    /// Whether this node makes the cluster.
    pub(super) fn is_first(&self) -> bool {
        self.nodes.first().is_some_and(|first| first.name == self.me)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &NewNode> {
        self.nodes.iter().filter(|node| node.name != self.me)
    }
}
