//! The first words on a connection: who calls, whom it wants, and whether it is let in.

use crate::codec::{Reader, Writer};
use crate::raft::{ClusterId, NodeId, StoreId};
use crate::server::block::{Block, BlockError};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// A hello, or its answer, has a body of at most so many bytes.
const HELLO_BYTES_MAX: u32 = 2048;
/// An address or a reason in it is at most so long.
const TEXT_BYTES_MAX: usize = 1024;

const KIND_PEER: u8 = 1;
const KIND_RPC: u8 = 2;
const KIND_ACCEPTED: u8 = 3;
const KIND_REFUSED: u8 = 4;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// Messages from one member to another, for as long as it lasts.
    Peer(PeerHello),
    /// One question and its answer.
    Rpc,
}

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerHello {
    /// The caller's cluster.
    pub cluster: ClusterId,
    /// The caller.
    pub from: NodeId,
    /// The caller's data directory.
    pub store: StoreId,
    /// Where the caller is reached: the called may never have heard of it.
    pub raft_addr: String,
    /// Whom it calls.
    pub to: NodeId,
}

/// What the called says to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Go on.
    Accepted,
    /// Go away, and why.
    Refused(String),
}

impl Hello {
    /// Says hello.
    ///
    /// # Errors
    /// What the stream says.
    pub(super) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        self.to_block().write(stream).await
    }

    /// Listens for a hello.
    ///
    /// # Errors
    /// [`BlockError`] for anything else.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, BlockError> {
        Self::from_block(Block::read(stream, HELLO_BYTES_MAX).await?)
    }

    fn to_block(&self) -> Block {
        match self {
            Self::Rpc => Block { kind: KIND_RPC, body: Vec::new() },
            Self::Peer(peer) => {
                let mut body = Vec::new();
                body.put_u128(peer.cluster.0);
                body.put_u64(peer.from.get());
                body.put_u128(peer.store.0);
                body.put_u64(peer.to.get());
                body.put_bytes(peer.raft_addr.as_bytes());
                Block { kind: KIND_PEER, body }
            }
        }
    }

    fn from_block(block: Block) -> Result<Self, BlockError> {
        let mut body = Reader::new(Bytes::from(block.body));
        let hello = match block.kind {
            KIND_RPC => Self::Rpc,
            KIND_PEER => Self::Peer(PeerHello {
                cluster: ClusterId(body.u128("hello cluster")?),
                from: NodeId::new(body.u64("hello sender")?),
                store: StoreId(body.u128("hello store")?),
                to: NodeId::new(body.u64("hello addressee")?),
                raft_addr: text(&mut body, "hello address")?,
            }),
            other => return Err(BlockError::Kind(other)),
        };
        body.finish("hello")?;
        Ok(hello)
    }
}

impl Answer {
    /// Answers.
    ///
    /// # Errors
    /// What the stream says.
    pub(super) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let block = match self {
            Self::Accepted => Block { kind: KIND_ACCEPTED, body: Vec::new() },
            Self::Refused(reason) => {
                let mut end = reason.len().min(TEXT_BYTES_MAX);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                let mut body = Vec::new();
                body.put_bytes(&reason.as_bytes()[..end]);
                Block { kind: KIND_REFUSED, body }
            }
        };
        block.write(stream).await
    }

    /// Listens for an answer.
    ///
    /// # Errors
    /// [`BlockError`] for anything else.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, BlockError> {
        let block = Block::read(stream, HELLO_BYTES_MAX).await?;
        let mut body = Reader::new(Bytes::from(block.body));
        let answer = match block.kind {
            KIND_ACCEPTED => Self::Accepted,
            KIND_REFUSED => Self::Refused(text(&mut body, "refusal")?),
            other => return Err(BlockError::Kind(other)),
        };
        body.finish("answer to hello")?;
        Ok(answer)
    }
}

/// Text from a stranger: bounded, and harmless in a log line.
fn text(body: &mut Reader, what: &'static str) -> Result<String, BlockError> {
    let bytes = body.bytes(what, TEXT_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests;
