//! How a node that starts comes into its cluster: as the member that it is, by a join, or as one of
//! those that make the cluster.

use crate::node::announce::join_until_member;
use crate::node::founding::{Course, found_or_join};
use crate::node::initial_cluster::InitialCluster;
use crate::node::join::Joiner;
use crate::runtime::{Env, watch};
use std::sync::Arc;

/// How a node comes into its cluster.
pub(super) struct Admission {
    /// Raft addresses to ask for it.
    pub(super) join: Vec<String>,
    pub(super) initial: Option<Arc<InitialCluster>>,
    pub(super) course: Course,
    /// It is no member yet.
    pub(super) is_awaited: bool,
}

impl Admission {
    /// The voters without which an initial cluster serves nobody.
    pub(super) fn founding(&self) -> Option<usize> {
        self.initial.as_ref().filter(|_| self.course != Course::None).map(|initial| initial.majority())
    }

    /// Asks for it until the node is a member, or ends.
    pub(super) fn pursue<E: Env>(self, joiner: Joiner<E>, ended: watch::Receiver<bool>) {
        let env = joiner.env.clone();
        match self.initial.filter(|_| self.course != Course::None) {
            Some(initial) => spawn_until(&env, ended, found_or_join(joiner, initial, self.course)),
            None if self.is_awaited => spawn_until(&env, ended, join_until_member(joiner, self.join)),
            None => {}
        }
    }
}

/// Runs `task` until it or the node ends.
pub(super) fn spawn_until<E: Env>(
    env: &E,
    ended: watch::Receiver<bool>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    env.spawn(async move {
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => {}
            () = task => {}
        }
    });
}
