//! The body of a snapshot: a store as a stream of bytes, and back.
//!
//! ```text
//! body   = format (u8), state, key …, lease …, answer …, rules, chunk …, end
//! state  = 1, [level], revision, compacted, last grant, last answer, [first answer that is dated,
//!          revision below which answers are forgotten], history_bytes, quota_bytes, answers_bytes
//!          (u64 each; what is in brackets from format 6 on)
//! key    = 2, create_revision, mod_revision, version, lease (u64 each), place, key length,
//!          value length (u32 each), key, value
//! lease  = 3, id, seconds to live, number of the grant (u64 each), kind of its owner (u8; 0:
//!          nobody knows, 1: a user, 2: a token), id of the owner (u64)
//! answer = 4, key length, answer length (u32 each), idempotency key, answer
//! rules  = 5, length (u32), users, roles and tokens (`security/wire.rs`)
//! chunk  = 6, first revision (u64), records, bytes, large values (u32 each),
//!          end of each record (u32 each), bytes, large …
//! large  = 7, length (u32), value
//! end    = 8, keys, leases, answers, chunks (u64 each), state hash (u128)
//! ```
//! A record begins with its tag (u8). Integers are little-endian. Keys ascend, leases and
//! idempotency keys too; chunks are in the order of their revisions, and `history.rs` says what is
//! in one. An answer is a fingerprint (u128), its number, if it is dated the revision at which it
//! was made (u64 each), and an outcome (`outcome.rs`). The checksums of the file and of the wire
//! find damage within pieces. The hash at the end makes sure that what was rebuilt is what was
//! captured.

use crate::codec::{COUNTER_MAX, DecodeError, FeatureLevel, Writer};
use crate::kv::answers::ANSWER_BYTES_MAX;
use crate::kv::command::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::kv::history::{CHUNK_BYTES_MAX, Chunk, RECORDS_MAX};
use crate::kv::leaf::{PACKED_VALUE_BYTES_MAX, VersionedRef, digest};
use crate::kv::leases::{LEASE_TTL_SECONDS_MAX, owner_in_numbers, owner_of_numbers};
use crate::kv::security::{SECURITY_BYTES_MAX, Security};
use crate::kv::snapshot::fields::{Fields, checked_length};
use crate::kv::snapshot::state::{put_state, read_state};
use crate::kv::store::Store;
use crate::kv::tree::{TreeBuilder, Walk};
use crate::kv::types::{KEY_BYTES_MAX, LeaseId, Revision, VALUE_BYTES_MAX};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

mod fields;
mod state;

/// The first byte of a body: its format. This one in a cluster of the oldest level, …
const FORMAT_OLD: u8 = 5;
/// … and this one, which tells the level and when answers were made, in any other.
const FORMAT: u8 = 6;
const TAG_STATE: u8 = 1;
const TAG_KEY: u8 = 2;
const TAG_LEASE: u8 = 3;
const TAG_ANSWER: u8 = 4;
const TAG_RULES: u8 = 5;
const TAG_CHUNK: u8 = 6;
const TAG_LARGE: u8 = 7;
const TAG_END: u8 = 8;
/// A piece is handed out once it is so long. It is longer by a record at most, or by as much of a
/// chunk.
const PIECE_BYTES: usize = 64 << 10;

impl Store {
    /// The body of a snapshot, in pieces of some 64 KiB. To go on changing the store meanwhile,
    /// clone it first: that is the capture.
    pub fn snapshot_pieces(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        self.clone().into_snapshot_pieces()
    }

    /// The same for a capture, which is let go piece by piece. A write to the store copies what the
    /// capture still shares with it, so a capture that is kept whole to the end can take twice the
    /// memory.
    pub fn into_snapshot_pieces(self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let mut body = Body::of(self);
        core::iter::from_fn(move || {
            if body.section == Section::Done {
                return None;
            }
            let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
            while piece.len() < PIECE_BYTES && body.section != Section::Done {
                body.put_next(&mut piece);
            }
            Some(piece)
        })
    }
}

/// What is left of a body.
struct Body {
    section: Section,
    keys: Walk,
    /// The store without its keys.
    rest: Store,
    end: End,
    /// The next lease.
    lease: LeaseId,
    /// The idempotency key of the last answer.
    answer: Vec<u8>,
    /// The chunk that is being written.
    chunk: Option<WritingChunk>,
}

