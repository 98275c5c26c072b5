//! A real HTTP server on a loopback socket, over a node that is a store and a few special keys.

use crate::api::http::tests::rendering::node_status;
use crate::api::{HttpOptions, HttpServer};
use crate::codec::FeatureLevel;
use crate::kv::{ChangesQuery, Command, Op, Principal, Query, Store};
use crate::node::handle::{ClientCall, DriverOrder, MembershipView, NodeFacts, OperatorCall};
use crate::node::{
    Health, JoinError, Joined, MemberDone, MemberOrder, MemberView, MembersView, NodeHandle, NodeSlot,
    OrderCode, OrderDone, OrderError,
};
use crate::raft::{ClusterId, LogId, LogIndex, Membership, NodeId, ReplicationState, StoreId, Term};
use crate::replica::{ClientError, ClientReply, ClientRequest, LeaseTime, Level, Standing};
use crate::runtime::{Env, Listener, Metrics, TokioEnv, watch};
use crate::storage::{BackupSource, MemoryDisk};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// A request for this key is not answered before the next one for [`RELEASE_KEY`].
pub(super) const HELD_KEY: &str = "held";
/// Answers all requests that are held.
pub(super) const RELEASE_KEY: &str = "release";

/// A server under test.
pub(super) struct Fixture {
    pub(super) env: TokioEnv<MemoryDisk>,
    pub(super) server: HttpServer<TokioEnv<MemoryDisk>>,
    pub(super) node: NodeHandle,
    pub(super) slot: NodeSlot,
    pub(super) addr: String,
}

impl Fixture {
    pub(super) async fn start(options: HttpOptions) -> Self {
        let fixture = Self::start_without_node(options).await;
        fixture.slot.fill(fixture.node.clone());
        fixture
    }

    /// A server whose node has not started yet.
    pub(super) async fn start_without_node(options: HttpOptions) -> Self {
        Self::over(fake_node(), options).await
    }

    /// Another server over the same store, as another member of the cluster has one.
    pub(super) async fn beside(&self) -> Self {
        let other = Self::over(self.node.clone(), HttpOptions::default()).await;
        other.slot.fill(self.node.clone());
        other
    }

    async fn over(node: NodeHandle, options: HttpOptions) -> Self {
        let env = TokioEnv::new(MemoryDisk::new());
        let listener = env.listen_to_clients("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let slot = NodeSlot::default();
        let server = HttpServer::start(env.clone(), listener, options, slot.clone(), Metrics::new());
        Self { env, server, node, slot, addr }
    }

    /// Bytes of the budget that are in use.
    pub(super) fn memory_used(&self) -> usize {
        self.server.context.budget.used()
    }

    /// Waits until the server has ended every connection.
    pub(super) async fn wait_until_all_closed(&self) {
        while !self.server.context.connections().open.is_empty() {
            self.server.context.ended.notified().await;
        }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).await.expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        stream
    }

    /// Sends `request` as it is, and takes in all that comes until the server closes the
    /// connection.
    pub(super) async fn raw(&self, request: &[u8]) -> Answered {
        let mut stream = self.connect().await;
        // The server may answer, and close, before it has read all of it.
        let _ = stream.write_all(request).await;
        receive_all(&mut stream).await
    }

    /// One request with an honest head; the connection ends with it.
    pub(super) async fn ask(&self, method: &str, target: &str, body: &[u8]) -> Answered {
        self.ask_with(method, target, "", body).await
    }

