//! An initial cluster: the same list of nodes on every node, of which the first by name makes the
//! cluster and joins the others.
//!
//! It does so only once it has reached all of them, and none has data. Otherwise a first node that
//! was wiped would make a second cluster, while the first one goes on without it. If any of them
//! has data, there is a cluster already, or was: a node without data joins it. Until most of the
//! listed nodes are voters no client is served, so that nothing is acknowledged that a single disk
//! could lose.

use crate::node::announce::join_once;
use crate::node::handle::DriverOrder;
use crate::node::initial_cluster::InitialCluster;
use crate::node::join::{HOPS_MAX, Joiner};
use crate::peer::orders::NewNode;
use crate::peer::rpc::{Description, Question, Reply, ask};
use crate::replica::Replica;
use crate::runtime::Env;
use std::collections::BTreeSet;
use std::sync::Arc;
use tracing::{info, warn};

/// How long another node may take to describe itself.
const ASK_MICROS: u64 = 3_000_000;
/// The pause after a first look at the others; doubled for each one after it.
const PAUSE_MICROS_MIN: u64 = 100_000;
/// The longest pause.
const PAUSE_MICROS_MAX: u64 = 2_000_000;

/// What a node with an initial cluster does when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Nothing: there is no such list, or this node has data.
    None,
    /// It has no data: it looks at the others.
    Begin,
    /// It began to make the cluster before, and most voters are missing yet.
    GoOn,
}

impl Course {
    pub(super) fn of(initial: Option<&Arc<InitialCluster>>, replica: &Replica) -> Self {
        let Some(initial) = initial else { return Self::None };
        let voters = replica.membership().voters.len();
        if !replica.has_data() {
            Self::Begin
        } else if replica.is_untouched() && voters < initial.majority() {
            Self::GoOn
        } else {
            info!("--initial-cluster is ignored: this node has data");
            Self::None
        }
    }
}

/// What the others say.
enum Look {
    /// All were reached, and none has data.
    AllNew,
    /// There is a cluster already; this member of it may be asked.
    Cluster(String),
    /// Not all were reached, or something is wrong.
    NotYet,
}

/// Makes the cluster, or joins it.
pub(super) async fn found_or_join<E: Env>(joiner: Joiner<E>, initial: Arc<InitialCluster>, course: Course) {
    let mut complaints = BTreeSet::new();
    let mut pause_micros = PAUSE_MICROS_MIN;
    if course == Course::GoOn {
        return add_others(&joiner, &initial).await;
    }
    let alone = joiner.address_book.me().cluster;
    while joiner.address_book.me().cluster == alone {
        match look(&joiner, &initial, &mut complaints).await {
            Look::AllNew if initial.is_first() => {
                info!(nodes = %initial.words(), "all nodes of the initial cluster are there, and new: making it");
                let _ = joiner.handle.orders.send(DriverOrder::Found).await;
                return add_others(&joiner, &initial).await;
            }
            Look::Cluster(addr) => {
                if let Err(reason) = join_once(&joiner, &addr, alone).await
                    && complaints.insert(reason.clone())
                {
                    warn!(%reason, "could not join; trying again");
                }
            }
            // The first one adds this node.
            Look::AllNew | Look::NotYet => {}
        }
        joiner.env.sleep_until(joiner.env.now().plus(pause_micros)).await;
        pause_micros = (pause_micros * 2).min(PAUSE_MICROS_MAX);
    }
}

/// Asks all others who they are.
async fn look<E: Env>(
    joiner: &Joiner<E>,
    initial: &InitialCluster,
    complaints: &mut BTreeSet<String>,
) -> Look {
    let (mut cluster, mut wrong) = (None, None);
    for node in initial.others() {
        match ask(&joiner.dialer, &node.raft_addr, &Question::Describe, ASK_MICROS).await {
            Ok(Reply::Described(found)) => match judge(initial, node, &found) {
                Ok(true) => drop(cluster.get_or_insert_with(|| node.raft_addr.clone())),
                Ok(false) => {}
                Err(reason) => drop(wrong.get_or_insert(reason)),
            },
            Ok(other) => drop(wrong.get_or_insert(format!("{} answered {other:?}", node.raft_addr))),
            Err(reason) => drop(wrong.get_or_insert(reason)),
        }
    }
    if let Some(addr) = cluster {
        return Look::Cluster(addr);
    }
    let Some(reason) = wrong else { return Look::AllNew };
    if complaints.insert(reason.clone()) {
        warn!(%reason, "the initial cluster is not complete yet; waiting");
    }
    Look::NotYet
}

/// Whether a node that was found has data.
fn judge(initial: &InitialCluster, node: &NewNode, found: &Description) -> Result<bool, String> {
    if found.name != node.name {
        return Err(format!(
            "the node at {} is called {:?}, and --initial-cluster says {:?}: give all nodes the same list",
            node.raft_addr, found.name, node.name
        ));
    }
    if found.has_data {
        return Ok(true);
    }
    if found.initial_cluster.as_deref() != Some(&initial.words()) {
        return Err(format!(
            "{} was started with another --initial-cluster: give all nodes the same list",
            node.name
        ));
    }
    Ok(false)
}

/// Adds all others, whatever it takes.
async fn add_others<E: Env>(joiner: &Joiner<E>, initial: &InitialCluster) {
    let mut missing: Vec<&NewNode> = initial.others().collect();
    let mut complaints = BTreeSet::new();
    while !missing.is_empty() {
        let mut left = Vec::new();
        for node in missing {
            match joiner.join(&node.name, &node.raft_addr, HOPS_MAX).await {
                Ok(id) => info!(name = %node.name, id = id.get(), "added to the initial cluster"),
                Err(error) => {
                    let reason = format!("{}: {error}", node.name);
                    if complaints.insert(reason.clone()) {
                        warn!(%reason, "could not add a node of the initial cluster; trying again");
                    }
                    left.push(node);
                }
            }
        }
        missing = left;
        if !missing.is_empty() {
            joiner.env.sleep_until(joiner.env.now().plus(PAUSE_MICROS_MAX)).await;
        }
    }
}
