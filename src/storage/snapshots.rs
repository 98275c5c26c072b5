//! The directory of snapshot files.

use crate::kv::{Store, StoreReader};
use crate::mutants::{Mutant, planted};
use crate::raft::{ClusterId, LogId, LogIndex, SnapshotChunk, SnapshotMeta, SnapshotRead, StoreId, Term};
use crate::replica::{SnapshotSave, StorageEvent, UnreadSnapshot};
use crate::storage::disk::Disk;
use crate::storage::error::SnapshotError;
use crate::storage::snapshot_file::{CHUNK_BYTES, SnapshotHeader, SnapshotReader, SnapshotWriter};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// The snapshot files of a data directory. Clones may be used on other threads, beside the log: a snapshot that
/// takes seconds to write must not make a write wait.
#[derive(Clone, Debug)]
pub struct SnapshotFiles<D: Disk> {
    disk: D,
    dir: PathBuf,
    cluster: ClusterId,
    store: StoreId,
}

impl<D: Disk> SnapshotFiles<D> {
    pub(crate) fn new(disk: D, dir: PathBuf, cluster: ClusterId, store: StoreId) -> Self {
        Self { disk, dir, cluster, store }
    }

    /// Writes a captured state as a snapshot file: complete, synced and in place when this returns. It counts once
    /// its marker is durable too.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is left behind then, and nothing else is affected.
    pub fn save(&self, save: &SnapshotSave) -> Result<SnapshotMeta, SnapshotError> {
        let meta = SnapshotMeta {
            last: save.last,
            membership: save.membership.clone(),
            membership_id: save.membership_id,
            bytes: 0,
            hash: 0,
        };
        let mut writer = self.writer("save", meta)?;
        let temporary = writer.path().to_path_buf();
        let written = (|| {
            for piece in save.store.snapshot_pieces() {
                writer.push(&piece)?;
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
        let reader = SnapshotReader::open(&self.disk, &self.path(read.snapshot))?;
        if reader.header.store != self.store || reader.header.meta.last != read.snapshot {
            let why = "its file holds another one, or another node's".into();
            return Err(SnapshotError::Content { last: read.snapshot, why });
        }
        let data = Bytes::from(reader.read(read.offset, read.bytes_max)?);
        let meta = reader.header.meta;
        let done = if planted(Mutant::ShortChunkIsLast) {
            (data.len() as u64) < read.bytes_max
        } else {
            read.offset.saturating_add(data.len() as u64) >= meta.bytes
        };
        Ok(SnapshotChunk { snapshot: Box::new(meta), offset: read.offset, data, done })
    }

    /// [`Self::read_chunk`], as the answer that the replica waits for.
    #[must_use]
    pub fn answer_read(&self, read: &SnapshotRead) -> StorageEvent {
        let chunk = self.read_chunk(read).map_err(|error| UnreadSnapshot {
            last: read.snapshot,
            gone: error.is_gone(),
            reason: error.to_string(),
        });
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
        if !planted(Mutant::SnapshotNameNotSynced) {
            self.disk.sync_dir(&self.dir).map_err(SnapshotError::io("syncing the directory", &self.dir))?;
        }
        Ok(meta)
    }

    /// Removes a file that was written under a temporary name.
    pub(crate) fn discard(&self, temporary: &Path) {
        // At the next start it is removed if it is still there.
        let _ = self.disk.remove(temporary);
    }

    /// Removes the snapshots older than the newest of `markers` that are not among them. Newer ones wait for their
    /// marker.
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

/// The entry in a snapshot's name; `None` if it is another file's.
pub(crate) fn snapshot_id(name: &Path) -> Option<LogId> {
    let (index, term) = name.to_str()?.strip_suffix(".snap")?.split_once('-')?;
    Some(LogId::new(Term::new(term.parse().ok()?), LogIndex::new(index.parse().ok()?)))
}
