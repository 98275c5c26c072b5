//! Writes a mended log into the other generation of directories, and switches to it.

use crate::codec::FeatureLevel;
use crate::kv::Store;
use crate::raft::{Entry, LogId, LogIndex, LogRecords, SnapshotChunk, SnapshotMeta};
use crate::storage::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchMark};
use crate::storage::damaged::keep_damaged;
use crate::storage::disk::Disk;
use crate::storage::error::{OpenError, SnapshotError};
use crate::storage::identity::{DirectoryOwner, Identity, find, make_generation, switch};
use crate::storage::incoming_snapshot::IncomingSnapshot;
use crate::storage::lost::{keep_lost, note_lost};
use crate::storage::options::StorageOptions;
use crate::storage::record::encode_records;
use crate::storage::repair::notes::{forget_marks, note_rebuild, note_started, read_promised};
use crate::storage::repair::sound::Sound;
use crate::storage::repair::survey::Survey;
use crate::storage::segment::{SegmentHeader, build_segment};
use crate::storage::snapshot_file::{CHUNK_BYTES, SnapshotReader};
use crate::storage::snapshots::SnapshotFiles;
use crate::storage::start::{level_of_entries, snapshot_failed};
use crate::storage::wal::life;
use std::path::{Path, PathBuf};

impl<D: Disk> Survey<D> {
    /// Makes the directories of the other generation, empty. An earlier attempt may have left
    /// something there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn begin_mending(&self) -> Result<(), OpenError> {
        if let Some(identity) = &self.identity {
            settle_identity(&self.disk, &self.options.dir, identity)?;
        }
        make_generation(&self.disk, &self.options.dir, self.mended_identity().generation)
    }

    /// Takes a peer's snapshot in, chunk by chunk.
    #[must_use]
    pub fn incoming_snapshot(&self) -> RepairSnapshot<D> {
        RepairSnapshot(IncomingSnapshot::new(self.mended_snapshots(), self.options.speaks.highest()))
    }

    /// Reads the snapshot that the log rests on. `None` without an identity: nothing of it is lent.
    #[must_use]
    pub fn lent_snapshots(&self) -> Option<LentSnapshots<D>> {
        let Identity { cluster, store, .. } = *self.identity.as_ref()?;
        let dir = self.identity.as_ref()?.snapshot_dir(&self.options.dir);
        let damaged = SnapshotFiles::new(self.disk.clone(), dir, cluster, store, false);
        Some(LentSnapshots { places: [damaged, self.mended_snapshots()] })
    }

    /// Writes what is sound as a whole log, and makes it the directory's by one rename. The files
    /// that were damaged are kept beside it.
    ///
    /// # Errors
    /// [`OpenError`]. The directory is the damaged one then, or the mended one.
    ///
    /// # Panics
    /// If entries are missing.
    pub fn mend(self, sound: &Sound) -> Result<(), OpenError> {
        self.switch_to(sound)?;
        self.keep_damaged()
    }

    /// The same for a person who gives up the rest of the log. All of its files are kept. Returns
    /// where.
    ///
    /// # Errors
    /// As of [`Self::mend`]. What could not be moved yet is at the next start.
    ///
    /// # Panics
    /// If entries are missing.
    pub fn mend_with_loss(self, sound: &Sound) -> Result<PathBuf, OpenError> {
        let generation = self.mended_identity().other_generation();
        let kept = note_lost(&self.disk, &self.options.dir, generation)?;
        self.switch_to(sound)?;
        keep_lost(&self.disk, &self.options.dir, generation)?;
        Ok(kept)
    }

    fn switch_to(&self, sound: &Sound) -> Result<(), OpenError> {
        assert!(sound.missing().is_none(), "a log with a gap is not mended");
        let mut identity = self.mended_identity();
        // Peers may have given entries, or a snapshot, that this node had not known.
        identity.level = identity.level.max(level_of_entries(&sound.entries()));
        if let Some(base) = sound.base() {
            identity.level = identity.level.max(self.carry_snapshot_over(base)?);
        }
        let (number, nonces) = &self.starts;
        build_log(&self.disk, &self.options, &identity, (*number, nonces.clone()), sound)?;
        let snapshot_dir = identity.snapshot_dir(&self.options.dir);
        self.disk.sync_dir(&snapshot_dir).map_err(OpenError::io("syncing the directory", &snapshot_dir))?;
        // Whatever was noted: this log is the one that counts from now on.
        let promised = read_promised(&self.disk, &self.options.dir, self.options.promised_micros);
        note_started(&self.disk, &self.options.dir, *number, promised)?;
        switch(&self.disk, &self.options.dir, &identity)?;
        if self.in_doubt.is_some() {
            // A person has decided: what kept it from use does not any more.
            forget_marks(&self.disk, &self.options.dir)?;
        }
        Ok(())
    }

    /// The identity on record, in the other generation.
    fn mended_identity(&self) -> Identity {
        let identity = self.identity.clone().expect("a directory without an identity is not mended");
        Identity { generation: identity.other_generation(), ..identity }
    }

    fn mended_snapshots(&self) -> SnapshotFiles<D> {
        let identity = self.mended_identity();
        let dir = identity.snapshot_dir(&self.options.dir);
        SnapshotFiles::new(self.disk.clone(), dir, identity.cluster, identity.store, false)
    }

    /// Copies a snapshot of the damaged generation, unless it came from a peer and is there. The
    /// level that it speaks of, at most.
    fn carry_snapshot_over(&self, base: &SnapshotMeta) -> Result<FeatureLevel, OpenError> {
        let files = self.mended_snapshots();
        let there = files.path(base.last);
        if self.disk.exists(&there).map_err(OpenError::io("looking for", &there))? {
            return files.load(base).map(|store| store.level()).map_err(snapshot_failed);
        }
        let identity = self.identity.as_ref().expect("a directory without an identity is not mended");
        let from = identity.snapshot_dir(&self.options.dir).join(SnapshotFiles::<D>::file_name(base.last));
        let copied = SnapshotReader::open(&self.disk, &from).and_then(|reader| {
            let mut writer = files.writer("mended", base.clone())?;
            while writer.bytes() < base.bytes {
                let piece = reader.read(writer.bytes(), CHUNK_BYTES as u64)?;
                writer.push(&piece)?;
                writer.sync_some()?;
            }
            files.put_in_place(writer)
        });
        let meta = copied.map_err(snapshot_failed)?;
        assert!(meta == *base, "the copy of a snapshot is the snapshot");
        Ok(identity.level)
    }

    /// The damaged files are of use to people alone. What was sound in them has been carried over.
    fn keep_damaged(&self) -> Result<(), OpenError> {
        keep_damaged(&self.disk, &self.options.dir, &self.damaged_files).map(drop)
    }
}

