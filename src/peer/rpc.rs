//! Questions between nodes that are no members of one cluster yet, or not the leader: one for each
//! connection.

use crate::codec::{FeatureLevel, FeatureLevels, from_bytes, from_bytes_within, to_bytes};
use crate::peer::block::{Block, BlockError};
use crate::peer::greeting::{Greeted, NotGreeted, SpokenLevels, greet};
use crate::peer::hello::{Hello, HelloAnswer};
use crate::peer::mending::{ANSWER_BYTES_MAX, MendCall, MendReply};
use crate::peer::orders::{MemberOrder, MembersView, OrderCode, OrderConditions, OrderDone, OrderError};
use crate::peer::secured::Dialer;
use crate::raft::{ClusterId, NodeId, StoreId};
use crate::runtime::{Env, until};
use crate::tls::Stream;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of a question or an answer, at most. The longest carries the address of every member.
const RPC_BYTES_MAX: u32 = 256 << 10;
const KIND_QUESTION: u8 = 5;
const KIND_REPLY: u8 = 6;

/// What a node asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Who are you?
    Describe,
    /// Add the node of that name at that address to your cluster. Any member takes it and asks its
    /// leader.
    Join {
        /// Its `--node-id`.
        name: String,
        /// Its raft address.
        raft_addr: String,
        /// How often the question may be passed on.
        hops: u8,
    },
    /// A member is reached elsewhere than the membership says.
    Announce {
        /// The member.
        id: NodeId,
        /// Its store, as on record.
        store: StoreId,
        /// Its raft address now.
        raft_addr: String,
        /// Its HTTP address now.
        http_addr: String,
    },
    /// Take no writes: you will become a member of this cluster.
    Reserve {
        /// The cluster that it is to become a member of.
        cluster: ClusterId,
        /// How long it is reserved, microseconds.
        micros: u64,
    },
    /// The reservation for this cluster is over.
    Release(ClusterId),
    /// You are a member now: take up this place.
    Adopt(Adoption),
    /// An operator's order about the members. Any member takes it and asks its leader.
    Manage {
        /// The order.
        order: MemberOrder,
        /// When it may be carried out.
        conditions: OrderConditions,
        /// How often the question may be passed on.
        hops: u8,
    },
    /// Which members are there, as you see them?
    Members,
    /// I repair my data directory.
    Mend(MendCall),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To [`Question::Describe`].
    Described(Description),
    /// To [`Question::Join`].
    Joined(Result<NodeId, JoinError>),
    /// To [`Question::Reserve`]: the store id that the node will have in that cluster.
    Reserved(StoreId),
    /// Done.
    Done,
    /// Not done, and why.
    Refused(String),
    /// To [`Question::Manage`].
    Managed(Result<OrderDone, OrderError>),
    /// To [`Question::Members`].
    Members(MembersView),
    /// To [`Question::Mend`].
    Mend(MendReply),
}

/// A node's description of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// Its `--node-id`.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its member id.
    pub id: NodeId,
    /// Its store.
    pub store: StoreId,
    /// Its HTTP address.
    pub http_addr: String,
    /// How many members it knows in its cluster.
    pub members: usize,
    /// The raft address of its leader, if it knows one.
    pub leader_addr: Option<String>,
    /// Whether it has data of its own, or has been a member of a cluster of several.
    pub has_data: bool,
    /// The words of its `--initial-cluster`, if it was given.
    pub initial_cluster: Option<String>,
    /// The cluster that its own one was made of, if it was this node that was made of it.
    pub predecessor: Option<ClusterId>,
    /// The levels that it speaks, as its answer to the hello says.
    #[serde(skip)]
    pub speaks: FeatureLevels,
}

/// What a node that is absorbed by another cluster needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adoption {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member id given by its leader.
    pub id: NodeId,
    /// The store id that the node named when it was reserved.
    pub store: StoreId,
    /// Where it is reached, in its leader's words.
    pub raft_addr: String,
    /// Members, and where they are reached.
    pub addresses: Vec<(NodeId, String)>,
}

/// Why a join failed. `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum JoinError {
    /// No leader can be reached. (400 `"Not a leader"`)
    #[error("no leader can be reached; try again, or name another node")]
    NoLeader,
    /// A parameter makes no sense. (400)
    #[error("{0}")]
    BadRequest(String),
    /// The node has data, belongs to another cluster, or is reserved. (409)
    #[error("{0}")]
    Conflict(String),
    /// It could not be added; it may go on in the background. (500)
    #[error("{0}")]
    Failed(String),
    /// The same node is being joined already; to be tried again. (503)
    #[error("{0}")]
    Busy(String),
}

impl From<JoinError> for OrderError {
    fn from(error: JoinError) -> Self {
        let code = match &error {
            JoinError::NoLeader => OrderCode::NoLeader,
            JoinError::BadRequest(_) => OrderCode::BadRequest,
            JoinError::Conflict(_) => OrderCode::NodeHasData,
            JoinError::Failed(_) => OrderCode::Unknown,
            JoinError::Busy(_) => OrderCode::ChangePending,
        };
        Self::new(code, error.to_string())
    }
}

