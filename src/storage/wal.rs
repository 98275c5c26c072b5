//! Appends to the log: batches, segments, and what is removed behind a snapshot.

use crate::raft::{HardState, LogId, LogIndex, LogRecords, SnapshotMeta, Term};
use crate::storage::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchMark, seal_batch};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::{StorageError, is_full};
use crate::storage::options::StorageOptions;
use crate::storage::record::encode_records;
use crate::storage::recovery::{Recovered, SealedSegment, Tail};
use crate::storage::sector::{BLOCK_BYTES, file_bytes_for, mix};
use crate::storage::segment::{NONCES_KEPT, SegmentHeader, build_segment, capacity_for, segment_name};
use crate::storage::spare::{Room, SPARES_MAX, Spare, SpareNews, Spares, remove_if_there};
use crate::storage::wanted::WantedFiles;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

/// If batches are larger than this in the mean, the room of a segment is reserved, and not filled
/// with zeros. A sync over reserved blocks costs some 60 µs more, but a 64 KiB batch takes longer
/// than that to write.
const FILL_BATCH_BYTES_MAX: u64 = 128 << 10;

/// After this many batches in a row that are no larger than that, batches count as small again.
const SMALL_BATCHES: u32 = 64;

/// The write-ahead log, open for appending.
pub(crate) struct Wal<D: Disk> {
    disk: D,
    wal_dir: PathBuf,
    options: StorageOptions,
    sealed: VecDeque<SealedSegment>,
    active: Active<D::File>,
    /// Its file is gone, and there was no room for another one yet. Nothing more is written into
    /// it: no start would find that.
    is_adrift: bool,
    spares: Spares<D>,
    /// How the room of the next segments is taken. It depends on whether the batches of the last
    /// segment, or the last ones of this, were large.
    room: Room,
    /// Batches in a row that were small.
    small_batches: u32,
    /// Sequence of the next batch.
    next_sequence: u64,
    last_checksum: u32,
    /// Whether something durable says that the last batch was durable.
    witnessed: bool,
    /// What the replica knows to be committed; `state.commit_index` says how much of that is on the
    /// disk.
    commit_index: LogIndex,
    state: LogState,
    staged: Staged,
    /// The image of the batch being written; kept for its allocation.
    image: Vec<u8>,
    sync_micros: Vec<u64>,
    /// The files that have to be there.
    wanted: WantedFiles,
}

/// What has become of what was staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synced {
    /// It is durable.
    Done {
        /// Whether a snapshot's marker was among it.
        marked: bool,
    },
    /// The disk has no room. It is still staged.
    NoRoom,
}

/// Sync times kept for [`Wal::sync_micros`], at most.
const SYNC_MICROS_MAX: usize = 1024;

/// The segment that is being written.
struct Active<F> {
    file: F,
    path: PathBuf,
    header: SegmentHeader,
    room: Room,
    offset: u64,
    max_index: u64,
}

/// What a header says of the log before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogState {
    pub(crate) hard_state: HardState,
    /// Its term is zero if a truncation left it unknown.
    pub(crate) last: LogId,
    /// The two newest, oldest first.
    pub(crate) markers: Vec<SnapshotMeta>,
    /// What the log says to be committed. Not in headers: every batch says it.
    pub(crate) commit_index: LogIndex,
}

/// Records that wait for the next batch, and what changes with them.
#[derive(Debug, Default)]
struct Staged {
    payload: Vec<u8>,
    /// Lowest and highest index among the entries; 0 without.
    first_index: u64,
    last_index: u64,
    hard_state: Option<HardState>,
    /// The log's last entry after the records.
    log_end: Option<LogId>,
    markers: Vec<SnapshotMeta>,
}

