//! The body of a snapshot: a store as a stream of bytes, and back.
//!
//! ```text
//! body    = format (u8, 1), key …, end
//! key     = tag (u8, 1), create_revision, mod_revision, version (u64 each), key length, value length (u32 each), key, value
//! end     = tag (u8, 0), number of keys, revision (u64 each), state hash (u128)
//! ```
//! Integers are little-endian; keys ascend. Every record begins with [`HEAD_BYTES`] bytes, so that
//! its length is known from them. The checksums of the file and of the wire find damage within
//! pieces. The hash at the end makes sure that what was rebuilt is what was captured.

use crate::codec::{COUNTER_MAX, DecodeError, Writer};
use crate::kv::command::{KEY_BYTES_MAX, Revision, VALUE_BYTES_MAX};
use crate::kv::leaf::VersionedRef;
use crate::kv::store::{Store, StoreBuilder};
use alloc::vec::Vec;

/// The first byte of a body: which format the rest has.
const FORMAT: u8 = 1;
/// A record that is a key.
const TAG_KEY: u8 = 1;
/// The record at the end.
const TAG_END: u8 = 0;
/// Every record is at least this long.
const HEAD_BYTES: usize = 33;
/// A piece is handed out once it is this long; it is longer by at most one record.
const PIECE_BYTES: usize = 64 << 10;

impl Store {
    /// The body of a snapshot, in pieces of some 64 KiB, in key order. To go on changing the store
    /// meanwhile, clone it first: that is the capture.
    pub fn snapshot_pieces(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        self.clone().into_snapshot_pieces()
    }

    /// The same for a capture, which is let go piece by piece. A write to the store copies what the
    /// capture still shares with it, so a capture that is kept whole to the end can take twice the
    /// memory.
    pub fn into_snapshot_pieces(self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let end = End { keys: self.len() as u64, revision: self.revision(), state_hash: self.state_hash() };
        let mut keys = self.into_walk();
        let mut started = false;
        let mut ended = false;
        core::iter::from_fn(move || {
            if ended {
                return None;
            }
            let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
            if !started {
                started = true;
                piece.put_u8(FORMAT);
            }
            while piece.len() < PIECE_BYTES {
                if let Some((key, versioned)) = keys.next() {
                    put_key(&mut piece, key, versioned);
                } else {
                    put_end(&mut piece, &end);
                    ended = true;
                    break;
                }
            }
            Some(piece)
        })
    }
}

/// What the last record says.
struct End {
    keys: u64,
    revision: Revision,
    state_hash: u128,
}

fn put_key(piece: &mut Vec<u8>, key: &[u8], versioned: VersionedRef<'_>) {
    piece.put_u8(TAG_KEY);
    piece.put_u64(versioned.create_revision.0);
    piece.put_u64(versioned.mod_revision.0);
    piece.put_u64(versioned.version);
    piece.put_u32(u32::try_from(key.len()).expect("commands keep keys below their limit"));
    piece.put_u32(u32::try_from(versioned.value.len()).expect("commands keep values below their limit"));
    piece.extend_from_slice(key);
    piece.extend_from_slice(versioned.value);
}

fn put_end(piece: &mut Vec<u8>, end: &End) {
    piece.put_u8(TAG_END);
    piece.put_u64(end.keys);
    piece.put_u64(end.revision.0);
    piece.put_u128(end.state_hash);
}

