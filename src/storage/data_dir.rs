//! A data directory, open: the one place where requests of the replica become durable.

use crate::codec::FeatureLevel;
use crate::kv::Store;
use crate::raft::{
    ClusterId, Incarnation, LogId, LogRecords, LogWrite, NodeId, Restored, SnapshotMeta, StoreId,
    WriteSequence,
};
use crate::replica::{SnapshotSave, StorageEvent, StorageRequest, UnstoredSnapshot};
use crate::storage::disk::Disk;
use crate::storage::error::{OpenError, SnapshotError, StorageError};
use crate::storage::identity::{
    Bootstrap, DirectoryOwner, Identity, check_name, find, make_generation, remove_leftovers, switch,
};
use crate::storage::incoming_snapshot::IncomingSnapshot;
use crate::storage::options::{SpareMode, StorageOptions};
use crate::storage::own_notes::OwnNotes;
use crate::storage::recovery::{RecoveryNote, recover};
use crate::storage::repair::{check_started, forget_member, note_started, read_promised, read_started};
use crate::storage::scrub::Scrubber;
use crate::storage::sector::BLOCK_BYTES;
use crate::storage::snapshots::SnapshotFiles;
use crate::storage::spare::SpareNews;
use crate::storage::start::{
    choose_snapshot, create, keep_torn, level_of_entries, make_dir, make_log, not_writable, recovered_note,
    snapshot_failed, tidy,
};
use crate::storage::wal::{LogState, Synced, Wal, push_marker};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// A data directory, open and locked.
///
/// The driver calls [`Storage::open`] first, which is slow: it reads and rewrites. Then it calls
/// [`Storage::handle`] with all the requests that wait, again and again. After some milliseconds
/// without a request it calls [`Storage::idle`] once, and then about every second (that also
/// watches for room on a full disk). At the end it calls [`Storage::close`]. An error of any of
/// these is final: the node has to stop.
pub struct Storage<D: Disk> {
    pub(super) disk: D,
    pub(super) options: StorageOptions,
    pub(super) identity: Identity,
    pub(super) log: Wal<D>,
    snapshots: SnapshotFiles<D>,
    incoming: IncomingSnapshot<D>,
    /// The highest level of which an entry speaks that is staged. The identity names it before the
    /// entry is written.
    staged_level: FeatureLevel,
    /// The last write that the core has handed over since the start.
    last_write: Option<WriteSequence>,
    /// Writes that are staged, and for which the disk has no room.
    jam: Option<Jam>,
    /// What came after them, in order. Bounded by what a leader and its peers have in flight.
    waiting: VecDeque<StorageRequest>,
    /// What an earlier start may have promised, microseconds, and when this start began.
    pub(super) earlier_promise: (u64, u64),
    /// Whether the jam was reported.
    jam_is_told: bool,
    /// Sealed segments that are damaged, and still needed.
    condemned: Vec<PathBuf>,
    /// The first failure; nothing is written after it.
    failed: Option<StorageError>,
    lock: Box<dyn Send + Sync>,
}

/// What a start found.
#[derive(Debug)]
pub struct Opened {
    /// The identity of the directory.
    pub identity: Identity,
    /// Which start this is.
    pub incarnation: Incarnation,
    /// The random numbers of this start and of those before it, newest first. At least this one's.
    pub nonces: Vec<u64>,
    /// What the core starts from.
    pub restored: Restored,
    /// The state machine at `restored.snapshot` (empty without one).
    pub store: Store,
    /// What the node logs about the recovery.
    pub notes: Vec<RecoveryNote>,
}