impl<D: Disk> Wal<D> {
    /// Rewrites the tail into a new life of its segment, synced and in place, and goes on from
    /// there.
    pub(crate) fn start(
        disk: D,
        wal_dir: PathBuf,
        options: StorageOptions,
        recovered: Recovered,
        state: LogState,
    ) -> Result<Self, StorageError> {
        let Tail { header, batches, max_index, next_sequence, last_checksum, .. } = recovered.tail;
        let incarnation = header.incarnation + 1;
        let mut nonces = header.nonces;
        nonces.insert(0, nonce(options.seed, incarnation));
        nonces.truncate(NONCES_KEPT);
        let mut header = SegmentHeader {
            life: life(options.seed, incarnation, header.first_sequence),
            incarnation,
            nonces,
            copied_through: next_sequence - 1,
            former_lives: Vec::new(),
            ..header
        };
        let (file, offset) = build_segment(&disk, &wal_dir, options.segment_bytes, &mut header, &batches)?;
        if let Some(dropped) = recovered.dropped {
            disk.remove(&dropped).map_err(StorageError::new("removing", &dropped))?;
            disk.sync_dir(&wal_dir).map_err(StorageError::new("syncing the directory", &wal_dir))?;
        }
        let path = wal_dir.join(segment_name(header.first_sequence));
        let spares = Spares::new(disk.clone(), wal_dir.clone(), options.spare_mode)
            .map_err(StorageError::new("starting the thread that prepares segments for", &wal_dir))?;
        let mut log = Self {
            disk,
            wal_dir,
            options,
            sealed: recovered.sealed.into(),
            active: Active { file, path, header, room: Room::Filled, offset, max_index },
            is_adrift: false,
            spares,
            room: Room::Filled,
            small_batches: 0,
            next_sequence,
            last_checksum,
            witnessed: true,
            commit_index: state.commit_index,
            state,
            staged: Staged::default(),
            image: Vec::new(),
            sync_micros: Vec::new(),
            wanted: WantedFiles::default(),
        };
        let sealed = log.sealed.iter().map(|segment| segment.path.clone()).collect();
        log.wanted.set(sealed, log.active.path.clone(), &log.state.markers);
        log.want_spare();
        Ok(log)
    }

    /// Which start of the node this is.
    pub(crate) fn incarnation(&self) -> u64 {
        self.active.header.incarnation
    }

    /// The random numbers of this start and of those before it, newest first.
    pub(crate) fn nonces(&self) -> &[u64] {
        &self.active.header.nonces
    }

    /// The two newest snapshots with a durable marker, oldest first.
    pub(crate) fn markers(&self) -> &[SnapshotMeta] {
        &self.state.markers
    }

    /// The files that have to be there, for as long as the log is open.
    pub(crate) fn wanted(&self) -> WantedFiles {
        self.wanted.clone()
    }

    /// Adds a write's records to the next batch.
    ///
    /// # Panics
    /// If entries are not contiguous with each other and the log, a term goes back, a vote changes,
    /// or a committed entry is truncated. Each is a bug of the core that must not reach the disk.
    pub(crate) fn stage(&mut self, records: &LogRecords) {
        let staged = &mut self.staged;
        if let Some(hard_state) = records.hard_state {
            let before = staged.hard_state.unwrap_or(self.state.hard_state);
            assert!(hard_state.term >= before.term, "a term never goes back");
            let keeps_vote = before.voted_for.is_none() || before.voted_for == hard_state.voted_for;
            assert!(hard_state.term > before.term || keeps_vote, "a vote never changes within a term");
            staged.hard_state = Some(hard_state);
        }
        let mut log_end = staged.log_end.unwrap_or(self.state.last);
        if let Some(from) = records.truncate_from {
            // A snapshot from the leader replaces the whole log, and includes what was committed.
            let replaced = records.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
            let committed = self.commit_index;
            let keeps_committed = from > committed || replaced >= committed;
            assert!(keeps_committed, "entries from {from} on are void, but up to {committed} are committed");
            if from <= log_end.index {
                // The entries that follow say the term of the last one.
                log_end = LogId::new(Term::ZERO, from.previous());
            }
        }
        if let Some(meta) = &records.snapshot {
            if meta.last.index >= log_end.index {
                log_end = meta.last;
            }
            staged.markers.push((**meta).clone());
        }
        if let (Some(first), Some(last)) = (records.entries.first(), records.entries.last()) {
            assert!(first.index() <= log_end.index.next(), "entries leave no gap");
            let count = records.entries.len() as u64;
            assert_eq!(last.index(), first.index().plus(count - 1), "entries are contiguous");
            log_end = last.id();
            let first = first.index().get();
            staged.first_index = if staged.first_index == 0 { first } else { staged.first_index.min(first) };
            staged.last_index = staged.last_index.max(last.index().get());
        }
        staged.log_end = Some(log_end);
        encode_records(&mut staged.payload, records);
    }

    /// Entries up to `index` are committed, and were staged: the next batch says so.
    ///
    /// # Panics
    /// If they were not staged: a start would not find them.
    pub(crate) fn note_commit(&mut self, index: LogIndex) {
        let log_end = self.staged.log_end.unwrap_or(self.state.last).index;
        assert!(index <= log_end, "entries up to {index} are committed, but the log was given {log_end}");
        self.commit_index = self.commit_index.max(index);
    }

