//! Self-describing blocks: what opens every connection, and what the questions between nodes travel
//! in.
//!
//! A block is: magic (8 bytes), level u16, kind u8, body length u32, body, CRC-32 of all before. A
//! stranger (a browser, a port scanner, a newer release) is recognised by the first bytes, before
//! anything is allocated.

use crate::codec::{FeatureLevel, FeatureLevels, Writer, checksum_parts};
use crate::tls::refusal_in;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 8] = *b"InfStore";
const HEADER_BYTES: usize = 15;
/// A body is read in steps of this many bytes.
const STEP_BYTES: usize = 16 << 10;

/// A block's kind and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The level in whose words the body is.
    pub level: FeatureLevel,
    /// What the body is.
    pub kind: u8,
    /// The body.
    pub body: Vec<u8>,
}

/// Why no block could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    /// The first bytes belong to another protocol. They are not repeated: the other side chooses
    /// them, and they may be private.
    #[error("it does not speak InfinityStore's protocol ({0})")]
    Garbage(&'static str),
    /// A level of the protocol that has no place here.
    #[error("it speaks level {found} of the protocol, and this node {here}: {}", remedy(*found, *here))]
    Level {
        /// The block's level.
        found: FeatureLevel,
        /// Those that are understood.
        here: FeatureLevels,
    },
    /// A body beyond the limit.
    #[error("it announced {length} bytes where at most {limit} are allowed")]
    TooLong {
        /// What it announced.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// Damaged on the way.
    #[error("it arrived damaged (checksum mismatch)")]
    Damaged,
    /// A kind that has no place here.
    #[error("it sent a block of kind {0}, which has no place here")]
    Kind(u8),
    /// A body that its kind does not have.
    #[error("it sent a body that makes no sense: {0}")]
    Body(#[from] crate::codec::DecodeError),
    /// It does not believe this node's certificate. In words.
    #[error("it does not let this node in: {0}")]
    Certificate(String),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        refusal_in(&error).map_or(Self::Io(error), Self::Certificate)
    }
}

impl BlockError {
    /// The kind of error, without what the other side sent.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Garbage(kind) => kind,
            Self::Level { .. } => "level",
            Self::TooLong { .. } => "too long",
            Self::Damaged => "damaged",
            Self::Kind(_) => "kind",
            Self::Body(_) => "body",
            Self::Certificate(_) => "certificate",
            Self::Io(_) => "io",
        }
    }
}

impl Block {
    /// The block's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.put_u16(self.level.get());
        bytes.put_u8(self.kind);
        bytes.put_bytes(&self.body);
        let sum = checksum_parts(&[&bytes]);
        bytes.put_u32(sum);
        bytes
    }

    /// Writes the block.
    ///
    /// # Errors
    /// What the stream says.
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        stream.write_all(&self.encode()).await?;
        stream.flush().await
    }

    /// Reads a block of one of these levels, with a body of at most `limit` bytes.
    ///
    /// # Errors
    /// [`BlockError`]; the stream is of no use afterwards.
    pub(crate) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
        here: FeatureLevels,
        limit: u32,
    ) -> Result<Self, BlockError> {
        let mut header = [0; HEADER_BYTES];
        let mut filled = 0;
        while filled < HEADER_BYTES {
            let read = stream.read(&mut header[filled..]).await?;
            filled += read;
            let seen = filled.min(MAGIC.len());
            if header[..seen] != MAGIC[..seen] {
                return Err(BlockError::Garbage(guess(&header[..filled])));
            }
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let level = FeatureLevel::new(u16::from_le_bytes([header[8], header[9]]));
        if !here.contains(level) {
            return Err(BlockError::Level { found: level, here });
        }
        let length = u32::from_le_bytes([header[11], header[12], header[13], header[14]]);
        if length > limit {
            return Err(BlockError::TooLong { length, limit });
        }
        let body = read_body(stream, length as usize).await?;
        let mut sum = [0; 4];
        stream.read_exact(&mut sum).await?;
        if u32::from_le_bytes(sum) != checksum_parts(&[&header, &body]) {
            return Err(BlockError::Damaged);
        }
        Ok(Self { level, kind: header[10], body })
    }
}

/// Which of two nodes is to be upgraded.
fn remedy(found: FeatureLevel, here: FeatureLevels) -> &'static str {
    if found > here.highest() {
        "this node is of an older release, and has to be upgraded"
    } else {
        "the other one is of an older release, and has to be upgraded"
    }
}

/// Reads a body. Its memory grows with what has arrived, whatever was announced.
async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < length {
        let from = body.len();
        body.resize(length.min(from + STEP_BYTES), 0);
        stream.read_exact(&mut body[from..]).await?;
    }
    Ok(body)
}

/// The protocol of a caller that begins with these bytes, as far as one can guess.
fn guess(bytes: &[u8]) -> &'static str {
    const METHODS: [&[u8]; 6] = [b"GET", b"POS", b"PUT", b"HEA", b"OPT", b"HTT"];
    match bytes {
        [0x16, 0x03, ..] => "it seems to speak TLS",
        _ if METHODS.iter().any(|method| bytes.starts_with(method)) => "it seems to speak HTTP",
        _ => "it speaks something else",
    }
}

#[cfg(test)]
mod tests;
