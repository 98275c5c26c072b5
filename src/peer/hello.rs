//! The first words on a connection: the caller, the member that it wants, and whether it is let in.

use crate::codec::{FeatureLevel, FeatureLevels, Reader, Writer};
use crate::peer::block::{Block, BlockError};
use crate::raft::{ClusterId, Incarnation, NodeId, StoreId};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of the body of a hello or its answer, at most.
pub(super) const HELLO_BYTES_MAX: u32 = 2048;
/// Bytes of an address or a reason in it, at most.
const TEXT_BYTES_MAX: usize = 1024;

/// Starts in a hello, at most.
const STARTS_MAX: usize = 16;

/// The interval at which an idle connection between members says that its writer lives, with an
/// empty frame.
pub(crate) const PING_MICROS: u64 = 500_000;

const KIND_PEER: u8 = 1;
const KIND_RPC: u8 = 2;
const KIND_ACCEPTED: u8 = 3;
const KIND_REFUSED: u8 = 4;
// 5 and 6 are questions and replies.
const KIND_OLDER_COPY: u8 = 7;
const KIND_NOT_YET: u8 = 8;
const KIND_HEARD: u8 = 9;
const KIND_REMOVED: u8 = 10;
const KIND_OTHER_LEVEL: u8 = 11;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// Messages from one member to another, for as long as it lasts.
    Peer(PeerHello),
    /// One question and its answer.
    Rpc,
}

/// The caller and the member that it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerHello {
    /// The caller's cluster.
    pub cluster: ClusterId,
    /// The caller.
    pub from: NodeId,
    /// The caller's data directory.
    pub store: StoreId,
    /// Where the caller is reached. The node that it calls may not know it yet.
    pub raft_addr: String,
    /// The member that it calls.
    pub to: NodeId,
    /// Which start of its data directory the caller is.
    pub starts: Starts,
}

/// Which start of a data directory a process is, and which ones its directory remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Starts {
    /// The number of this start, from 1.
    pub number: u64,
    /// The random numbers of this start and of those before it, newest first. At least one.
    pub nonces: Vec<u64>,
}

impl Starts {
    /// The start that an incarnation is, of a directory that remembers these.
    #[must_use]
    pub(crate) fn new(incarnation: Incarnation, nonces: Vec<u64>) -> Self {
        Self { number: incarnation.number(), nonces }
    }

    /// This start alone.
    #[must_use]
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation::drawn(self.number, self.nonces.first().copied().unwrap_or_default())
    }

    /// Whether the directory was in use by `earlier` before, or is so by that very start. If more
    /// starts lie between them than are remembered, the answer is yes.
    #[must_use]
    pub(crate) fn come_after(&self, earlier: Incarnation) -> bool {
        let Some(between) = self.number.checked_sub(earlier.number()) else { return false };
        let remembered = usize::try_from(between).ok().and_then(|between| self.nonces.get(between));
        match remembered {
            Some(nonce) => *nonce == earlier.nonce(),
            None => self.nonces.len() >= STARTS_MAX,
        }
    }
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HelloAnswer {
    /// The caller may send messages.
    Accepted,
    /// The caller is refused, and why.
    Refused(String),
    /// The caller is to call again: this node is about to join its cluster. In words.
    NotYet(String),
    /// The caller's data directory is an older copy of one that this node has met in use: the
    /// caller has lost what it acknowledged since. In words.
    OlderCopy(String),
    /// The caller was removed from the cluster, by a committed membership. In words.
    Removed(String),
    /// The two speak no level that the cluster can be at.
    OtherLevel {
        /// The levels that the called node speaks.
        speaks: FeatureLevels,
        /// The level of its cluster.
        needs: FeatureLevel,
        /// In words.
        why: String,
    },
}

