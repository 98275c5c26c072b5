//! A real HTTP server on a loopback socket, over a node that is a store and a few special keys.

use crate::api::http::tests::rendering::node_status;
use crate::api::{HttpOptions, HttpServer};
use crate::kv::{Op, Query, Store};
use crate::node::handle::{ClientCall, DriverOrder, JoinCall, MembershipView};
use crate::node::{JoinError, Joined, NodeHandle, NodeSlot};
use crate::raft::{Membership, NodeId};
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::{Env, Listener, Metrics, TokioEnv, watch};
use crate::storage::MemoryDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

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
        let env = TokioEnv::new(MemoryDisk::new());
        let listener = env.listen("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let node = fake_node();
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
        TcpStream::connect(&self.addr).await.expect("it listens")
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
        let length = body.len();
        // The content type is the one that `curl -d` sends.
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n"
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
    tokio::spawn(answer_clients(calls));
    tokio::spawn(answer_orders(order_queue));
    tokio::spawn(answer_joins(join_calls));
    NodeHandle { clients, orders, joins, membership: view, last: Arc::new(OnceLock::new()) }
}

async fn answer_clients(mut calls: mpsc::Receiver<ClientCall>) {
    let mut store = Store::new();
    let mut held = Vec::new();
    while let Some(ClientCall { request, reply, .. }) = calls.recv().await {
        let (key, done) = match &request {
            ClientRequest::Write(command) => {
                let key = match &command.op {
                    Op::Put(put) => put.key.clone(),
                    Op::Delete(range) => range.start.clone(),
                    other => panic!("nobody asks for {other:?}"),
                };
                (key, ClientReply::Written(store.apply(1, command)))
            }
            ClientRequest::Read { query: Query::Key(key), .. } => {
                (key.clone(), ClientReply::Answer(store.answer(&Query::Key(key.clone()))))
            }
            _ => (bytes::Bytes::new(), ClientReply::UpToDate),
        };
        let answer = match &*key {
            b"fails: no leader" => ClientReply::Failed(ClientError::NoLeader),
            b"fails: unknown" => ClientReply::Failed(ClientError::Unknown),
            b"fails: no quorum" => ClientReply::Failed(ClientError::NoQuorum),
            _ => done,
        };
        if key == HELD_KEY {
            held.push((reply, answer));
            continue;
        }
        if key == RELEASE_KEY {
            for (reply, answer) in held.drain(..) {
                let _ = reply.send(answer);
            }
        }
        let _ = reply.send(answer);
    }
}

async fn answer_orders(mut orders: mpsc::Receiver<DriverOrder>) {
    while let Some(order) = orders.recv().await {
        if let DriverOrder::Status(reply) = order {
            let _ = reply.send(node_status());
        }
    }
}

async fn answer_joins(mut calls: mpsc::Receiver<JoinCall>) {
    while let Some(JoinCall { name, raft_addr, reply }) = calls.recv().await {
        let _ = reply.send(match &*name {
            "good" => Ok(Joined { id: NodeId::new(2) }),
            "has-data" => Err(JoinError::Conflict(format!("{raft_addr} has data"))),
            "leaderless" => Err(JoinError::NoLeader),
            _ => Err(JoinError::Failed("no answer".to_owned())),
        });
    }
}