    /// The same with more headers: lines that end with `\r\n`.
    pub(super) async fn ask_with(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answered {
        let length = body.len();
        // The content type is the one that `curl -d` sends.
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }
}

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) code: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answered {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The status and the code of a problem; of anything else, the empty code.
    pub(super) fn problem(&self) -> (u16, String) {
        if self.header("content-type") != Some("application/problem+json") {
            return (self.code, String::new());
        }
        let json = self.json();
        assert_eq!(json["status"], self.code);
        assert!(json["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{json}");
        assert_eq!(self.header("infinitystore-outcome"), json["outcome"].as_str(), "{json}");
        (self.code, json["code"].as_str().expect("a code").to_owned())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

pub(super) async fn receive_all(stream: &mut TcpStream) -> Answered {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("the answer can be read to its end");
    take_apart(&bytes)
}

pub(super) fn take_apart(bytes: &[u8]) -> Answered {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no head in {:?}", String::from_utf8_lossy(bytes));
    });
    let head = std::str::from_utf8(&bytes[..end]).expect("a head of text");
    let mut lines = head.split("\r\n");
    let code = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a code");
    let headers = lines
        .map(|line| line.split_once(": ").expect("a header"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Answered { code, headers, body: bytes[end + 4..].to_vec() }
}

fn fake_node() -> NodeHandle {
    let (clients, calls) = mpsc::channel(64);
    let (orders, order_queue) = mpsc::channel(64);
    let (joins, join_calls) = mpsc::channel(64);
    let membership = Membership {
        voters: BTreeSet::from([NodeId::new(1)]),
        outgoing: None,
        learners: BTreeMap::new(),
        members: BTreeMap::new(),
        next_member_id: NodeId::new(2),
    };
    // Dropped here: a watcher keeps the last view.
    let (_, view) = watch::channel(MembershipView { membership, committed: true });
    let facts = Arc::new(NodeFacts::of("node-1".to_owned()));
    facts.note_security(Store::new().security(), true);
    tokio::spawn(answer_clients(calls, facts.clone()));
    tokio::spawn(answer_orders(order_queue));
    tokio::spawn(answer_operators(join_calls));
    NodeHandle { clients, orders, joins, membership: view, last: Arc::new(OnceLock::new()), facts }
}

/// One that waits for a change.
struct WaitingForChange {
    by: Option<Principal>,
    query: ChangesQuery,
    until: Instant,
    reply: oneshot::Sender<ClientReply>,
}

/// A node of one that applies at once. Time does not end its leases.
async fn answer_clients(mut calls: mpsc::Receiver<ClientCall>, facts: Arc<NodeFacts>) {
    let mut store = Store::new();
    // As a new cluster begins.
    store.raise_level(FeatureLevel::NEWEST);
    let mut held = Vec::new();
    let mut waiting: Vec<WaitingForChange> = Vec::new();
    loop {
        let next = waiting.iter().map(|one| one.until).min();
        let timer = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            call = calls.recv() => {
                let Some(call) = call else { return };
                if let ClientRequest::Watch(query) = call.request {
                    let until = Instant::now() + Duration::from_micros(call.patience_micros.unwrap_or(1_000_000));
                    waiting.push(WaitingForChange { by: call.by, query, until, reply: call.reply });
                } else {
                    answer(&mut store, &mut held, call, &facts);
                }
            }
            () = timer => {}
        }
        let now = Instant::now();
        for one in std::mem::take(&mut waiting) {
            if let Err(denial) = store.judge_changes(one.by.as_ref(), &one.query.range) {
                let _ = one.reply.send(ClientReply::Failed(ClientError::Denied(denial)));
                continue;
            }
            match store.changes(&one.query) {
                Ok(changes) if changes.revisions.is_empty() && one.until > now => waiting.push(one),
                Ok(changes) => {
                    let _ = one.reply.send(ClientReply::Changes(Ok(Arc::new(changes))));
                }
                Err(error) => {
                    let _ = one.reply.send(ClientReply::Changes(Err(error)));
                }
            }
        }
    }
}

fn answer(
    store: &mut Store,
    held: &mut Vec<(oneshot::Sender<ClientReply>, ClientReply)>,
    ClientCall { by, request, reply, .. }: ClientCall,
    facts: &NodeFacts,
) {
    let denied = |denial| ClientReply::Failed(ClientError::Denied(denial));
    let (key, done) = match &request {
        ClientRequest::Write(command) => {
            let key = match &command.op {
                Op::Put(put) => put.key.clone(),
                Op::Delete(range) => range.start.clone(),
                Op::Increment { key, .. } => key.clone(),
                Op::Txn(txn) => txn.compare.first().map(|one| one.range.start.clone()).unwrap_or_default(),
                _ => Bytes::new(),
            };
            let done = match command.check() {
                Ok(()) if key.starts_with(b"fails: ") => ClientReply::UpToDate,
                Ok(()) => ClientReply::Written(store.apply(1, &Command { by, ..command.clone() })),
                Err(error) => ClientReply::Failed(ClientError::BadCommand(error)),
            };
            (key, done)
        }
        ClientRequest::Read { level: Level::Fresh { max_staleness_micros: 0 }, .. } => {
            (Bytes::new(), ClientReply::Failed(ClientError::Stale))
        }
        ClientRequest::Read { query, .. } => {
            let key = if let Query::Key(key) = query { key.clone() } else { Bytes::new() };
            (key, store.answer_to(by.as_ref(), query).map_or_else(denied, ClientReply::Answer))
        }
        ClientRequest::Lease { lease, renew } => {
            let judged = store.judge_lease(by.as_ref(), *lease, *renew);
            let time = store.lease(*lease).map(|lease| LeaseTime {
                id: lease.id,
                ttl_seconds: lease.ttl_seconds,
                left_micros: lease.ttl_seconds * 1_000_000,
                keys: lease.keys,
            });
            (Bytes::new(), judged.map_or_else(denied, |()| ClientReply::LeaseTime(time)))
        }
        _ => (Bytes::new(), ClientReply::UpToDate),
    };
    facts.note(Term::new(1), store.revision());
    facts.note_security(store.security(), true);
    let answer = match &*key {
        b"fails: no leader" => ClientReply::Failed(ClientError::NoLeader),
        b"fails: unknown" => ClientReply::Failed(ClientError::Unknown),
        b"fails: no quorum" => ClientReply::Failed(ClientError::NoQuorum),
        b"fails: disk full" => ClientReply::Failed(ClientError::DiskFull),
        b"fails: too large" => {
            ClientReply::Failed(ClientError::CommandTooLarge { bytes: 18_122, limit: 16_384 })
        }
        _ => done,
    };
    if key == HELD_KEY {
        held.push((reply, answer));
        return;
    }
    if key == RELEASE_KEY {
        for (reply, answer) in held.drain(..) {
            let _ = reply.send(answer);
        }
    }
    let _ = reply.send(answer);
}

async fn answer_orders(mut orders: mpsc::Receiver<DriverOrder>) {
    while let Some(order) = orders.recv().await {
        match order {
            DriverOrder::Status(reply) => drop(reply.send(node_status())),
            DriverOrder::Capture(reply) => drop(reply.send(Some(captured()))),
            _ => {}
        }
    }
}

/// Four MiB and a little.
pub(super) fn captured() -> BackupSource {
    let mut store = Store::new();
    for key in 0..40 {
        store.apply(1, &Op::set(format!("key-{key}"), vec![key; 100 << 10]).into());
    }
    let last = LogId::new(Term::new(1), LogIndex::new(41));
    BackupSource { cluster: ClusterId(1), store_id: StoreId(2), last, store }
}

async fn answer_operators(mut calls: mpsc::Receiver<OperatorCall>) {
    while let Some(call) = calls.recv().await {
        match call {
            OperatorCall::Join { name, raft_addr, reply } => drop(reply.send(match &*name {
                "good" => Ok(Joined { id: NodeId::new(2) }),
                "has-data" => Err(JoinError::Conflict(format!("{raft_addr} has data"))),
                "leaderless" => Err(JoinError::NoLeader),
                _ => Err(JoinError::Failed("no answer".to_owned())),
            })),
            OperatorCall::Members { of_leader, reply } => drop(reply.send(members(of_leader))),
            // The order comes back as the name of a member.
            OperatorCall::Manage { order, conditions, reply } => {
                let done = MemberDone {
                    id: NodeId::new(2),
                    name: format!("{order:?} {conditions:?}"),
                    standing: Standing::Voter,
                };
                let done = OrderDone { configuration: 9, members: vec![done], ..OrderDone::default() };
                let failed = |code, configuration| {
                    Err(OrderError { code, detail: "as it was asked".to_owned(), configuration })
                };
                let _ = reply.send(match &order {
                    MemberOrder::Remove(named) if named[0] == "changed" => {
                        failed(OrderCode::OtherMembership, Some(9))
                    }
                    MemberOrder::Remove(named) if named[0] == "needed" => {
                        failed(OrderCode::WouldLoseQuorum, None)
                    }
                    MemberOrder::Remove(named) if named[0] == "lost" => failed(OrderCode::Unknown, None),
                    _ => Ok(done),
                });
            }
        }
    }
}

fn members(of_leader: bool) -> MembersView {
    let member = MemberView {
        id: NodeId::new(2),
        name: "node-2".to_owned(),
        raft_addr: "localhost:8010".to_owned(),
        http_addr: "localhost:8011".to_owned(),
        standing: Standing::Voter,
        health: Health::Ok,
        match_index: Some(12),
        lag: Some(0),
        replication: Some(ReplicationState::Replicate),
        silent_micros: Some(1500),
        withdrawn: None,
    };
    MembersView {
        told_by: if of_leader { "the leader" } else { "this node" }.to_owned(),
        configuration: 7,
        committed: true,
        joint: false,
        leader: Some(NodeId::new(2)),
        members: vec![member],
    }
}