impl Hello {
    /// Its kind, and its body as every level has it.
    pub(super) fn to_words(&self) -> (u8, Vec<u8>) {
        let Self::Peer(peer) = self else { return (KIND_RPC, Vec::new()) };
        let mut body = Vec::new();
        body.put_u128(peer.cluster.0);
        body.put_u64(peer.from.get());
        body.put_u128(peer.store.0);
        body.put_u64(peer.to.get());
        body.put_bytes(peer.raft_addr.as_bytes());
        body.put_u64(peer.starts.number);
        let nonces = &peer.starts.nonces[..peer.starts.nonces.len().min(STARTS_MAX)];
        body.put_u8(u8::try_from(nonces.len()).expect("there are few"));
        nonces.iter().for_each(|nonce| body.put_u64(*nonce));
        (KIND_PEER, body)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`BlockError`] for anything else.
    pub(super) fn from_words(kind: u8, mut body: Reader) -> Result<Self, BlockError> {
        let hello = match kind {
            KIND_RPC => Self::Rpc,
            KIND_PEER => Self::Peer(PeerHello {
                cluster: ClusterId(body.u128("hello cluster")?),
                from: NodeId::new(body.u64("hello sender")?),
                store: StoreId(body.u128("hello store")?),
                to: NodeId::new(body.u64("hello addressee")?),
                raft_addr: text(&mut body, "hello address")?,
                starts: starts(&mut body)?,
            }),
            other => return Err(BlockError::Kind(other)),
        };
        body.finish("hello")?;
        Ok(hello)
    }
}

/// Says, to a node that takes this one's data directory for an older copy, that it was heard: so
/// the words that it answered were those of a process that lives.
///
/// # Errors
/// What the stream says.
pub(crate) async fn write_heard(
    stream: &mut (impl AsyncWrite + Unpin),
    level: FeatureLevel,
) -> std::io::Result<()> {
    Block { level, kind: KIND_HEARD, body: Vec::new() }.write(stream).await
}

/// Listens for the caller to say that it has heard the answer.
///
/// # Errors
/// [`BlockError`] for anything else.
pub(crate) async fn read_heard(
    stream: &mut (impl AsyncRead + Unpin),
    speaks: FeatureLevels,
) -> Result<(), BlockError> {
    let block = Block::read(stream, speaks, HELLO_BYTES_MAX).await?;
    if block.kind == KIND_HEARD { Ok(()) } else { Err(BlockError::Kind(block.kind)) }
}

/// How an answer to a hello is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// The level in whose words it is said: those of the hello.
    pub words: FeatureLevel,
    /// The level at which both go on, if the caller is let in.
    pub agreed: FeatureLevel,
    /// The levels that the called node speaks.
    pub speaks: FeatureLevels,
}

impl Manner {
    /// For a caller that cannot be understood: in the words that most understand.
    pub(crate) const fn for_anybody(speaks: FeatureLevels) -> Self {
        Self { words: speaks.lowest(), agreed: speaks.lowest(), speaks }
    }
}

/// An answer as it was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeardAnswer {
    /// The answer.
    pub answer: HelloAnswer,
    /// The level in whose words it was said.
    pub words: FeatureLevel,
    /// If the caller is let in: the level at which both speak, and those that the called node
    /// speaks.
    pub agreed: (FeatureLevel, FeatureLevels),
}

impl HelloAnswer {
    /// Answers.
    ///
    /// # Errors
    /// What the stream says.
    pub(crate) async fn write(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        manner: Manner,
    ) -> std::io::Result<()> {
        let tells_levels = manner.words >= FeatureLevel::NEGOTIATES;
        let mut body = Vec::new();
        let kind = match self {
            Self::Accepted => {
                if tells_levels {
                    manner.agreed.encode(&mut body);
                    manner.speaks.encode(&mut body);
                }
                KIND_ACCEPTED
            }
            Self::OtherLevel { speaks, needs, why } if tells_levels => {
                speaks.encode(&mut body);
                needs.encode(&mut body);
                put_text(&mut body, why);
                KIND_OTHER_LEVEL
            }
            Self::Removed(reason) => {
                put_text(&mut body, reason);
                KIND_REMOVED
            }
            Self::NotYet(reason) => {
                put_text(&mut body, reason);
                KIND_NOT_YET
            }
            Self::OlderCopy(reason) => {
                put_text(&mut body, reason);
                KIND_OLDER_COPY
            }
            Self::Refused(reason) | Self::OtherLevel { why: reason, .. } => {
                put_text(&mut body, reason);
                KIND_REFUSED
            }
        };
        Block { level: manner.words, kind, body }.write(stream).await
    }

