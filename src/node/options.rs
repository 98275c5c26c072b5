//! How a node is started, and why it could not be, or ended.

use crate::codec::{FeatureLevels, host_of, is_loopback};
use crate::node::scrub::ScrubOptions;
use crate::peer::{NewNode, TransportOptions};
use crate::raft::NodeId;
use crate::replica::ReplicaConfig;
use crate::storage::OpenError;
use std::io;
use std::path::PathBuf;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The `--node-id`: the name of the node. Not empty.
    pub name: String,
    /// The data directory, which is made if it does not exist.
    pub data_dir: PathBuf,
    /// `host:port` of the peer transport: listened on, and told to the others. `:port` listens on
    /// every interface.
    pub raft_addr: String,
    /// `host:port` of the HTTP API, told to the others. Without a host, that of the advertised raft
    /// address.
    pub http_addr: String,
    /// `host` or `host:port` at which the others reach the peer transport, where `raft_addr` does
    /// not say it. Without it, a node that listens on every interface advertises the machine's host
    /// name if that resolves, or else `127.0.0.1`.
    pub advertise: Option<String>,
    /// Whether the node ends when it was removed from its cluster ([`NodeExit::Removed`]).
    pub exits_when_removed: bool,
    /// A node without data asks these addresses (raft addresses of any members) until it has joined
    /// their cluster.
    pub join: Vec<String>,
    /// The nodes of a cluster that is to be made, this one among them: the same on all of them. The
    /// first by name makes the cluster, once it has reached all others and none has data.
    pub initial_cluster: Vec<NewNode>,
    /// After this time a client is told that its request failed, or that its outcome is unknown.
    pub request_timeout_micros: u64,
    /// Client requests between the sockets and the replica, at most; more are refused with
    /// [`ClientError::Overloaded`](crate::replica::ClientError::Overloaded).
    pub client_queue_max: usize,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// How what is at rest is read again.
    pub scrub: ScrubOptions,
    /// Limits and timings of consensus.
    pub replica: ReplicaConfig,
    /// Limits and timings of the peer transport.
    pub transport: TransportOptions,
    /// How long the steps of a join may take.
    pub join_timings: JoinTimings,
    /// Whether the peer transport may be reached from other machines without TLS
    /// ([`TransportOptions::tls`]). Any machine that reaches it can then read and change
    /// everything.
    pub insecure: bool,
}

/// How long the steps of a join may take, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinTimings {
    /// For another node to answer one question.
    pub answer_micros: u64,
    /// For the leader to answer a join that was passed on to it.
    pub whole_micros: u64,
    /// How long to wait for a leader, or for the end of another change of membership.
    pub patience_micros: u64,
    /// How long the new node stays reserved. Half of it is for handing over its identity.
    pub reservation_micros: u64,
    /// For the new node to become a voter, before the caller is told that it goes on in the
    /// background.
    pub voter_micros: u64,
}

impl Default for JoinTimings {
    fn default() -> Self {
        Self {
            answer_micros: 3_000_000,
            whole_micros: 30_000_000,
            patience_micros: 8_000_000,
            reservation_micros: 20_000_000,
            voter_micros: 10_000_000,
        }
    }
}

impl NodeOptions {
    /// A node of that name, with the defaults of the command line: `data/<name>`, `localhost:8000`,
    /// `:8001`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            data_dir: PathBuf::from("data").join(name),
            raft_addr: "localhost:8000".to_owned(),
            http_addr: ":8001".to_owned(),
            advertise: None,
            exits_when_removed: false,
            join: Vec::new(),
            initial_cluster: Vec::new(),
            request_timeout_micros: 5_000_000,
            client_queue_max: 16_384,
            segment_bytes: 64 << 20,
            scrub: ScrubOptions::default(),
            replica: ReplicaConfig::default(),
            transport: TransportOptions::default(),
            join_timings: JoinTimings::default(),
            insecure: false,
        }
    }

    /// The node speaks these feature levels, and no others.
    pub fn speak(&mut self, levels: FeatureLevels) {
        (self.replica.speaks, self.transport.speaks) = (levels, levels);
    }

    /// Raft addresses of nodes that the operator names.
    pub(super) fn told_addresses(&self) -> Vec<String> {
        let listed = self.initial_cluster.iter().map(|node| &node.raft_addr);
        self.join.iter().chain(listed).cloned().collect()
    }

    /// Checks that the peer transport cannot be reached from other machines without TLS, unless
    /// that is wanted.
    ///
    /// # Errors
    /// [`StartError::Insecure`], which shows both ways out.
    pub fn check_secured(&self) -> Result<(), StartError> {
        if self.transport.tls.is_some() || self.insecure {
            return Ok(());
        }
        let told = self.advertise.as_ref().into_iter().chain([&self.raft_addr]);
        match told.into_iter().find(|addr| !is_loopback(host_of(addr))) {
            Some(addr) => Err(StartError::insecure(&self.name, addr)),
            None => Ok(()),
        }
    }
}