/// Makes `identity` the directory's own, if nothing there says whose it is: a person goes on with
/// what its files say. Once a second generation of files is begun, they would not say it any more,
/// and an attempt that was interrupted could not be repeated. Until one succeeds the directory is
/// not to be used: the member may have been replaced meanwhile.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn settle_identity<D: Disk>(disk: &D, dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    if matches!(find(disk, dir), Ok(DirectoryOwner::Identity(_))) {
        return Ok(());
    }
    note_rebuild(
        disk,
        dir,
        "its identity was lost, and a person's attempt to go on without it was interrupted",
    )?;
    switch(disk, dir, identity)
}

/// Reads the snapshot that a damaged log rests on, for other nodes that repair theirs.
pub struct LentSnapshots<D: Disk> {
    /// Of the damaged generation, and of the mended one: there it is if it came from a peer.
    places: [SnapshotFiles<D>; 2],
}

impl<D: Disk> LentSnapshots<D> {
    /// At most `bytes_max` bytes of this very snapshot, from `offset` on.
    ///
    /// # Errors
    /// [`SnapshotError`] if it is not there, or cannot be read.
    pub fn read(
        &self,
        base: &SnapshotMeta,
        offset: u64,
        bytes_max: u64,
    ) -> Result<SnapshotChunk, SnapshotError> {
        let read = |files: &SnapshotFiles<D>| {
            let chunk = files.read_part(base.last, offset, bytes_max)?;
            if *chunk.snapshot == *base {
                return Ok(chunk);
            }
            Err(SnapshotError::Content { last: base.last, why: "its file holds another one".into() })
        };
        let [damaged, mended] = &self.places;
        read(damaged).or_else(|_| read(mended))
    }
}