impl<D: Disk> Storage<D> {
    /// Opens a data directory, or makes a new one. When it returns, everything that it read is
    /// durable again: the unsealed tail of the log has been rewritten, because what was read may
    /// only have been in the page cache.
    ///
    /// # Errors
    /// [`OpenError`], whose text says what to do.
    pub fn open(
        disk: D,
        options: StorageOptions,
        bootstrap: &Bootstrap,
    ) -> Result<(Self, Opened), OpenError> {
        check_name(&bootstrap.name)?;
        let options = StorageOptions {
            segment_bytes: options.segment_bytes.max(SEGMENT_BYTES_MIN).next_multiple_of(BLOCK_BYTES as u64),
            ..options
        };
        let dir = &options.dir;
        make_dir(&disk, dir)?;
        let lock = disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.clone() },
            _ => not_writable(dir)(error),
        })?;
        let mut notes = Vec::new();
        let identity = match find(&disk, dir)? {
            DirectoryOwner::Identity(identity) if identity.name == bootstrap.name => identity,
            DirectoryOwner::Identity(identity) => {
                let (recorded, given) = (identity.name, bootstrap.name.clone());
                return Err(OpenError::OtherNode { dir: dir.clone(), recorded, given });
            }
            found => {
                let resumed = found == DirectoryOwner::Interrupted;
                notes.push(if resumed { RecoveryNote::CreationResumed } else { RecoveryNote::Created });
                create(&disk, &options, bootstrap)?
            }
        };
        identity.check_level(dir, options.speaks)?;
        // Now it is known to belong to this node. A file system without modes, or a directory of
        // another user, is no reason not to serve.
        if disk.make_private(dir).unwrap_or(false) {
            notes.push(RecoveryNote::MadePrivate { dir: dir.clone() });
        }
        Self::start(disk, options, identity, lock, notes)
    }

    /// Moves to another cluster: builds an empty log in a new generation of directories, and
    /// switches to it by one rename of the identity, so that a crash leaves either the old member
    /// or the new one.
    ///
    /// # Errors
    /// [`OpenError`]; the node must be restarted then, and is the old member or the new one.
    pub fn adopt(
        self,
        cluster: ClusterId,
        member: NodeId,
        store: StoreId,
    ) -> Result<(Self, Opened), OpenError> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let Self { disk, options, identity: old, log, lock, .. } = self;
        let incarnation = log.incarnation();
        drop(log);
        let (name, generation) = (old.name.clone(), old.other_generation());
        // The new log is empty, and nothing is known of the cluster's level.
        let level = FeatureLevel::UNTOLD;
        let identity = Identity { cluster, member, store, name, generation, level };
        make_generation(&disk, &options.dir, identity.generation)?;
        make_log(&disk, &options, &identity, incarnation, &Restored::default())?;
        forget_member(&disk, &options.dir)?;
        switch(&disk, &options.dir, &identity)?;
        Self::start(disk, options, identity, lock, Vec::new())
    }

    /// Carries out all `requests`: the writes first, which share as few syncs as the limits allow,
    /// then snapshots to save and chunks to read. (These two may be carried out on another thread
    /// instead, with [`Self::snapshot_files`].) The answers are appended to `events`.
    ///
    /// Writes for which the disk has no room wait here, and are answered by a later call, or by
    /// [`Self::idle`], once there is some ([`StorageEvent::LogFull`]).
    ///
    /// # Errors
    /// [`StorageError`] when a write or sync failed, now or earlier: nothing after it is durable,
    /// or ever will be.
    pub fn handle(
        &mut self,
        requests: &mut Vec<StorageRequest>,
        events: &mut Vec<StorageEvent>,
    ) -> Result<(), StorageError> {
        self.unless_failed(|storage| storage.write(requests, events))?;
        for request in requests.drain(..) {
            match request {
                StorageRequest::SaveSnapshot(save) => events.push(self.save(*save)),
                StorageRequest::ReadChunk(read) => events.push(self.snapshots.answer_read(&read)),
                StorageRequest::Write(_) | StorageRequest::Committed(_) => {
                    unreachable!("the log's requests were taken out first")
                }
            }
        }
        self.poll(events);
        Ok(())
    }

    /// To be called after a short time without requests. Writes the witness of the last batch if it
    /// has none, or if the commit index is beyond the one in the log, and looks whether the disk
    /// has room. What waits for room goes on then.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub fn idle(&mut self, events: &mut Vec<StorageEvent>) -> Result<(), StorageError> {
        if self.jam.is_some() {
            self.poll(events);
            self.unless_failed(|storage| storage.write(&mut Vec::new(), events))?;
        }
        if self.jam.is_none() {
            self.unless_failed(|storage| storage.log.witness())?;
        }
        self.forget_earlier_promise();
        self.poll(events);
        Ok(())
    }

    /// Ends: with a witness of the last batch, so that nothing that happens to the disk later goes
    /// unnoticed.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub fn close(mut self) -> Result<(), StorageError> {
        if self.jam.is_some() {
            // What waits was never acknowledged.
            return Ok(());
        }
        self.unless_failed(|storage| storage.log.witness())?;
        self.forget_earlier_promise();
        Ok(())
    }

    /// A sealed segment was found damaged. The state in memory is sound: once a snapshot of it
    /// covers the segment, the segment is removed. [`StorageEvent::SegmentDamaged`] asks for that
    /// snapshot. So it is with a segment that is gone; if it is the one that is being written, the
    /// log goes on in another one, and acknowledges nothing until there is room for that.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub fn condemn(&mut self, file: &Path, events: &mut Vec<StorageEvent>) -> Result<(), StorageError> {
        if !self.condemned.iter().any(|known| known == file) {
            self.condemned.push(file.to_path_buf());
        }
        self.unless_failed(|storage| {
            storage.log.leave(file)?;
            storage.remove_condemned()
        })?;
        let needed = self.condemned.iter().filter_map(|file| self.log.highest_up_to(file)).max();
        events.extend(needed.map(|through| StorageEvent::SegmentDamaged { through }));
        Ok(())
    }

    /// Reads again what is at rest. Of no use after [`Self::adopt`].
    #[must_use]
    pub fn scrubber(&self) -> Scrubber<D> {
        let Identity { cluster, store, .. } = self.identity;
        let wal_dir = self.identity.wal_dir(&self.options.dir);
        let wanted = self.log.wanted();
        Scrubber::new(self.disk.clone(), wal_dir, self.snapshots.clone(), (cluster, store), wanted)
    }

    /// The identity of the directory.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The snapshot files, for another thread. Of no use after [`Self::adopt`].
    #[must_use]
    pub fn snapshot_files(&self) -> SnapshotFiles<D> {
        self.snapshots.clone()
    }

    /// Appends the durations of the syncs since the last call (the first thousand), microseconds by
    /// the options' clock.
    pub fn take_sync_micros(&mut self, out: &mut Vec<u64>) {
        self.log.take_sync_micros(out);
    }

    fn start(
        disk: D,
        options: StorageOptions,
        mut identity: Identity,
        lock: Box<dyn Send + Sync>,
        mut notes: Vec<RecoveryNote>,
    ) -> Result<(Self, Opened), OpenError> {
        let started_at = options.clock.now_micros();
        let dir = options.dir.clone();
        let (wal_dir, snapshot_dir) = (identity.wal_dir(&dir), identity.snapshot_dir(&dir));
        let missing = || OpenError::LogMissing { dir: dir.clone(), wal: wal_dir.clone() };
        if !disk.exists(&wal_dir).map_err(OpenError::io("looking for", &wal_dir))? {
            return Err(missing());
        }
        let mut recovered =
            recover(&disk, &wal_dir, identity.cluster, identity.store)?.ok_or_else(missing)?;
        check_started(&disk, &dir, recovered.tail.header.incarnation)?;
        let replay = std::mem::take(&mut recovered.replay);
        let paced = options.spare_mode == SpareMode::Thread;
        let snapshots =
            SnapshotFiles::new(disk.clone(), snapshot_dir.clone(), identity.cluster, identity.store, paced);
        let (snapshot, store) = choose_snapshot(&snapshots, &replay, &recovered, &mut notes)?;
        // A directory that was repaired may have come to hold more than its identity says.
        let level = level_of_entries(&replay.entries).max(store.level());
        if level > identity.level {
            identity.level = level;
            identity.check_level(&dir, options.speaks)?;
            switch(&disk, &dir, &identity)?;
        }
        // From here on the directory is changed: everything that was acknowledged has been found.
        // The names that led to it may be in the page cache alone, like the content: they are made
        // durable before others are removed.
        disk.create_dir_all(&snapshot_dir).map_err(OpenError::io("creating", &snapshot_dir))?;
        disk.sync_dir(&dir).map_err(OpenError::io("syncing the directory", &dir))?;
        remove_leftovers(&disk, &dir, &identity)?;
        notes.extend(tidy(&disk, (&dir, &wal_dir), &replay, &recovered)?);
        snapshots.remove_others(&replay.markers).map_err(snapshot_failed)?;
        if let Some((offset, bytes)) = recovered.tail.torn.take() {
            let file = recovered.tail.path.clone();
            let kept = keep_torn(&disk, &wal_dir, &file, &bytes, options.torn_files_max)?;
            notes.push(RecoveryNote::TornTail { file, offset, bytes: bytes.len() as u64, kept });
        }
        notes.push(recovered_note(&replay, &recovered, snapshot.as_ref()));
        let mut state = LogState {
            hard_state: replay.hard_state,
            last: replay.last_id(),
            markers: Vec::new(),
            commit_index: replay.commit,
        };
        for marker in &replay.markers {
            if snapshot.as_ref().is_some_and(|used| marker.last.index <= used.last.index) {
                push_marker(&mut state.markers, marker.clone());
            }
        }
        let log = Wal::start(disk.clone(), wal_dir, options.clone(), recovered, state)?;
        // A promise of an earlier start may still hold, and this start may end soon, too.
        let earlier = read_promised(&disk, &dir, options.promised_micros);
        let noted = match note_started(&disk, &dir, log.incarnation(), options.promised_micros.max(earlier)) {
            Ok(()) => log.incarnation(),
            // The note of an earlier start stays, and says less.
            Err(error) if error.is_full() && earlier >= options.promised_micros => read_started(&disk, &dir),
            Err(error) => return Err(error),
        };
        log.wanted().set_notes(OwnNotes::new(&dir, &identity, noted));
        let nonces = log.nonces().to_vec();
        let incarnation = Incarnation::drawn(log.incarnation(), nonces[0]);
        let restored = Restored {
            hard_state: replay.hard_state,
            snapshot,
            entries: replay.entries,
            commit: replay.commit,
            promised_micros: earlier,
        };
        let incoming = IncomingSnapshot::new(snapshots.clone(), options.speaks.highest());
        let staged_level = identity.level;
        let storage = Self {
            disk,
            options,
            identity: identity.clone(),
            log,
            snapshots,
            incoming,
            staged_level,
            last_write: None,
            jam: None,
            waiting: VecDeque::new(),
            earlier_promise: (earlier, started_at),
            jam_is_told: false,
            condemned: Vec::new(),
            failed: None,
            lock,
        };
        Ok((storage, Opened { identity, incarnation, nonces, restored, store, notes }))
    }

    fn write(
        &mut self,
        requests: &mut Vec<StorageRequest>,
        events: &mut Vec<StorageEvent>,
    ) -> Result<(), StorageError> {
        let is_logged = |request: &mut StorageRequest| {
            matches!(request, StorageRequest::Write(_) | StorageRequest::Committed(_))
        };
        self.waiting.extend(requests.extract_if(.., is_logged));
        // Each try makes a file: none is made while it is known that there is no room.
        let is_hopeless = self.jam.is_some() && self.log.is_full();
        if is_hopeless || !self.clear_jam(events)? {
            return Ok(());
        }
        let mut last = None;
        while let Some(request) = self.waiting.pop_front() {
            let write = match request {
                StorageRequest::Write(write) => write,
                StorageRequest::Committed(index) => {
                    self.log.note_commit(index);
                    continue;
                }
                other => unreachable!("{other:?} is not the log's"),
            };
            // A snapshot that is installed has a batch to itself: if that is damaged, it is clear
            // what it had done to the log.
            let installs = write.records().snapshot_chunks.last().is_some_and(|chunk| chunk.done);
            let ends_batch = installs || self.log.staged_bytes() >= self.options.batch_bytes_max;
            if last.is_some() && ends_batch && !self.sync(last.take(), SnapshotVerdict::None, events)? {
                self.waiting.push_front(StorageRequest::Write(write));
                return Ok(());
            }
            // A receipt stands for all writes before it: one that was lost on the way here would
            // count as durable.
            let (sequence, before) = (write.sequence(), self.last_write.replace(write.sequence()));
            let follows = before.is_none_or(|before| sequence == before.next());
            assert!(follows, "write {sequence} follows {before:?}: one is missing, or comes twice");
            let verdict = self.stage(write.records());
            let ends_batch = !matches!(verdict, SnapshotVerdict::None);
            last = Some(write);
            if ends_batch && !self.sync(last.take(), verdict, events)? {
                return Ok(());
            }
        }
        self.sync(last, SnapshotVerdict::None, events).map(|_| ())
    }

    /// Writes what was staged when there was no room, if anything. Whether it is written now.
    fn clear_jam(&mut self, events: &mut Vec<StorageEvent>) -> Result<bool, StorageError> {
        match self.jam.take() {
            Some(Jam { last, verdict }) => self.sync(Some(last), verdict, events),
            None => Ok(true),
        }
    }

    fn stage(&mut self, records: &LogRecords) -> SnapshotVerdict {
        self.staged_level = self.staged_level.max(level_of_entries(&records.entries));
        let Some(last_chunk) = records.snapshot_chunks.last() else {
            if !records.entries.is_empty() {
                // A leader that sends entries sends no snapshot any more. What had arrived of one
                // is dropped.
                self.incoming.abandon();
            }
            self.log.stage(records);
            return SnapshotVerdict::None;
        };
        let taken: Result<Vec<_>, _> =
            records.snapshot_chunks.iter().map(|chunk| self.incoming.take(chunk)).collect();
        match taken {
            Ok(results) => {
                self.log.stage(records);
                let installed = results.into_iter().flatten().next_back();
                installed.map_or(SnapshotVerdict::None, |installed| {
                    SnapshotVerdict::Installed(Box::new(installed))
                })
            }
            Err(error) => {
                if last_chunk.done {
                    // The marker, and what goes with it, is left out: the log stays as it was. Term
                    // and vote stand by themselves.
                    self.log.stage(&LogRecords { hard_state: records.hard_state, ..LogRecords::default() });
                } else {
                    self.log.stage(records);
                }
                let (last, why) = (last_chunk.snapshot.last, error.refusal());
                SnapshotVerdict::Refused(Box::new(UnstoredSnapshot { last, why, reason: error.to_string() }))
            }
        }
    }

    /// Makes what is staged durable, and answers. `false` if the disk has no room for it: it stays
    /// staged.
    fn sync(
        &mut self,
        last: Option<LogWrite>,
        verdict: SnapshotVerdict,
        events: &mut Vec<StorageEvent>,
    ) -> Result<bool, StorageError> {
        let Some(last) = last else { return Ok(true) };
        if let SnapshotVerdict::Installed(installed) = &verdict {
            self.staged_level = self.staged_level.max(installed.1.level());
        }
        if self.staged_level > self.identity.level && !self.raise_level()? {
            self.jam = Some(Jam { last, verdict });
            return Ok(false);
        }
        let Synced::Done { marked } = self.log.sync_staged()? else {
            self.jam = Some(Jam { last, verdict });
            return Ok(false);
        };
        let (installed, refused) = match verdict {
            SnapshotVerdict::None => (None, None),
            SnapshotVerdict::Installed(installed) => (Some(installed), None),
            SnapshotVerdict::Refused(refused) => (None, Some(refused)),
        };
        events.push(StorageEvent::Durable { receipt: last.into_durable(), installed, refused });
        if marked {
            self.remove_covered()?;
        }
        Ok(true)
    }

    /// Writes down, durably, that what is about to be written speaks of a higher level: an older
    /// release does not open the directory any more. `false`: the disk has no room for it.
    fn raise_level(&mut self) -> Result<bool, StorageError> {
        let identity = Identity { level: self.staged_level, ..self.identity.clone() };
        let wanted = self.log.wanted();
        wanted.expect_identity(&[&self.identity, &identity]);
        match switch(&self.disk, &self.options.dir, &identity) {
            Ok(()) => {
                wanted.expect_identity(&[&identity]);
                self.identity = identity;
                Ok(true)
            }
            Err(error) if error.is_full() => Ok(false),
            Err(error) => {
                let error = io::Error::other(error.to_string());
                Err(StorageError::new("raising the format of", &self.options.dir)(error))
            }
        }
    }

    /// Removes what two durable snapshots have made unnecessary.
    fn remove_covered(&mut self) -> Result<(), StorageError> {
        let markers = self.log.markers();
        if let Err(error) = self.snapshots.remove_older(markers) {
            let (operation, file, source) = match error {
                SnapshotError::Io { operation, file, source } => (operation, file, source),
                other => ("removing", self.snapshots.path(LogId::ZERO), io::Error::other(other.to_string())),
            };
            return Err(StorageError::new(operation, &file)(source));
        }
        if let [older, _] = markers {
            let index = older.last.index;
            self.log.remove_through(index)?;
        }
        self.remove_condemned()
    }

    /// Removes the damaged segments that the newest snapshot covers, and those before them. The
    /// older snapshot is of no use then: the log does not reach back to it any more.
    fn remove_condemned(&mut self) -> Result<(), StorageError> {
        let Some(newest) = self.log.markers().last().map(|marker| marker.last.index) else { return Ok(()) };
        for file in std::mem::take(&mut self.condemned) {
            match self.log.highest_up_to(&file) {
                Some(highest) if highest <= newest => self.log.remove_damaged(&file)?,
                Some(_) => self.condemned.push(file),
                // There was no room yet to go on elsewhere.
                None if self.log.is_active(&file) => self.condemned.push(file),
                None => {}
            }
        }
        Ok(())
    }

    fn save(&self, save: SnapshotSave) -> StorageEvent {
        let last = save.last;
        match self.snapshots.save(save) {
            Ok(meta) => StorageEvent::SnapshotSaved(Box::new(meta)),
            Err(error) => StorageEvent::SnapshotFailed { last, reason: error.to_string() },
        }
    }

    fn poll(&mut self, events: &mut Vec<StorageEvent>) {
        events.extend(self.log.poll_spares().map(|news| match news {
            SpareNews::Full(full) => StorageEvent::DiskFull(full),
            SpareNews::Failed(reason) => StorageEvent::SegmentNotReady { reason },
        }));
        let is_jammed = self.jam.is_some();
        if std::mem::replace(&mut self.jam_is_told, is_jammed) != is_jammed {
            events.push(StorageEvent::LogFull(is_jammed));
        }
    }

    fn unless_failed<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        run(self).inspect_err(|error| self.failed = Some(error.clone()))
    }
}

impl<D: Disk> fmt::Debug for Storage<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("identity", &self.identity)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Writes that are staged, and for which the disk has no room.
struct Jam {
    /// The last of them. Its receipt stands for all.
    last: LogWrite,
    /// What became of the snapshot whose chunk one of these writes holds.
    verdict: SnapshotVerdict,
}

/// What became of a snapshot of which a chunk was in a write.
enum SnapshotVerdict {
    None,
    Installed(Box<(SnapshotMeta, Store)>),
    Refused(Box<UnstoredSnapshot>),
}
