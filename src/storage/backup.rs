//! The bytes of a backup: one state of the keyspace, as a stream that says of itself whether it is
//! whole. `docs/wal-format.md` draws it.
//!
//! ```text
//! backup = header, chunk …, end
//! header = `ISbackup`, version (u32, 1), cluster id (u128), store id (u128),
//!          term and index of the last entry (u64 each), revision, keys, bytes of the store
//!          (u64 each), state hash (u128), checksum of all before it (u32)
//! chunk  = length (u32, 1 to 65,536), checksum (u32), bytes
//! end    = 0 (u32), checksum (u32), bytes of the body (u64), xxh3-128 of the body (u128)
//! ```
//! Integers are little-endian. The chunks hold the body of a snapshot (`kv`). A chunk's checksum is
//! of its number (u64, from 0), its length and its bytes; that of the end is of the number of
//! chunks, its length and what follows the checksum. Nothing follows the end.

use crate::codec::{COUNTER_MAX, DecodeError, Reader, Writer, checksum, checksum_parts};
use crate::kv::{Revision, Store, StoreReader};
use crate::raft::{ClusterId, LogId, LogIndex, StoreId, Term};
use bytes::{Buf, Bytes, BytesMut};
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// What a backup begins with.
const MAGIC: &[u8; 8] = b"ISbackup";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 104;
const CHECKSUM_BYTES: usize = 4;
/// Length and checksum of a chunk, or of the end.
const FRAME_BYTES: usize = 8;
/// What follows them in the end.
const END_BYTES: usize = 24;
/// Bytes of one chunk, at most.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// What a backup says of itself before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupHeader {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// The data directory of the member that wrote it.
    pub store: StoreId,
    /// The last entry that is in it.
    pub last: LogId,
    /// The store's revision.
    pub revision: Revision,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes of keys and values.
    pub store_bytes: u64,
    /// Hash of the whole state.
    pub state_hash: u128,
}

/// A state, as of one entry of the log.
#[derive(Clone, Debug)]
pub struct BackupSource {
    /// The cluster.
    pub cluster: ClusterId,
    /// The data directory that it comes from.
    pub store_id: StoreId,
    /// The last entry that is in it.
    pub last: LogId,
    /// The state. A clone costs nothing, and is let go as it is written.
    pub store: Store,
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It begins otherwise.
    #[error("this is no backup of this program: it does not begin with {:?}", "ISbackup")]
    NotABackup,
    /// A later version wrote it.
    #[error(
        "it is a backup of version {0}; this program reads version {VERSION}: use the program that wrote it, or a newer one"
    )]
    OtherVersion(u32),
    /// Its bytes are not those that were written.
    #[error("it is damaged at byte {at}: {why}; take another backup, or another copy of this one")]
    Damaged {
        /// Where, bytes from its beginning.
        at: u64,
        /// What is wrong there.
        why: String,
    },
    /// It ends before its end.
    #[error(
        "it is cut short: {at} bytes are there, and its end is not; take another backup, or another copy of this one"
    )]
    CutShort {
        /// How many bytes there are.
        at: u64,
    },
    /// All of its bytes are sound, but they are no state.
    #[error("its content is no state of a keyspace: {0}")]
    Content(String),
}

