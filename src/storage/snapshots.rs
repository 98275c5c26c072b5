//! The directory of snapshot files.

use crate::kv::{Store, StoreReader};
use crate::raft::{
    ClusterId, LogId, LogIndex, NodeId, SnapshotChunk, SnapshotMeta, SnapshotRead, StoreId, Term,
};
use crate::replica::{SnapshotSave, StorageEvent, UnreadSnapshot};
use crate::storage::disk::Disk;
use crate::storage::error::SnapshotError;
use crate::storage::snapshot_file::{CHUNK_BYTES, SnapshotHeader, SnapshotReader, SnapshotWriter};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Snapshot files kept open for reading, at most, beside those that are being sent to peers: one to
/// each. Each may keep the room of a file that was replaced.
const READERS_MAX: usize = 2;
/// A peer that was sent nothing while so many chunks were read for others is not being sent
/// anything.
const CHUNKS_MISSED_MAX: u64 = 1024;
/// The longest rest of a save between two pieces.
const REST_MAX: Duration = Duration::from_millis(100);

/// The snapshot files of a data directory. Clones may be used on other threads, beside the log: a
/// snapshot that takes seconds to write must not make a write wait.
#[derive(Clone)]
pub struct SnapshotFiles<D: Disk> {
    disk: D,
    dir: PathBuf,
    cluster: ClusterId,
    store: StoreId,
    /// Whether a save leaves the disk to the log now and then; it sleeps for that.
    paced: bool,
    /// Files that chunks are read from. An open file stays readable when a newer snapshot takes its
    /// place in the directory: what is being sent can be sent to its end.
    open: Arc<Mutex<Readers<D>>>,
}

/// Snapshot files that are open for reading.
struct Readers<D: Disk> {
    /// The one read last at the end.
    files: Vec<SnapshotReader<D>>,
    /// Which snapshot each peer is being sent, and how many chunks had been read when it got its
    /// last one.
    sent: BTreeMap<NodeId, (LogId, u64)>,
    /// Chunks read so far.
    chunks: u64,
}

impl<D: Disk> Default for Readers<D> {
    fn default() -> Self {
        Self { files: Vec::new(), sent: BTreeMap::new(), chunks: 0 }
    }
}

impl<D: Disk> Readers<D> {
    /// A chunk of `snapshot` is read for a peer.
    fn begin_chunk(&mut self, to: NodeId, snapshot: LogId) {
        self.chunks += 1;
        self.sent.insert(to, (snapshot, self.chunks));
    }

    /// Puts a file back, and closes the oldest ones beyond a few that no peer is being sent.
    fn keep(&mut self, reader: SnapshotReader<D>) {
        self.files.push(reader);
        let chunks = self.chunks;
        self.sent.retain(|_, (_, at)| *at + CHUNKS_MISSED_MAX >= chunks);
        let is_sent =
            |file: &SnapshotReader<D>| self.sent.values().any(|(last, _)| *last == file.header.meta.last);
        while self.files.len() > READERS_MAX
            && let Some(idle) = self.files[..self.files.len() - 1].iter().position(|file| !is_sent(file))
        {
            self.files.remove(idle);
        }
    }
}

impl<D: Disk> SnapshotFiles<D> {
    pub(crate) fn new(disk: D, dir: PathBuf, cluster: ClusterId, store: StoreId, paced: bool) -> Self {
        Self { disk, dir, cluster, store, paced, open: Arc::default() }
    }

    /// Writes a captured state as a snapshot file: complete, synced and in place when this returns.
    /// It counts once its marker is durable too. The capture is let go as it is written.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is left behind then, and nothing else is affected.
    pub fn save(&self, save: SnapshotSave) -> Result<SnapshotMeta, SnapshotError> {
        let SnapshotSave { last, membership, membership_id, store } = save;
        let meta = SnapshotMeta { last, membership, membership_id, bytes: 0, hash: 0 };
        let mut writer = self.writer("save", meta)?;
        let temporary = writer.path().to_path_buf();
        let written = (|| {
            let mut begun = Instant::now();
            for piece in store.into_snapshot_pieces() {
                writer.push(&piece)?;
                if writer.sync_some()? && self.paced {
                    // Leaves disk and processor to the log for twice as long as this piece took.
                    std::thread::sleep((begun.elapsed() * 2).min(REST_MAX));
                    begun = Instant::now();
                }
            }
            self.put_in_place(writer)
        })();
        if written.is_err() {
            // Gives the room back; the error says what happened.
            let _ = self.disk.remove(&temporary);
        }
        written
    }