    /// Why the caller is not let in; nothing, if it is.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Accepted => "",
            Self::Refused(why)
            | Self::NotYet(why)
            | Self::OlderCopy(why)
            | Self::Removed(why)
            | Self::OtherLevel { why, .. } => why,
        }
    }

    /// Listens for an answer, in the words of any of these levels.
    ///
    /// # Errors
    /// [`BlockError`] for anything else.
    pub(crate) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        speaks: FeatureLevels,
    ) -> Result<HeardAnswer, BlockError> {
        let block = Block::read(stream, speaks, HELLO_BYTES_MAX).await?;
        let words = block.level;
        let tells_levels = words >= FeatureLevel::NEGOTIATES;
        let mut body = Reader::new(Bytes::from(block.body));
        let mut agreed = (words, FeatureLevels::only(words));
        let answer = match block.kind {
            KIND_ACCEPTED => {
                if tells_levels {
                    agreed = (FeatureLevel::take(&mut body)?, FeatureLevels::take(&mut body)?);
                }
                Self::Accepted
            }
            KIND_OTHER_LEVEL if tells_levels => {
                let (speaks, needs) = (FeatureLevels::take(&mut body)?, FeatureLevel::take(&mut body)?);
                Self::OtherLevel { speaks, needs, why: text(&mut body, "refusal")? }
            }
            KIND_REFUSED => Self::Refused(text(&mut body, "refusal")?),
            KIND_NOT_YET => Self::NotYet(text(&mut body, "refusal")?),
            KIND_OLDER_COPY => Self::OlderCopy(text(&mut body, "refusal")?),
            KIND_REMOVED => Self::Removed(text(&mut body, "refusal")?),
            other => return Err(BlockError::Kind(other)),
        };
        body.finish("answer to hello")?;
        Ok(HeardAnswer { answer, words, agreed })
    }
}

/// A reason, cut between characters.
fn put_text(body: &mut Vec<u8>, reason: &str) {
    let mut end = reason.len().min(TEXT_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    body.put_bytes(&reason.as_bytes()[..end]);
}

fn starts(body: &mut Reader) -> Result<Starts, BlockError> {
    let number = body.counter("number of a start")?;
    let count = usize::from(body.u8("starts in a hello")?);
    if count == 0 || count > STARTS_MAX {
        let (length, limit) = (count as u64, STARTS_MAX as u64);
        return Err(crate::codec::DecodeError::TooLong { what: "starts in a hello", length, limit }.into());
    }
    let nonces: Result<Vec<u64>, _> = (0..count).map(|_| body.u64("a start")).collect();
    Ok(Starts { number, nonces: nonces? })
}

/// Text from a stranger: bounded, and harmless in a log line.
fn text(body: &mut Reader, what: &'static str) -> Result<String, BlockError> {
    let bytes = body.bytes(what, TEXT_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
impl Hello {
    /// Says hello as a node of this release does.
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let (kind, mut words) = self.to_words();
        let mut body = Vec::new();
        FeatureLevels::OF_THIS_RELEASE.encode(&mut body);
        FeatureLevel::OLDEST.encode(&mut body);
        body.append(&mut words);
        Block { level: FeatureLevel::NEGOTIATES, kind, body }.write(stream).await
    }
}

#[cfg(test)]
impl HelloAnswer {
    /// Listens for an answer, in whatever words.
    pub(crate) async fn heard(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, BlockError> {
        Ok(Self::read(stream, FeatureLevels::OF_THIS_RELEASE).await?.answer)
    }
}

#[cfg(test)]
mod tests;