/// A peer's snapshot on its way into the mended generation.
pub struct RepairSnapshot<D: Disk>(IncomingSnapshot<D>);

impl<D: Disk> RepairSnapshot<D> {
    /// Takes the next chunk. The last one brings the description of the snapshot, which has been
    /// verified and is durable.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing of the snapshot is kept then.
    pub fn take(&mut self, chunk: &SnapshotChunk) -> Result<Option<SnapshotMeta>, SnapshotError> {
        let taken: Option<(SnapshotMeta, Store)> = self.0.take(chunk)?;
        Ok(taken.map(|(meta, _)| meta))
    }

    /// No more of it comes: removes what has come.
    pub fn abandon(mut self) {
        self.0.abandon();
    }
}

/// Makes a log of one segment that holds all of `sound`.
fn build_log<D: Disk>(
    disk: &D,
    options: &StorageOptions,
    identity: &Identity,
    (incarnation, nonces): (u64, Vec<u64>),
    sound: &Sound,
) -> Result<(), OpenError> {
    let before = sound.base().map_or(LogId::ZERO, |base| base.last);
    let batches = batches(sound, before, options.batch_bytes_max);
    let mut header = SegmentHeader {
        life: life(options.seed, incarnation, 0),
        cluster: identity.cluster,
        store: identity.store,
        incarnation,
        nonces,
        capacity: 0,
        first_sequence: 1,
        previous: 0,
        copied_through: batches.len() as u64,
        former_lives: Vec::new(),
        hard_state: sound.hard_state(),
        last: before,
        markers: sound.base().cloned().into_iter().collect(),
    };
    build_segment(disk, &identity.wal_dir(&options.dir), options.segment_bytes, &mut header, &batches)?;
    Ok(())
}

/// The entries, in batches of limited size.
fn batches(sound: &Sound, before: LogId, bytes_max: usize) -> Vec<Vec<u8>> {
    let mut batches: Vec<Vec<u8>> = Vec::new();
    let (mut previous, mut staged, mut bytes) = (0, Vec::new(), 0);
    let mut close = |staged: &mut Vec<Entry>, end: LogId| {
        let (first, last) = (staged.first().map(Entry::index), staged.last().map(Entry::index));
        let indices = (first.map_or(0, LogIndex::get), last.map_or(0, LogIndex::get));
        let mut payload = Vec::new();
        let entries = std::mem::take(staged);
        encode_records(&mut payload, &LogRecords { entries, ..LogRecords::default() });
        let mark = BatchMark { hard_state: sound.hard_state(), end };
        let commit = sound.commit().min(end.index).get();
        let header = BatchHeader::new(batches.len() as u64 + 1, previous, indices, commit, mark, &payload);
        previous = header.checksum;
        let mut batch = header.encode();
        assert_eq!(batch.len(), BATCH_HEADER_BYTES, "the header has a fixed width");
        batch.append(&mut payload);
        batches.push(batch);
    };
    let mut end = before;
    for entry in sound.entries() {
        let length = entry.encoded().len();
        if !staged.is_empty() && bytes + length > bytes_max {
            close(&mut staged, end);
            bytes = 0;
        }
        end = entry.id();
        bytes += length;
        staged.push(entry);
    }
    // The last one is a witness if there are no entries: it says what is committed.
    close(&mut staged, end);
    assert!(end == sound.end(), "the log ends where it has to");
    batches
}