/// A chunk whose record has begun. It can be far longer than a piece.
struct WritingChunk {
    chunk: Arc<Chunk>,
    /// How many of its bytes have been written, …
    bytes: usize,
    /// … and how many of its large values.
    large: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Section {
    Start,
    Keys,
    Leases,
    Answers,
    Rules,
    Chunks,
    Done,
}

/// What the last record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    keys: u64,
    leases: u64,
    answers: u64,
    chunks: u64,
    state_hash: u128,
}

impl End {
    fn of(store: &Store) -> Self {
        Self {
            keys: store.len() as u64,
            leases: store.leases.len() as u64,
            answers: store.answers.len() as u64,
            chunks: store.history.chunks().count() as u64,
            state_hash: store.state_hash(),
        }
    }
}

impl Body {
    fn of(mut store: Store) -> Self {
        let end = End::of(&store);
        let keys = core::mem::take(&mut store.live).into_walk();
        let (lease, answer) = (LeaseId::NONE, Vec::new());
        Self { section: Section::Start, keys, rest: store, end, lease, answer, chunk: None }
    }

    /// Writes the next record, or goes on to the next section.
    fn put_next(&mut self, piece: &mut Vec<u8>) {
        match self.section {
            Section::Start => {
                piece.put_u8(if self.rest.level > FeatureLevel::UNTOLD { FORMAT } else { FORMAT_OLD });
                piece.put_u8(TAG_STATE);
                put_state(piece, &self.rest);
                self.section = Section::Keys;
            }
            Section::Keys => match self.keys.next() {
                Some((key, versioned)) => put_key(piece, key, versioned),
                None => self.section = Section::Leases,
            },
            Section::Leases => {
                let next = self.rest.leases.from(self.lease).next();
                if let Some(lease) = next {
                    piece.put_u8(TAG_LEASE);
                    piece.put_u64(lease.id.0);
                    piece.put_u64(lease.ttl_seconds);
                    piece.put_u64(lease.grant);
                    let (kind, owner) = owner_in_numbers(self.rest.leases.owner(lease.id));
                    piece.put_u8(kind);
                    piece.put_u64(owner);
                }
                match next.and_then(|lease| lease.id.0.checked_add(1)) {
                    Some(id) => self.lease = LeaseId(id),
                    None => self.section = Section::Answers,
                }
            }
            Section::Answers => match self.rest.answers.after(&self.answer) {
                Some((key, answer)) => {
                    piece.put_u8(TAG_ANSWER);
                    piece.put_u32(length(key.len()));
                    piece.put_u32(length(answer.len()));
                    piece.extend_from_slice(&key);
                    piece.extend_from_slice(&answer);
                    self.answer = key;
                }
                None => self.section = Section::Rules,
            },
            Section::Rules => {
                let mut rules = Vec::new();
                self.rest.security.encode(&mut rules);
                piece.put_u8(TAG_RULES);
                piece.put_bytes(&rules);
                self.section = Section::Chunks;
            }
            Section::Chunks => self.put_chunk(piece),
            Section::Done => {}
        }
    }

    fn put_chunk(&mut self, piece: &mut Vec<u8>) {
        if let Some(WritingChunk { chunk, bytes, large }) = &mut self.chunk {
            if *bytes < chunk.bytes.len() {
                let end = chunk.bytes.len().min(*bytes + PIECE_BYTES);
                piece.extend_from_slice(&chunk.bytes[*bytes..end]);
                *bytes = end;
            } else if let Some(value) = chunk.large.get(*large) {
                piece.put_u8(TAG_LARGE);
                piece.put_bytes(value);
                *large += 1;
            } else {
                self.chunk = None;
            }
            return;
        }
        if let Some(chunk) = self.rest.history.drop_oldest() {
            piece.put_u8(TAG_CHUNK);
            piece.put_u64(chunk.first.0);
            piece.put_u32(length(chunk.ends.len()));
            piece.put_u32(length(chunk.bytes.len()));
            piece.put_u32(length(chunk.large.len()));
            chunk.ends.iter().for_each(|end| piece.put_u32(*end));
            self.chunk = Some(WritingChunk { chunk, bytes: 0, large: 0 });
            return;
        }
        piece.put_u8(TAG_END);
        for number in [self.end.keys, self.end.leases, self.end.answers, self.end.chunks] {
            piece.put_u64(number);
        }
        piece.put_u128(self.end.state_hash);
        self.section = Section::Done;
    }
}