/// Rebuilds a store from the pieces of a snapshot's body, cut anywhere.
///
/// Beside the store it holds at most one record and the piece being read. After an error it can
/// only be dropped.
#[derive(Debug, Default)]
pub struct StoreReader {
    builder: StoreBuilder,
    /// Whole, once the end record agreed with what came before it.
    store: Option<Store>,
    /// The last key put into `builder`: the next one is greater.
    last_key: Option<Vec<u8>>,
    /// Largest mod_revision so far: the store's revision is not below it.
    newest: Revision,
    /// The start of a record whose rest is in the next piece.
    pending: Vec<u8>,
    progress: Progress,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Progress {
    /// Before the format byte.
    #[default]
    Start,
    /// Among the keys.
    Keys,
    /// After the end record, which agreed with what came before it.
    Ended,
}

impl StoreReader {
    /// Before the first piece.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next piece.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no snapshot body.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        if self.pending.is_empty() {
            let used = self.read_records(piece)?;
            self.pending.extend_from_slice(&piece[used..]);
            return Ok(());
        }
        let mut bytes = core::mem::take(&mut self.pending);
        bytes.extend_from_slice(piece);
        let used = self.read_records(&bytes)?;
        bytes.drain(..used);
        self.pending = bytes;
        Ok(())
    }

    /// Ends the body and hands out the store, whose state hash is the one that the body carries.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is cut short.
    pub fn finish(self) -> Result<Store, DecodeError> {
        self.store.ok_or(DecodeError::Short {
            what: "snapshot body",
            needs: self.pending.len().max(HEAD_BYTES),
            has: self.pending.len(),
        })
    }

    /// Reads the whole records at the front of `bytes`; returns how many bytes they take.
    fn read_records(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut rest = bytes;
        if self.progress == Progress::Start {
            let Some((&format, after)) = rest.split_first() else { return Ok(0) };
            if format != FORMAT {
                return Err(DecodeError::Invalid {
                    what: "format of the snapshot body",
                    value: u64::from(format),
                });
            }
            rest = after;
            self.progress = Progress::Keys;
        }
        while self.progress == Progress::Keys {
            let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() else { break };
            match head[0] {
                TAG_KEY => {
                    let Some(after) = self.read_key(head, after)? else { break };
                    rest = after;
                }
                TAG_END => {
                    self.read_end(head)?;
                    rest = after;
                }
                tag => return Err(DecodeError::Invalid { what: "snapshot record", value: u64::from(tag) }),
            }
        }
        if self.progress == Progress::Ended && !rest.is_empty() {
            return Err(DecodeError::Trailing { what: "snapshot body", count: rest.len() });
        }
        Ok(bytes.len() - rest.len())
    }

    /// Puts the key of this record into the store; returns what follows the record, `None` if it is
    /// not whole yet.
    fn read_key<'a>(
        &mut self,
        head: &[u8; HEAD_BYTES],
        after: &'a [u8],
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        let create_revision = Revision(u64_at(head, 1));
        let mod_revision = Revision(u64_at(head, 9));
        let version = u64_at(head, 17);
        let lengths = u64_at(head, 25);
        let key_length = checked_length("key", lengths & 0xffff_ffff, KEY_BYTES_MAX)?;
        let value_length = checked_length("value", lengths >> 32, VALUE_BYTES_MAX)?;
        if create_revision.0 == 0 || create_revision > mod_revision {
            return Err(DecodeError::Invalid { what: "create_revision", value: create_revision.0 });
        }
        // Each of its sets had a revision of its own.
        if version == 0 || version - 1 > mod_revision.0 - create_revision.0 {
            return Err(DecodeError::Invalid { what: "version of a key", value: version });
        }
        if after.len() < key_length + value_length {
            return Ok(None);
        }
        let (key, after) = after.split_at(key_length);
        let (value, after) = after.split_at(value_length);
        if self.last_key.as_deref() >= Some(key) || key.is_empty() {
            return Err(DecodeError::Invalid { what: "order of the keys", value: self.builder.len() as u64 });
        }
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        self.newest = self.newest.max(mod_revision);
        self.builder.push(key, VersionedRef { value, create_revision, mod_revision, version });
        Ok(Some(after))
    }

    fn read_end(&mut self, head: &[u8; HEAD_BYTES]) -> Result<(), DecodeError> {
        let count = u64_at(head, 1);
        if count != self.builder.len() as u64 {
            return Err(DecodeError::Invalid { what: "number of keys", value: count });
        }
        let revision = Revision(u64_at(head, 9));
        if revision < self.newest || revision.0 > COUNTER_MAX {
            return Err(DecodeError::Invalid { what: "revision of the snapshot", value: revision.0 });
        }
        let store = core::mem::take(&mut self.builder).finish(revision);
        let state_hash = u128::from(u64_at(head, 17)) | u128::from(u64_at(head, 25)) << 64;
        if state_hash != store.state_hash() {
            return Err(DecodeError::Invalid { what: "state hash of the snapshot", value: u64_at(head, 17) });
        }
        self.store = Some(store);
        self.progress = Progress::Ended;
        Ok(())
    }
}

fn u64_at(head: &[u8; HEAD_BYTES], offset: usize) -> u64 {
    let bytes = head[offset..].first_chunk().expect("the head holds four words behind its tag");
    u64::from_le_bytes(*bytes)
}

fn checked_length(what: &'static str, length: u64, limit: usize) -> Result<usize, DecodeError> {
    match usize::try_from(length) {
        Ok(fits) if fits <= limit => Ok(fits),
        _ => Err(DecodeError::TooLong { what, length, limit: limit as u64 }),
    }
}

#[cfg(test)]
mod tests;