    /// Reads a chunk of a snapshot, to be sent to a peer.
    ///
    /// # Errors
    /// [`SnapshotError`] if that snapshot is gone, cannot be read, or does not verify.
    pub fn read_chunk(&self, read: &SnapshotRead) -> Result<SnapshotChunk, SnapshotError> {
        self.readers().begin_chunk(read.to, read.snapshot);
        let chunk = self.read_part(read.snapshot, read.offset, read.bytes_max);
        if chunk.as_ref().is_ok_and(|chunk| !chunk.done) {
            return chunk;
        }
        // The transfer has ended, as far as is known: what is read again says that it has not.
        self.readers().sent.remove(&read.to);
        chunk
    }

    /// Reads at most `bytes_max` bytes of a snapshot from `offset` on.
    ///
    /// # Errors
    /// As [`Self::read_chunk`].
    pub fn read_part(
        &self,
        snapshot: LogId,
        offset: u64,
        bytes_max: u64,
    ) -> Result<SnapshotChunk, SnapshotError> {
        // A reader is put back only after it has read well: a file that was damaged may have been
        // written again.
        let reader = self.take_reader(snapshot)?;
        let data = Bytes::from(reader.read(offset, bytes_max)?);
        let meta = reader.header.meta.clone();
        self.readers().keep(reader);
        let done = offset.saturating_add(data.len() as u64) >= meta.bytes;
        Ok(SnapshotChunk { snapshot: Box::new(meta), offset, data, done })
    }

    /// Closes the files that chunks were read from, once no peer is being sent a snapshot. Files
    /// that had been replaced are gone then.
    pub fn close_readers(&self) {
        *self.readers() = Readers::default();
    }

    fn take_reader(&self, last: LogId) -> Result<SnapshotReader<D>, SnapshotError> {
        let mut readers = self.readers();
        if let Some(position) = readers.files.iter().position(|reader| reader.header.meta.last == last) {
            return Ok(readers.files.remove(position));
        }
        drop(readers);
        let reader = SnapshotReader::open(&self.disk, &self.path(last))?;
        if reader.header.store != self.store || reader.header.meta.last != last {
            let why = "its file holds another one, or another node's".into();
            return Err(SnapshotError::Content { last, why });
        }
        Ok(reader)
    }

    fn readers(&self) -> MutexGuard<'_, Readers<D>> {
        // Open files, and what they are open for: consistent wherever a panic could have struck.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Self::read_chunk`], as the answer that the replica waits for.
    #[must_use]
    pub fn answer_read(&self, read: &SnapshotRead) -> StorageEvent {
        let unread = |error: SnapshotError| UnreadSnapshot { last: read.snapshot, reason: error.to_string() };
        let chunk = self.read_chunk(read).map_err(unread);
        StorageEvent::ChunkRead { to: read.to, session: read.session, chunk }
    }

    /// Where the snapshot of this entry is.
    #[must_use]
    pub fn path(&self, last: LogId) -> PathBuf {
        self.dir.join(Self::file_name(last))
    }

    /// What its file is called there.
    #[must_use]
    pub fn file_name(last: LogId) -> String {
        format!("{:020}-{}.snap", last.index.get(), last.term)
    }