impl BackupHeader {
    fn of(source: &BackupSource) -> Self {
        Self {
            cluster: source.cluster,
            store: source.store_id,
            last: source.last,
            revision: source.store.revision(),
            keys: source.store.len() as u64,
            store_bytes: source.store.bytes(),
            state_hash: source.store.state_hash(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.put_u32(VERSION);
        bytes.put_u128(self.cluster.0);
        bytes.put_u128(self.store.0);
        let numbers =
            [self.last.term.get(), self.last.index.get(), self.revision.0, self.keys, self.store_bytes];
        numbers.into_iter().for_each(|number| bytes.put_u64(number));
        bytes.put_u128(self.state_hash);
        let sum = checksum(&bytes);
        bytes.put_u32(sum);
        debug_assert_eq!(bytes.len(), HEADER_BYTES, "all fields have a fixed width");
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        if !bytes.starts_with(MAGIC) {
            return Err(BackupError::NotABackup);
        }
        let damaged = |error: DecodeError| BackupError::Damaged { at: 0, why: error.to_string() };
        let mut reader = Reader::new(Bytes::copy_from_slice(&bytes[MAGIC.len()..]));
        let version = reader.u32("version").map_err(damaged)?;
        let (covered, sum) = bytes.split_at(HEADER_BYTES - CHECKSUM_BYTES);
        // A later version has its checksum elsewhere, so the version comes first.
        if version != VERSION {
            return Err(BackupError::OtherVersion(version));
        }
        if sum != checksum(covered).to_le_bytes() {
            let why = "the header does not match its checksum".to_owned();
            return Err(BackupError::Damaged { at: 0, why });
        }
        Self::read(&mut reader).map_err(damaged)
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (cluster, store) = (ClusterId(reader.u128("cluster")?), StoreId(reader.u128("store")?));
        let term = Term::new(reader.counter("term")?);
        let last = LogId::new(term, LogIndex::new(reader.counter("index")?));
        let revision = Revision(reader.counter("revision")?);
        let (keys, store_bytes) = (reader.counter("keys")?, reader.counter("bytes")?);
        let state_hash = reader.u128("state hash")?;
        Ok(Self { cluster, store, last, revision, keys, store_bytes, state_hash })
    }
}

/// Writes a backup, piece by piece. It holds the piece at hand, and what it has not written yet of
/// the state.
pub struct BackupWriter {
    header: BackupHeader,
    /// What the next pieces are made of.
    body: Option<Box<dyn Iterator<Item = Vec<u8>> + Send>>,
    begun: bool,
    chunks: u64,
    bytes: u64,
    hasher: Box<Xxh3>,
}

impl BackupWriter {
    /// A writer for this state.
    #[must_use]
    pub fn new(source: BackupSource) -> Self {
        let header = BackupHeader::of(&source);
        let body = Some(Box::new(source.store.into_snapshot_pieces()) as _);
        Self { header, body, begun: false, chunks: 0, bytes: 0, hasher: Box::new(Xxh3::new()) }
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    fn put_chunk(&mut self, out: &mut Vec<u8>, chunk: &[u8]) {
        let length = u32::try_from(chunk.len()).expect("a chunk is small");
        out.put_u32(length);
        out.put_u32(frame_checksum(self.chunks, length, chunk));
        out.extend_from_slice(chunk);
        self.chunks += 1;
    }
}

impl Iterator for BackupWriter {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            out = self.header.encode();
        }
        match self.body.as_mut()?.next() {
            Some(piece) => {
                self.hasher.update(&piece);
                self.bytes += piece.len() as u64;
                out.reserve(piece.len() + FRAME_BYTES * (piece.len() / CHUNK_BYTES_MAX + 1));
                piece.chunks(CHUNK_BYTES_MAX).for_each(|chunk| self.put_chunk(&mut out, chunk));
            }
            None => {
                self.body = None;
                let mut end = Vec::with_capacity(END_BYTES);
                end.put_u64(self.bytes);
                end.put_u128(self.hasher.digest128());
                out.put_u32(0);
                out.put_u32(frame_checksum(self.chunks, 0, &end));
                out.extend_from_slice(&end);
            }
        }
        Some(out)
    }
}

impl fmt::Debug for BackupWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupWriter").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Reads a backup from pieces that are cut anywhere, and checks it. It holds one chunk at most, and
/// the state as far as it is wanted. After an error it can only be dropped.
pub struct BackupReader {
    header: Option<BackupHeader>,
    /// What has come and was not taken apart.
    pending: BytesMut,
    /// Bytes that were taken apart.
    at: u64,
    chunks: u64,
    bytes: u64,
    hasher: Box<Xxh3>,
    /// The state; `None`: it is not wanted.
    state: Option<StoreReader>,
    is_whole: bool,
}

impl BackupReader {
    /// That checks the bytes alone.
    #[must_use]
    pub fn of_bytes() -> Self {
        let (pending, hasher) = (BytesMut::new(), Box::new(Xxh3::new()));
        Self { header: None, pending, at: 0, chunks: 0, bytes: 0, hasher, state: None, is_whole: false }
    }