    /// Bytes of records staged so far.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.staged.payload.len()
    }

    /// Writes and syncs what is staged. If the disk has no room for the segment that this needs,
    /// nothing has changed, and it may be called again.
    pub(crate) fn sync_staged(&mut self) -> Result<Synced, StorageError> {
        if !self.staged.payload.is_empty() && !self.make_room(self.staged.payload.len())? {
            return Ok(Synced::NoRoom);
        }
        let mut staged = std::mem::take(&mut self.staged);
        if !staged.payload.is_empty() {
            let mark = BatchMark {
                hard_state: staged.hard_state.unwrap_or(self.state.hard_state),
                end: staged.log_end.unwrap_or(self.state.last),
            };
            self.write_batch(&staged.payload, (staged.first_index, staged.last_index), mark)?;
            self.witnessed = false;
        }
        self.state.hard_state = staged.hard_state.unwrap_or(self.state.hard_state);
        self.state.last = staged.log_end.unwrap_or(self.state.last);
        let marked = !staged.markers.is_empty();
        for meta in staged.markers.drain(..) {
            // The file of one that is marked after a newer one may have gone with the older ones.
            let is_late = self.state.markers.last().is_some_and(|newest| meta.last.index < newest.last.index);
            if !is_late {
                self.wanted.add_snapshot(meta.last);
            }
            push_marker(&mut self.state.markers, meta);
        }
        if marked {
            self.wanted.keep_snapshots(&self.state.markers);
        }
        staged.payload.clear();
        if staged.payload.capacity() > 2 * self.options.batch_bytes_max {
            staged.payload = Vec::new();
        }
        self.staged = Staged { payload: staged.payload, ..Staged::default() };
        Ok(Synced::Done { marked })
    }

    /// Writes a batch without records, if nothing says yet that the last one was durable, or how
    /// much is committed, and if there is room. Whether it did.
    pub(crate) fn witness(&mut self) -> Result<bool, StorageError> {
        let says_all = |log: &Self| log.witnessed && log.commit_index <= log.state.commit_index;
        if says_all(self) && !self.is_adrift {
            return Ok(false);
        }
        // Each try makes a file: none is made while it is known that there is no room.
        if self.is_adrift && self.is_full() || !self.make_room(0)? {
            return Ok(false);
        }
        if !says_all(self) {
            let mark = BatchMark { hard_state: self.state.hard_state, end: self.state.last };
            self.write_batch(&[], (0, 0), mark)?;
            self.witnessed = true;
        }
        Ok(true)
    }

    /// Removes or recycles the segments that hold nothing above `index`, from the oldest on.
    pub(crate) fn remove_through(&mut self, index: LogIndex) -> Result<(), StorageError> {
        let mut removed = false;
        while self.sealed.front().is_some_and(|segment| segment.max_index <= index.get()) {
            let Some(segment) = self.sealed.pop_front() else { break };
            let SealedSegment { path, capacity, lives, room, .. } = segment;
            self.wanted.forget_segment(&path);
            let keep = capacity == self.options.segment_bytes;
            let failed = StorageError::new("removing", &path);
            self.spares.recycle(&path, capacity, lives, room, keep).map_err(failed)?;
            removed = true;
        }
        if removed {
            self.sync_dir()?;
        }
        Ok(())
    }

    /// The highest index in the sealed segments up to this one; `None` if it is none of them.
    pub(crate) fn highest_up_to(&self, path: &Path) -> Option<LogIndex> {
        let position = self.sealed.iter().position(|segment| segment.path == path)?;
        let highest = self.sealed.iter().take(position + 1).map(|segment| segment.max_index).max();
        highest.map(LogIndex::new)
    }

    /// Removes the sealed segments up to this one, which is damaged. A snapshot covers them. None
    /// of them is used again.
    pub(crate) fn remove_damaged(&mut self, path: &Path) -> Result<(), StorageError> {
        let Some(position) = self.sealed.iter().position(|segment| segment.path == path) else {
            return Ok(());
        };
        for segment in self.sealed.drain(..=position) {
            self.wanted.forget_segment(&segment.path);
            // It may be the damage that it is gone.
            remove_if_there(&self.disk, &segment.path)
                .map_err(StorageError::new("removing", &segment.path))?;
        }
        self.sync_dir()
    }

    /// Goes on in another segment, if this is the one that is being written: its file is gone. If
    /// the disk has no room for another one, nothing is written until it has.
    pub(crate) fn leave(&mut self, path: &Path) -> Result<(), StorageError> {
        if self.active.path == path {
            self.is_adrift = true;
            self.go_on(BLOCK_BYTES as u64)?;
        }
        Ok(())
    }

    /// Whether this is the segment that is being written.
    pub(crate) fn is_active(&self, path: &Path) -> bool {
        self.active.path == path
    }

    /// Whether the disk had no room for the next segment when that was looked at last.
    pub(crate) const fn is_full(&self) -> bool {
        self.spares.is_full()
    }

    /// `Some` when the disk has become full, or has room again.
    pub(crate) fn poll_spares(&mut self) -> Option<SpareNews> {
        self.spares.poll()
    }

    /// Durations of the syncs since this was last called, microseconds (the newest thousand).
    pub(crate) fn take_sync_micros(&mut self, out: &mut Vec<u64>) {
        out.append(&mut self.sync_micros);
    }

    /// Goes on in the next segment if this one has no room for `payload_bytes` of records and the
    /// seal after them, if its file is gone, or if a better one is ready. `false` if the disk has
    /// no room for it.
    fn make_room(&mut self, payload_bytes: usize) -> Result<bool, StorageError> {
        let batch_bytes = file_bytes_for(BATCH_HEADER_BYTES + payload_bytes) as u64;
        self.count_batch(batch_bytes);
        let seal_bytes = BLOCK_BYTES as u64;
        let has_room = self.active.offset + batch_bytes + seal_bytes <= self.active.header.capacity;
        if has_room && !self.is_adrift && !self.leaves_reserved() {
            return Ok(true);
        }
        self.go_on(batch_bytes)
    }

    /// Once batches have been small for a while, the next segment is to be filled with zeros, even
    /// if they were large before.
    fn count_batch(&mut self, bytes: u64) {
        let is_small = bytes <= FILL_BATCH_BYTES_MAX;
        self.small_batches = if is_small { self.small_batches.saturating_add(1) } else { 0 };
        if self.small_batches == SMALL_BATCHES {
            self.room = Room::Filled;
            self.want_spare();
        }
    }

    /// Whether this segment's room is only reserved, batches are small, and one that is filled is
    /// ready. The rest of this one is given up: until it was written, each small batch would pay
    /// for the blocks that it is the first to use.
    fn leaves_reserved(&self) -> bool {
        let bytes = self.active.header.capacity.min(self.options.segment_bytes);
        self.active.room == Room::Reserved
            && self.small_batches >= SMALL_BATCHES
            && self.spares.has_filled(bytes)
    }

    /// Goes on in a new segment with room for `batch_bytes`. It gets its name before the old one is
    /// sealed, so that a seal without a segment after it tells that one is missing. `false` if the
    /// disk has no room for one: nothing has been changed then.
    fn go_on(&mut self, batch_bytes: u64) -> Result<bool, StorageError> {
        let seal_bytes = BLOCK_BYTES as u64;
        let (seal_header, seal) = seal_batch(self.next_sequence, self.last_checksum);
        let first_sequence = self.next_sequence + 1;
        let state = &self.state;
        let mut header = SegmentHeader {
            life: life(self.options.seed, self.incarnation(), first_sequence),
            first_sequence,
            previous: seal_header.checksum,
            copied_through: 0,
            hard_state: state.hard_state,
            last: state.last,
            markers: state.markers.clone(),
            ..self.active.header.clone()
        };
        self.image.clear();
        header.stamp_header_into(&mut self.image);
        // The list of former lives may make the header a block longer.
        let needed = self.image.len() as u64 + batch_bytes + 2 * seal_bytes;
        let Some((spare, file)) = self.take_spare(needed)? else { return Ok(false) };
        header.capacity = spare.capacity;
        header.former_lives = spare.former_lives;
        let room = spare.room;
        self.image.clear();
        header.stamp_header_into(&mut self.image);
        file.write_at(&self.image, 0).map_err(StorageError::new("writing", &spare.path))?;
        file.sync_data().map_err(StorageError::new("syncing", &spare.path))?;
        let path = self.wal_dir.join(segment_name(header.first_sequence));
        self.disk.rename(&spare.path, &path).map_err(StorageError::new("renaming into place", &path))?;
        self.sync_dir()?;
        let offset = self.image.len() as u64;
        // What a seal says is known in advance: it names no commit index and no state.
        self.write_batch(&seal, (0, 0), BatchMark::default())?;
        let batches = self.next_sequence - self.active.header.first_sequence;
        let mean_bytes = self.active.offset / batches.max(1);
        let is_large = mean_bytes > FILL_BATCH_BYTES_MAX && self.small_batches < SMALL_BATCHES;
        self.room = if is_large { Room::Reserved } else { Room::Filled };
        let next = Active { file, path, header, room, offset, max_index: 0 };
        let old = std::mem::replace(&mut self.active, next);
        self.is_adrift = false;
        let mut lives = old.header.former_lives;
        lives.push(old.header.life);
        let capacity = old.header.capacity;
        // A segment that was written is as good as filled.
        let is_written = old.offset >= capacity / 8 * 7;
        let room = if is_written { Room::Filled } else { old.room };
        let max_index = old.max_index;
        self.sealed.push_back(SealedSegment { path: old.path, capacity, lives, room, max_index });
        self.wanted.go_on_in(&self.active.path);
        self.witnessed = true;
        self.want_spare();
        Ok(true)
    }

    /// A spare for `bytes`, open; `None` if the disk has no room for one. Somebody who makes room
    /// on a full disk may have removed the files of those that were ready.
    fn take_spare(&mut self, bytes: u64) -> Result<Option<(Spare, D::File)>, StorageError> {
        let mut tries = SPARES_MAX + 1;
        loop {
            let spare = match self.spares.take(bytes) {
                Ok(spare) => spare,
                Err(error) if is_full(&error) => return Ok(None),
                Err(error) => return Err(StorageError::new("preparing a segment in", &self.wal_dir)(error)),
            };
            match self.disk.open(&spare.path) {
                Ok(file) => return Ok(Some((spare, file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => tries -= 1,
                Err(error) => return Err(StorageError::new("opening", &spare.path)(error)),
            }
        }
    }

    /// Writes and syncs one batch. `mark`: what the log adds up to after it.
    fn write_batch(
        &mut self,
        payload: &[u8],
        indices: (u64, u64),
        mark: BatchMark,
    ) -> Result<(), StorageError> {
        // A seal names no commit index.
        let commit = self.commit_index.min(mark.end.index);
        let (sequence, previous) = (self.next_sequence, self.last_checksum);
        let header = BatchHeader::new(sequence, previous, indices, commit.get(), mark, payload);
        let active = &mut self.active;
        self.image.clear();
        header.stamp_batch_into(&mut self.image, payload, active.header.life(), active.offset);
        assert!(active.offset + self.image.len() as u64 <= active.header.capacity, "room was made");
        let started = self.options.clock.now_micros();
        let written = active.file.write_at(&self.image, active.offset);
        written.map_err(StorageError::new("writing", &active.path))?;
        active.file.sync_data().map_err(StorageError::new("syncing", &active.path))?;
        if self.sync_micros.len() < SYNC_MICROS_MAX {
            self.sync_micros.push(self.options.clock.now_micros().saturating_sub(started));
        }
        active.offset += self.image.len() as u64;
        active.max_index = active.max_index.max(indices.1);
        self.next_sequence += 1;
        self.last_checksum = header.checksum;
        self.state.commit_index = self.state.commit_index.max(commit);
        if self.image.capacity() > 2 * self.options.batch_bytes_max + BLOCK_BYTES {
            self.image = Vec::new();
        }
        Ok(())
    }

    fn want_spare(&mut self) {
        let segment_bytes = self.options.segment_bytes;
        let bytes = capacity_for(self.active.header.capacity, segment_bytes).min(segment_bytes);
        self.spares.want(bytes, self.room);
    }

    fn sync_dir(&self) -> Result<(), StorageError> {
        self.disk.sync_dir(&self.wal_dir).map_err(StorageError::new("syncing the directory", &self.wal_dir))
    }
}

impl<D: Disk> Drop for Wal<D> {
    fn drop(&mut self) {
        self.wanted.clear();
    }
}

/// Keeps the two newest markers.
pub(crate) fn push_marker(markers: &mut Vec<SnapshotMeta>, meta: SnapshotMeta) {
    markers.retain(|marker| marker.last != meta.last);
    markers.push(meta);
    // A snapshot that was saved while a newer one came in from the leader is marked after it.
    markers.sort_by_key(|marker| marker.last.index);
    let surplus = markers.len().saturating_sub(2);
    markers.drain(..surplus);
}

/// A life: never the same twice in a data directory, even from the same seed, because (incarnation,
/// first sequence) never is.
pub(crate) fn life(seed: u64, incarnation: u64, first_sequence: u64) -> u64 {
    mix(mix(mix(seed).wrapping_add(incarnation)).wrapping_add(first_sequence))
}

/// The number that tells this start from every other on a copy of the same data directory. It is as
/// random as the seed is.
fn nonce(seed: u64, incarnation: u64) -> u64 {
    // Apart from the lives, which are drawn from the same seed.
    mix(mix(!seed).wrapping_add(incarnation))
}