    /// Reads a snapshot whole, and verifies that it is the one that was marked.
    pub(crate) fn load(&self, marked: &SnapshotMeta) -> Result<Store, SnapshotError> {
        let reader = SnapshotReader::open(&self.disk, &self.path(marked.last))?;
        let content = |why: String| SnapshotError::Content { last: marked.last, why };
        if reader.header.cluster != self.cluster || reader.header.store != self.store {
            return Err(content("it belongs to another node".into()));
        }
        if reader.header.meta != *marked {
            return Err(content("it is not the one that the log's marker names".into()));
        }
        load_whole(&reader)
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads a snapshot whole, and compares it with its own checksums. `pace` is asked before each
    /// piece. `false` if it ended the reading.
    pub(crate) fn verify(
        &self,
        last: LogId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, SnapshotError> {
        let reader = SnapshotReader::open_uncached(&self.disk, &self.path(last))?;
        let SnapshotHeader { cluster, store, meta } = &reader.header;
        let content = |why: &str| SnapshotError::Content { last, why: why.into() };
        if (*cluster, *store, meta.last) != (self.cluster, self.store, last) {
            return Err(content("its file holds another one, or another node's"));
        }
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let mut offset = 0;
        while offset < meta.bytes {
            if !pace(CHUNK_BYTES as u64) {
                return Ok(false);
            }
            let piece = reader.read(offset, CHUNK_BYTES as u64)?;
            hasher.update(&piece);
            offset += piece.len() as u64;
        }
        if hasher.digest128() != meta.hash {
            return Err(content("its content does not match its hash"));
        }
        Ok(true)
    }

    /// A writer under a temporary name.
    pub(crate) fn writer(&self, what: &str, meta: SnapshotMeta) -> Result<SnapshotWriter<D>, SnapshotError> {
        let name = format!("{what}-{:020}-{}.tmp", meta.last.index.get(), meta.last.term);
        let header = SnapshotHeader { cluster: self.cluster, store: self.store, meta };
        SnapshotWriter::create(&self.disk, self.dir.join(name), header)
    }

    /// Completes a file, and gives it its name.
    pub(crate) fn put_in_place(&self, writer: SnapshotWriter<D>) -> Result<SnapshotMeta, SnapshotError> {
        let (meta, temporary) = writer.finish()?;
        let path = self.path(meta.last);
        self.disk.rename(&temporary, &path).map_err(SnapshotError::io("renaming into place", &path))?;
        self.disk.sync_dir(&self.dir).map_err(SnapshotError::io("syncing the directory", &self.dir))?;
        Ok(meta)
    }

    /// Removes a file that was written under a temporary name.
    pub(crate) fn discard(&self, temporary: &Path) {
        // At the next start it is removed if it is still there.
        let _ = self.disk.remove(temporary);
    }

    /// Removes the snapshots older than the newest of `markers` that are not among them. Newer ones
    /// wait for their marker.
    pub(crate) fn remove_older(&self, markers: &[SnapshotMeta]) -> Result<(), SnapshotError> {
        let Some(newest) = markers.last() else { return Ok(()) };
        self.remove_where(|id| {
            id.is_some_and(|id| {
                id.index < newest.last.index && markers.iter().all(|marker| marker.last != id)
            })
        })
    }

    /// Removes everything but the snapshots of `markers`: what a crash left behind.
    pub(crate) fn remove_others(&self, markers: &[SnapshotMeta]) -> Result<(), SnapshotError> {
        self.remove_where(|id| id.is_none_or(|id| markers.iter().all(|marker| marker.last != id)))
    }

    fn remove_where(&self, unwanted: impl Fn(Option<LogId>) -> bool) -> Result<(), SnapshotError> {
        for name in self.disk.list(&self.dir).map_err(SnapshotError::io("listing", &self.dir))? {
            if unwanted(snapshot_id(&name)) {
                let path = self.dir.join(name);
                self.disk.remove(&path).map_err(SnapshotError::io("removing", &path))?;
            }
        }
        Ok(())
    }
}

/// The state in a file, which has to be the one that its header describes.
fn load_whole<D: Disk>(reader: &SnapshotReader<D>) -> Result<Store, SnapshotError> {
    let marked = &reader.header.meta;
    let content = |why: String| SnapshotError::Content { last: marked.last, why };
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let mut state = StoreReader::new();
    let mut offset = 0;
    while offset < marked.bytes {
        let piece = reader.read(offset, CHUNK_BYTES as u64)?;
        hasher.update(&piece);
        state.push(&piece).map_err(|error| content(error.to_string()))?;
        offset += piece.len() as u64;
    }
    if hasher.digest128() != marked.hash {
        return Err(content("its content does not match its hash".into()));
    }
    state.finish().map_err(|error| content(error.to_string()))
}

/// What a snapshot file holds.
#[derive(Debug)]
pub struct SnapshotLook {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// The data directory that it is of.
    pub store_id: StoreId,
    /// Its description.
    pub meta: SnapshotMeta,
    /// The state.
    pub store: Store,
}

/// Reads a snapshot file whole, wherever it is, and checks all of it. Changes nothing.
///
/// # Errors
/// [`SnapshotError`].
pub fn look_at_snapshot<D: Disk>(disk: &D, path: &Path) -> Result<SnapshotLook, SnapshotError> {
    let reader = SnapshotReader::open(disk, path)?;
    let store = load_whole(&reader)?;
    let SnapshotHeader { cluster, store: store_id, meta } = reader.header;
    Ok(SnapshotLook { cluster, store_id, meta, store })
}

impl<D: Disk> fmt::Debug for SnapshotFiles<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotFiles").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The entry in a snapshot's name; `None` if it is another file's.
pub(crate) fn snapshot_id(name: &Path) -> Option<LogId> {
    let (index, term) = name.to_str()?.strip_suffix(".snap")?.split_once('-')?;
    Some(LogId::new(Term::new(term.parse().ok()?), LogIndex::new(index.parse().ok()?)))
}