    /// That builds the state, too.
    #[must_use]
    pub fn of_state() -> Self {
        Self { state: Some(StoreReader::new()), ..Self::of_bytes() }
    }

    /// What it says of itself, once that has come.
    #[must_use]
    pub fn header(&self) -> Option<&BackupHeader> {
        self.header.as_ref()
    }

    /// Whether its end has come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Takes in the next piece.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn push(&mut self, piece: &[u8]) -> Result<(), BackupError> {
        // In parts, so that no more than a chunk and a part wait.
        for part in piece.chunks(CHUNK_BYTES_MAX) {
            self.pending.extend_from_slice(part);
            while self.take_next()? {}
        }
        Ok(())
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// [`BackupError`]: its end is missing.
    pub fn finish(self) -> Result<(BackupHeader, Option<Store>), BackupError> {
        let at = self.at + self.pending.len() as u64;
        let (Some(header), true) = (self.header, self.is_whole) else {
            let magic = &MAGIC[..MAGIC.len().min(self.pending.len())];
            return Err(if self.header.is_none() && !self.pending.starts_with(magic) {
                BackupError::NotABackup
            } else {
                BackupError::CutShort { at }
            });
        };
        let Some(state) = self.state else { return Ok((header, None)) };
        let store = state.finish().map_err(|error| BackupError::Content(error.to_string()))?;
        let told = BackupHeader {
            revision: store.revision(),
            keys: store.len() as u64,
            store_bytes: store.bytes(),
            state_hash: store.state_hash(),
            ..header
        };
        if told != header {
            return Err(BackupError::Content("it is another state than the header tells of".to_owned()));
        }
        Ok((header, Some(store)))
    }

    /// Takes the next part apart; `false`: it is not whole yet.
    fn take_next(&mut self) -> Result<bool, BackupError> {
        if self.is_whole {
            return if self.pending.is_empty() {
                Ok(false)
            } else {
                Err(self.damaged("something follows its end"))
            };
        }
        if self.header.is_none() {
            if self.pending.len() < HEADER_BYTES {
                return Ok(false);
            }
            self.header = Some(BackupHeader::decode(&self.pending[..HEADER_BYTES])?);
            self.advance(HEADER_BYTES);
            return Ok(true);
        }
        let Some((frame, rest)) = self.pending.split_at_checked(FRAME_BYTES) else { return Ok(false) };
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().expect("four bytes"));
        let (length, sum) = (word(0), word(4));
        let is_end = length == 0;
        let bytes = if is_end { END_BYTES } else { length as usize };
        if bytes > CHUNK_BYTES_MAX {
            return Err(self.damaged("a chunk is longer than any is"));
        }
        let Some(content) = rest.get(..bytes) else { return Ok(false) };
        if frame_checksum(self.chunks, length, content) != sum {
            return Err(self.damaged("the bytes do not match their checksum"));
        }
        if is_end {
            let total = u64::from_le_bytes(content[..8].try_into().expect("eight bytes"));
            let hash = u128::from_le_bytes(content[8..].try_into().expect("sixteen bytes"));
            if (total, hash) != (self.bytes, self.hasher.digest128()) || total > COUNTER_MAX {
                return Err(self.damaged("the chunks are not those that its end tells of"));
            }
            self.is_whole = true;
        } else {
            self.hasher.update(content);
            self.bytes += u64::from(length);
            self.chunks += 1;
            if let Some(state) = &mut self.state {
                state.push(content).map_err(|error| BackupError::Content(error.to_string()))?;
            }
        }
        self.advance(FRAME_BYTES + bytes);
        Ok(true)
    }

    fn advance(&mut self, bytes: usize) {
        self.pending.advance(bytes);
        self.at += bytes as u64;
    }

    fn damaged(&self, why: &str) -> BackupError {
        BackupError::Damaged { at: self.at, why: why.to_owned() }
    }
}

impl fmt::Debug for BackupReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupReader")
            .field("header", &self.header)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// A frame's number is part of its checksum, so that frames cannot change places.
fn frame_checksum(number: u64, length: u32, content: &[u8]) -> u32 {
    checksum_parts(&[&number.to_le_bytes(), &length.to_le_bytes(), content])
}