/// Why a node could not be started. `Display` names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option makes no sense.
    #[error("{0}")]
    BadOption(String),
    /// Other machines reach the raft address, and connections to it are not secured.
    #[error(
        "other machines reach the raft address {addr}, and without TLS they can read and change everything. \
         Make certificates once, and give each node its own:\n    \
         infinitystore tls create --dir certs --nodes {name}={host}\n    \
         infinitystore --node-id {name} --raft-addr {addr} --peer-tls-cert certs/{name}.pem --peer-tls-key certs/{name}.key \
         --peer-tls-ca certs/ca.pem\n\
         Or, if nobody else reaches that network, say so:\n    \
         infinitystore --node-id {name} --raft-addr {addr} --insecure"
    )]
    Insecure {
        /// The address.
        addr: String,
        /// The node.
        name: String,
        /// The host that a certificate would be for.
        host: String,
    },
    /// The raft address is taken.
    #[error(
        "cannot listen on {addr} for peers: the port is in use; stop the other process or choose another --raft-addr"
    )]
    PortInUse {
        /// The address.
        addr: String,
    },
    /// The raft address cannot be listened on.
    #[error("cannot listen on {addr} for peers: {error}; --raft-addr must name an address of this machine")]
    Listen {
        /// The address.
        addr: String,
        /// What the system says.
        error: io::Error,
    },
    /// Its data directory is damaged, and it is no member any more.
    #[error(
        "this node was removed from its cluster, as member {told_by} says, and its data directory is damaged; it is not \
         repaired: wipe it before the node joins again"
    )]
    Removed {
        /// The member that knows.
        told_by: NodeId,
    },
    /// The disk has no room for a start; it may be tried again.
    #[error("{0}")]
    NoRoom(String),
    /// The data directory cannot be used; the text names the remedy.
    #[error("{0}")]
    Storage(String),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl StartError {
    fn insecure(name: &str, addr: &str) -> Self {
        let host = match host_of(addr) {
            "" | "0.0.0.0" | "[::]" => "HOST",
            host => host,
        };
        Self::Insecure { addr: addr.to_owned(), name: name.to_owned(), host: host.to_owned() }
    }

    /// The data directory could not be used.
    pub(crate) fn of_storage(error: &OpenError) -> Self {
        let text = error.to_string();
        if error.is_full() { Self::NoRoom(text) } else { Self::Storage(text) }
    }
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeExit {
    /// It was asked to stop: everything acknowledged is durable.
    Stopped,
    /// It was removed from its cluster, and was started to end then.
    Removed,
    /// It cannot go on; the text says why and what to do. Nothing was acknowledged that is not
    /// durable.
    Failed(String),
    /// Its data is not to be used as it is, which the text says why. It is to be started again: it
    /// sets its data aside then, and joins its cluster anew.
    Rebuild(String),
    /// Its cluster has reached a feature level that this release does not speak; the text says what
    /// to do. Its data is as it was.
    Outgrown(String),
    /// The disk failed, which the text describes: nothing more could be stored. Nothing was
    /// acknowledged that is not durable, and a leader has named a successor.
    DiskFailed(String),
}

/// Why a node ends that panicked. It does not go on: what it would say and write rests on a state
/// that may be wrong.
pub(crate) const PANICKED: &str = "the task of this node that decides everything panicked, which is a bug of this program: the \
     log says what, and where. What the node acknowledged is durable. Start it again. If it stops at the same place again, \
     keep a copy of its data directory, start it with an empty one and join it again under its name, and report those lines";
