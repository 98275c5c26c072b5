//! What every connection and handler needs.

use crate::api::http::account::Accounts;
use crate::api::http::budget::Budget;
use crate::api::http::control::Control;
use crate::api::http::options::HttpOptions;
use crate::api::http::rates::UserBuckets;
use crate::api::http::rounds::Rounds;
use crate::api::http::streams::Streams;
use crate::api::http::turns::Turns;
use crate::api::http::v1::page_cache::Pages;
use crate::api::service::Authenticator;
use crate::node::{NodeHandle, NodeSlot};
use crate::raft::Time;
use crate::runtime::door::{Caller, Episode, Places};
use crate::runtime::gate::Gate;
use crate::runtime::refusals::RefusalLog;
use crate::runtime::{Env, Metrics, RouteRequests};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// What a quorum has said last, and when. One request at a time asks it: anybody may ask whether a
/// node is ready, and each question goes to all members.
pub(super) type LastQuorum = tokio::sync::Mutex<Option<(Time, Result<(), String>)>>;

/// What every connection and handler needs.
pub(super) struct Context<E: Env> {
    pub(super) env: E,
    pub(super) options: HttpOptions,
    pub(super) slot: NodeSlot,
    pub(super) metrics: Metrics,
    /// Counts requests, by the places of the table of routes.
    pub(super) requests: Arc<[RouteRequests]>,
    /// Seconds since the start, as counted by the sweep: a clock that costs nothing to read.
    pub(super) tick: Arc<AtomicU32>,
    /// Memory for requests and answers.
    pub(super) budget: Arc<Budget>,
    /// Questions that wait for a change.
    pub(super) questions: Arc<Budget>,
    /// Whose turn it is.
    pub(super) turns: Arc<Turns>,
    /// Whose tasks are polled.
    pub(super) rounds: Arc<Rounds>,
    /// The requests that users may make.
    pub(super) users: UserBuckets,
    /// What watchers share.
    pub(super) pages: Arc<Pages>,
    /// Places for backups under way.
    pub(super) backups: Arc<Semaphore>,
    /// Finds out who asks.
    pub(super) authenticator: Authenticator,
    pub(super) connections: Mutex<Connections>,
    /// Nearly all connections are taken.
    pub(super) crowded: AtomicBool,
    /// What `/readyz` has heard last.
    pub(super) quorum: LastQuorum,
    /// Lets TLS handshakes of clients go on.
    pub(super) handshakes: Arc<Gate<E>>,
    /// Told when the server stops, to the accepting and the sweeping task.
    pub(super) stopping: Notify,
    /// Told when a connection ends while the server stops.
    pub(super) ended: Notify,
}

/// An open connection.
pub(super) struct OpenConnection {
    /// What it waits for.
    pub(super) control: Arc<Control>,
    /// Its streams, which HTTP/1 has none of.
    pub(super) streams: Arc<Streams>,
    pub(super) caller: Caller,
}

/// The connections, and whether there will be more.
pub(super) struct Connections {
    /// By age: the oldest comes first.
    pub(super) open: BTreeMap<u64, OpenConnection>,
    pub(super) places: Places,
    /// What each caller has, as long as it has anything or is connected.
    pub(super) accounts: Accounts,
    /// Logs once each time that nearly all connections are taken.
    pub(super) low: Episode,
    /// Logs once each time that handshakes fail.
    pub(super) handshakes: Episode,
    /// What was logged of requests that were refused.
    pub(super) refused: RefusalLog,
    /// The tick in which there was no connection to end for another one.
    pub(super) none_to_end: Option<u32>,
    pub(super) next_id: u64,
    pub(super) refusals: usize,
    pub(super) stopping: bool,
}

impl Connections {
    pub(super) fn new(options: &HttpOptions) -> Self {
        Self {
            open: BTreeMap::new(),
            accounts: Accounts::default(),
            places: Places::new(options.connections_max, options.connections_per_address_max),
            low: Episode::default(),
            handshakes: Episode::default(),
            refused: RefusalLog::default(),
            none_to_end: None,
            next_id: 0,
            refusals: 0,
            stopping: false,
        }
    }
}

impl<E: Env> Context<E> {
    /// The node, once it has started: its driver runs, and has said where the node stands.
    pub(super) fn started(&self) -> Option<&NodeHandle> {
        self.slot.get().filter(|node| node.facts().is_noted())
    }

    /// The node. No request for it is handled before it has started.
    pub(super) fn node(&self) -> &NodeHandle {
        self.slot.get().expect("the router answers by itself until the node has started")
    }

    /// The sweep's clock, seconds.
    pub(super) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Waits until the server stops. A task that waits for something else gives up then.
    pub(super) async fn until_stopping(&self) {
        // Made before the flag is looked at: a stop in between is heard.
        let stopping = self.stopping.notified();
        if !self.connections().stopping {
            stopping.await;
        }
    }

    pub(super) fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