/// Asks `addr`, and waits for the answer for `micros`.
///
/// # Errors
/// Text that names the address and says what went wrong.
pub(crate) async fn ask<E: Env>(
    dialer: &Dialer<E>,
    addr: &str,
    question: &Question,
    micros: u64,
) -> Result<Reply, String> {
    ask_noting(dialer, addr, question, micros, &AtomicBool::new(false)).await
}

/// The same, and notes in `sent` that the question was sent: from then on it may be carried out,
/// even if no answer comes.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn ask_noting<E: Env>(
    dialer: &Dialer<E>,
    addr: &str,
    question: &Question,
    micros: u64,
    sent: &AtomicBool,
) -> Result<Reply, String> {
    ask_over(dialer, (|| dialer.call_address(addr), addr), question, micros, sent).await
}

/// Asks the member of that name, or else the node, at an address that somebody else has named.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn ask_stranger<E: Env>(
    dialer: &Dialer<E>,
    (name, addr): (Option<&str>, &str),
    question: &Question,
    micros: u64,
) -> Result<Reply, String> {
    let dial = || dialer.call_stranger(name, addr);
    ask_over(dialer, (dial, addr), question, micros, &AtomicBool::new(false)).await
}

/// Asks the member of that name at `addr`, and nobody else; without a name, the node that is there.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn ask_member<E: Env>(
    dialer: &Dialer<E>,
    (name, addr): (Option<&str>, &str),
    question: &Question,
    micros: u64,
) -> Result<Reply, String> {
    let dial = || dialer.call_member(name, addr);
    ask_over(dialer, (dial, addr), question, micros, &AtomicBool::new(false)).await
}

async fn ask_over<E: Env, F: Future<Output = io::Result<Stream<E::Stream>>>>(
    dialer: &Dialer<E>,
    (dial, addr): (impl Fn() -> F, &str),
    question: &Question,
    micros: u64,
    sent: &AtomicBool,
) -> Result<Reply, String> {
    let env = &dialer.env;
    let deadline = env.now().plus(micros);
    let asking = async {
        // A question is put to any node that understands it, whatever its cluster.
        let levels = SpokenLevels::of_any_cluster(dialer.speaks);
        let greeted = greet(levels, &Hello::Rpc, dial).await.map_err(|error| match error {
            NotGreeted::NoConnection(error) => format!("{addr} cannot be reached: {error}"),
            NotGreeted::HungUp(error) => format!("{addr}: {error}"),
            NotGreeted::NoAnswer(error) => format!("{addr}: {error}"),
            NotGreeted::TooOld(why) => format!("{addr}: {why}"),
        })?;
        converse(greeted, question, sent).await.map_err(|reason| format!("{addr}: {reason}"))
    };
    until(env, deadline, asking).await.unwrap_or_else(|| Err(format!("{addr} does not answer")))
}

async fn converse(
    greeted: Greeted<impl AsyncRead + AsyncWrite + Unpin>,
    question: &Question,
    sent: &AtomicBool,
) -> Result<Reply, String> {
    let Greeted { mut stream, answer, level, theirs } = greeted;
    let stream = &mut stream;
    if answer != HelloAnswer::Accepted {
        return Err(answer.why().to_owned());
    }
    let block = Block { level, kind: KIND_QUESTION, body: to_bytes(question) };
    sent.store(true, Ordering::Relaxed);
    block.write(stream).await.map_err(|error| error.to_string())?;
    let limit = if matches!(question, Question::Mend(_)) { ANSWER_BYTES_MAX } else { RPC_BYTES_MAX };
    let block =
        Block::read(stream, FeatureLevels::only(level), limit).await.map_err(|error| error.to_string())?;
    if block.kind != KIND_REPLY {
        return Err(BlockError::Kind(block.kind).to_string());
    }
    let reply = from_bytes_within::<Reply, { ANSWER_BYTES_MAX as usize }>("rpc reply", &block.body);
    let mut reply = reply.map_err(|error| error.to_string())?;
    if let Reply::Described(description) = &mut reply {
        description.speaks = theirs;
    }
    Ok(reply)
}

/// Reads the question of a caller that was let in, and speaks at `level`.
///
/// # Errors
/// [`BlockError`].
pub(crate) async fn read_question(
    stream: &mut (impl AsyncRead + Unpin),
    level: FeatureLevel,
) -> Result<Question, BlockError> {
    let block = Block::read(stream, FeatureLevels::only(level), RPC_BYTES_MAX).await?;
    if block.kind != KIND_QUESTION {
        return Err(BlockError::Kind(block.kind));
    }
    Ok(from_bytes("rpc question", &block.body)?)
}

/// Answers it, in the words of that level.
///
/// # Errors
/// What the stream says.
pub(crate) async fn write_reply(
    stream: &mut (impl AsyncWrite + Unpin),
    level: FeatureLevel,
    reply: &Reply,
) -> io::Result<()> {
    let body = match reply {
        Reply::Managed(Err(error)) => {
            let code = error.code.at(level);
            to_bytes(&Reply::Managed(Err(OrderError { code, ..error.clone() })))
        }
        reply => to_bytes(reply),
    };
    Block { level, kind: KIND_REPLY, body }.write(stream).await
}

#[cfg(test)]
mod tests;
