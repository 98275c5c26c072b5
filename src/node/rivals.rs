//! A recovered cluster looks for nodes of the cluster that it was made of. None may run any more.
//! They do not call this node unless it was their member, and two recovered clusters never call
//! each other.

use crate::node::handle::DriverOrder;
use crate::node::join::Joiner;
use crate::peer::rpc::{Description, Question, Reply, ask};
use crate::runtime::{Alarms, Env};
use crate::storage::Predecessor;
use tracing::error;

/// From one look to the next.
const LOOK_MICROS: u64 = 60_000_000;
/// How long another node may take to describe itself.
const ASK_MICROS: u64 = 3_000_000;

/// Looks for others of the cluster that this one was made of.
pub(super) struct Rivals<E> {
    pub(super) joiner: Joiner<E>,
    pub(super) predecessor: Predecessor,
    pub(super) alarms: Alarms,
}

impl<E: Env> Rivals<E> {
    /// Looks again and again. An alarm that a person has acknowledged is raised again while there
    /// is reason for it.
    pub(super) async fn watch(self) {
        let env = self.joiner.env.clone();
        loop {
            for addr in &self.predecessor.peers {
                if let Ok(Reply::Described(found)) =
                    ask(&self.joiner.dialer, addr, &Question::Describe, ASK_MICROS).await
                    && let Some(text) = self.judge(addr, &found)
                {
                    error!(reason = %text, "TWO CLUSTERS OUT OF ONE");
                    self.alarms.raise("two-clusters", &text, E::THREADS);
                    let _ = self.joiner.handle.orders.send(DriverOrder::NoteAlarms).await;
                }
            }
            env.sleep_until(env.now().plus(LOOK_MICROS)).await;
        }
    }

    /// What is wrong with a node that was found at an old address; `None`: nothing.
    fn judge(&self, addr: &str, found: &Description) -> Option<String> {
        let (own, before) = (self.joiner.address_book.me().cluster, self.predecessor.cluster);
        let remedy = "what clients write there is not here. Stop all that is left of it, wipe those data directories, and \
                      join the nodes here";
        let Description { name, cluster, predecessor, .. } = found;
        if *cluster == own {
            None
        } else if *cluster == before {
            Some(format!(
                "node {name} of cluster {cluster}, out of which this cluster, {own}, was made, still runs at {addr}: {remedy}"
            ))
        } else if *predecessor == Some(before) {
            Some(format!(
                "node {name} at {addr} was recovered too: its cluster, {cluster}, and this one, {own}, were both made of \
                 cluster {before}. Decide which of the two goes on. If it is this one: {remedy}"
            ))
        } else {
            None
        }
    }
}