fn put_key(piece: &mut Vec<u8>, key: &[u8], versioned: VersionedRef<'_>) {
    piece.put_u8(TAG_KEY);
    piece.put_u64(versioned.create_revision.0);
    piece.put_u64(versioned.mod_revision.0);
    piece.put_u64(versioned.version);
    piece.put_u64(versioned.lease.0);
    piece.put_u32(versioned.place);
    piece.put_u32(length(key.len()));
    piece.put_u32(length(versioned.value.len()));
    piece.extend_from_slice(key);
    piece.extend_from_slice(versioned.value);
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("everything is kept far below 4 GiB")
}

/// Rebuilds a store from the pieces of a snapshot's body, cut anywhere.
///
/// Beside the store it holds one record and one piece at most. After an error it is of no use.
#[derive(Debug, Default)]
pub struct StoreReader {
    /// Without its keys, which `keys` makes.
    store: Store,
    keys: TreeBuilder,
    /// The tag of the last record; 0: there was none.
    section: u8,
    /// The last key, lease or idempotency key: the next one is greater.
    last: Vec<u8>,
    /// A chunk whose large values are still to come, and how many.
    chunk: Option<(Chunk, usize)>,
    /// The start of a record whose rest is in the next piece.
    pending: Vec<u8>,
    format: Option<u8>,
    is_whole: bool,
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
        if self.is_whole {
            return Ok(self.store);
        }
        let has = self.pending.len();
        Err(DecodeError::Short { what: "snapshot body", needs: has + 1, has })
    }

    /// Reads the whole records at the front of `bytes`; returns how many bytes they take.
    fn read_records(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut rest = bytes;
        if self.format.is_none() {
            let Some((&format, after)) = rest.split_first() else { return Ok(0) };
            if !matches!(format, FORMAT_OLD | FORMAT) {
                let (what, value) = ("format of the snapshot body", format.into());
                return Err(DecodeError::Invalid { what, value });
            }
            (rest, self.format) = (after, Some(format));
        }
        while !self.is_whole {
            let mut fields = Fields { bytes: rest };
            match self.read_record(&mut fields)? {
                Some(()) => rest = fields.bytes,
                None => break,
            }
        }
        if self.is_whole && !rest.is_empty() {
            return Err(DecodeError::Trailing { what: "snapshot body", count: rest.len() });
        }
        Ok(bytes.len() - rest.len())
    }

    /// Reads one record; `None`: it is not whole yet.
    fn read_record(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>, DecodeError> {
        let Some(tag) = fields.u8() else { return Ok(None) };
        let in_order = match (self.section, tag) {
            (0, _) => tag == TAG_STATE,
            (_, TAG_STATE) => false,
            (section, TAG_LARGE) => section >= TAG_CHUNK && self.chunk.is_some(),
            // There is one, and nothing comes without it.
            (section, TAG_RULES) => section < TAG_RULES,
            (section, TAG_CHUNK | TAG_END) => section >= TAG_RULES && self.chunk.is_none(),
            (section, _) => tag >= section && tag <= TAG_END,
        };
        if !in_order {
            return Err(DecodeError::Invalid { what: "snapshot record", value: u64::from(tag) });
        }
        let done = match tag {
            TAG_STATE => read_state(&mut self.store, self.format == Some(FORMAT_OLD), fields),
            TAG_KEY => self.read_key(fields),
            TAG_LEASE => self.read_lease(fields, tag),
            TAG_ANSWER => self.read_answer(fields, tag),
            TAG_RULES => self.read_rules(fields),
            TAG_CHUNK => self.read_chunk(fields),
            TAG_LARGE => self.read_large(fields),
            _ => self.read_end(fields),
        }?;
        if done.is_some() && tag != TAG_LARGE {
            self.section = tag;
        }
        Ok(done)
    }

    fn read_key(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>, DecodeError> {
        let Some([create, modified, version, lease]) = fields.u64s::<4>() else { return Ok(None) };
        let (Some(place), Some(key), Some(value)) = (fields.u32(), fields.u32(), fields.u32()) else {
            return Ok(None);
        };
        let key_length = checked_length("key", key, KEY_BYTES_MAX)?;
        let value_length = checked_length("value", value, VALUE_BYTES_MAX)?;
        if create == 0 || create > modified || modified > self.store.revision.0 {
            return Err(DecodeError::Invalid { what: "create_revision", value: create });
        }
        // Each of its sets had a revision of its own.
        if version == 0 || version - 1 > modified - create {
            return Err(DecodeError::Invalid { what: "version of a key", value: version });
        }
        let (Some(key), Some(value)) = (fields.take(key_length), fields.take(value_length)) else {
            return Ok(None);
        };
        self.check_order(TAG_KEY, key)?;
        let shared = (value.len() > PACKED_VALUE_BYTES_MAX).then(|| Bytes::copy_from_slice(value));
        let shared = shared.as_ref();
        let (create_revision, mod_revision, lease) = (Revision(create), Revision(modified), LeaseId(lease));
        let versioned = VersionedRef { value, shared, create_revision, mod_revision, place, version, lease };
        self.store.bytes += (key.len() + value.len()) as u64;
        self.store.digests = self.store.digests.wrapping_add(digest(key, versioned));
        self.store.leases.attach(lease, key);
        self.keys.push(key, versioned);
        Ok(Some(()))
    }

    fn read_lease(&mut self, fields: &mut Fields<'_>, tag: u8) -> Result<Option<()>, DecodeError> {
        let Some([id, ttl_seconds, grant]) = fields.u64s::<3>() else { return Ok(None) };
        let (Some(kind), Some([owner])) = (fields.u8(), fields.u64s::<1>()) else { return Ok(None) };
        self.check_order(tag, &id.to_be_bytes())?;
        if ttl_seconds > LEASE_TTL_SECONDS_MAX {
            return Err(DecodeError::Invalid { what: "seconds to live", value: ttl_seconds });
        }
        if grant > self.store.leases.last_grant() {
            return Err(DecodeError::Invalid { what: "number of the grant", value: grant });
        }
        let Some(owner) = owner_of_numbers(kind, owner) else {
            return Err(DecodeError::Invalid { what: "owner of a lease", value: u64::from(kind) });
        };
        self.store.leases.put_back(LeaseId(id), ttl_seconds, grant, owner);
        Ok(Some(()))
    }

    fn read_answer(&mut self, fields: &mut Fields<'_>, tag: u8) -> Result<Option<()>, DecodeError> {
        let (Some(key), Some(answer)) = (fields.u32(), fields.u32()) else { return Ok(None) };
        let key = checked_length("idempotency key", key, IDEMPOTENCY_KEY_BYTES_MAX)?;
        let answer = checked_length("answer", answer, ANSWER_BYTES_MAX)?;
        let (Some(key), Some(answer)) = (fields.take(key), fields.take(answer)) else { return Ok(None) };
        self.check_order(tag, key)?;
        if !self.store.answers.put_back(key, answer, self.store.revision) {
            let why = "its number is not its own, or its revision has not come yet";
            return Err(DecodeError::Inconsistent { what: "answer", why });
        }
        Ok(Some(()))
    }

    fn read_rules(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>, DecodeError> {
        let Some(length) = fields.u32() else { return Ok(None) };
        let length = checked_length("users, roles and tokens", length, SECURITY_BYTES_MAX)?;
        let Some(rules) = fields.take(length) else { return Ok(None) };
        self.store.security = Arc::new(Security::decode(Bytes::copy_from_slice(rules))?);
        Ok(Some(()))
    }

    fn read_chunk(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>, DecodeError> {
        let (Some([first]), Some(records)) = (fields.u64s::<1>(), fields.u32()) else { return Ok(None) };
        let (Some(bytes), Some(large)) = (fields.u32(), fields.u32()) else { return Ok(None) };
        let records = checked_length("number of records", records, RECORDS_MAX)?;
        let bytes = checked_length("chunk of the history", bytes, CHUNK_BYTES_MAX)?;
        let (Some(ends), Some(bytes)) = (fields.take(4 * records), fields.take(bytes)) else {
            return Ok(None);
        };
        if first == 0 || first > COUNTER_MAX {
            return Err(DecodeError::Invalid { what: "first revision of a chunk", value: first });
        }
        let mut chunk = Chunk::new(Revision(first));
        chunk.ends =
            ends.chunks_exact(4).map(|end| u32::from_le_bytes([end[0], end[1], end[2], end[3]])).collect();
        chunk.bytes = bytes.to_vec();
        self.chunk = Some((chunk, large as usize));
        self.end_chunk()?;
        Ok(Some(()))
    }

    fn read_large(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>, DecodeError> {
        let Some(length) = fields.u32() else { return Ok(None) };
        let length = checked_length("value", length, VALUE_BYTES_MAX)?;
        let Some(value) = fields.take(length) else { return Ok(None) };
        if let Some((chunk, missing)) = &mut self.chunk {
            chunk.large.push(Bytes::copy_from_slice(value));
            *missing -= 1;
        }
        self.end_chunk()?;
        Ok(Some(()))
    }

    /// Takes the chunk in, once all of it is there.
    fn end_chunk(&mut self) -> Result<(), DecodeError> {
        let Some((chunk, _)) = self.chunk.take_if(|(_, missing)| *missing == 0) else { return Ok(()) };
        let inconsistent = |why| DecodeError::Inconsistent { what: "chunk of the history", why };
        let first = chunk.first;
        if !self.store.history.push_chunk(chunk) {
            return Err(inconsistent("it does not follow the one before, or its records cannot be read"));
        }
        let Store { history, graves, .. } = &mut self.store;
        let oldest = history.first().unwrap_or_default();
        let Some(chunk) = history.chunks().last() else { return Ok(()) };
        for record in chunk.records() {
            let revision = record.revision;
            for (place, change) in record.enumerate() {
                let before = change.before().filter(|before| before.revision >= oldest);
                let known =
                    before.is_none_or(|id| history.change(id).is_some_and(|known| known.key == change.key));
                if !known {
                    return Err(inconsistent("a change follows one that is not there"));
                }
                if change.now.is_some() {
                    graves.remove(change.key);
                } else {
                    let place = u32::try_from(place).unwrap_or(u32::MAX);
                    let grave = VersionedRef {
                        create_revision: revision,
                        mod_revision: revision,
                        place,
                        ..VersionedRef::default()
                    };
                    graves.set(change.key, &mut |_| grave);
                }
            }
        }
        debug_assert!(first >= oldest, "chunks ascend");
        Ok(())
    }

    fn read_end(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>, DecodeError> {
        let Some([keys, leases, answers, chunks]) = fields.u64s::<4>() else { return Ok(None) };
        let Some([low, high]) = fields.u64s::<2>() else { return Ok(None) };
        let state_hash = u128::from(low) | u128::from(high) << 64;
        self.store.live = core::mem::take(&mut self.keys).finish();
        let end = End { keys, leases, answers, chunks, state_hash };
        let is = End::of(&self.store);
        if end != is {
            let same_counts = End { state_hash: 0, ..end } == End { state_hash: 0, ..is };
            let what = if same_counts { "state hash of the snapshot" } else { "number of keys" };
            return Err(DecodeError::Invalid { what, value: if same_counts { low } else { keys } });
        }
        if !self.store.leases.are_granted() {
            return Err(DecodeError::Inconsistent { what: "lease of a key", why: "there is no such lease" });
        }
        self.check_history()?;
        self.is_whole = true;
        Ok(Some(()))
    }

    /// The history reaches from what was compacted to the present, and agrees with the keys.
    fn check_history(&self) -> Result<(), DecodeError> {
        let Store { history, revision, compacted, live, graves, .. } = &self.store;
        let inconsistent = |why| Err(DecodeError::Inconsistent { what: "history of the snapshot", why });
        let last = history.chunks().last().map_or(*compacted, |chunk| chunk.last());
        let first = history.first().unwrap_or(Revision(compacted.0 + 1));
        if last != *revision || first > compacted.next() {
            return inconsistent("it does not reach from the oldest revision to the newest");
        }
        let mut cursor = live.cursor(&[]);
        while let Some((key, found)) = cursor.next() {
            if found.mod_revision < first {
                continue;
            }
            let change = history.record(found.mod_revision).at(found.place);
            let agrees = change.is_some_and(|change| change.key == key && change.now.is_some());
            if !agrees || graves.get(key).is_some() {
                return inconsistent("a key is not what its newest change says");
            }
        }
        Ok(())
    }

    /// Records of one kind ascend by what names them.
    fn check_order(&mut self, tag: u8, name: &[u8]) -> Result<(), DecodeError> {
        if name.is_empty() || (self.section == tag && self.last.as_slice() >= name) {
            return Err(DecodeError::Invalid {
                what: "order of the snapshot's records",
                value: u64::from(tag),
            });
        }
        self.last.clear();
        self.last.extend_from_slice(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
