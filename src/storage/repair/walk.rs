//! Reads a damaged log.
//!
//! The log is a row of batches. Damage cuts it into *runs*. Each batch names the state that the log
//! adds up to after it (term, vote, last entry). So what is behind the damage tells how the log
//! ended, whatever is lost in between. What a run says of entries is final only as far as it says
//! that they were committed: a later write, which may be lost, can have replaced the others. Those
//! are of use to a person who accepts a loss. The last run is final whole.

use crate::raft::{ClusterId, Entry, EntryKind, LogId, LogIndex, Membership, SnapshotMeta, StoreId};
use crate::storage::batch::{BatchHeader, BatchMark, seal_batch};
use crate::storage::disk::Disk;
use crate::storage::error::{Damage, OpenError, says_nothing_of_the_disk};
use crate::storage::record::Record;
use crate::storage::repair::blocks::{Unreadable, read_readable};
use crate::storage::repair::run::{Rest, Run};
use crate::storage::scan::{ScanEnd, Scanned, ScannedBatch, Sectors, read_batch, read_regardless};
use crate::storage::sector::{BLOCK_BYTES, SECTOR_BYTES, SectorPlace, SectorState};
use crate::storage::segment::{SegmentHeader, segment_name};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a damaged log says.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Whose it is, as its first segment says that can be read.
    pub(super) owner: Option<(ClusterId, StoreId)>,
    /// What is wrong with it.
    pub(super) damages: Vec<Damage>,
    /// Entries that are certainly part of the log.
    pub(super) certain: BTreeMap<LogIndex, Entry>,
    /// Entries that were part of it before damage, and of which that is not known any more.
    pub(super) uncertain: Vec<Rest>,
    /// Entries up to here were known to be committed.
    pub(super) commit: LogIndex,
    /// Term, vote and last entry, as the last thing says that can be read.
    pub(super) mark: Option<BatchMark>,
    /// Why that may not be the log's end.
    pub(super) unknown_end: Option<String>,
    /// The newest start of the node that a segment names, and the random numbers of that start and
    /// of those before it.
    pub(super) starts: Option<(u64, Vec<u64>)>,
    /// The memberships that were seen, and where they stand in the log.
    pub(super) memberships: Vec<(LogIndex, Membership)>,
    /// The snapshots whose markers were seen: the log joins them.
    pub(super) markers: Vec<SnapshotMeta>,
}

/// Walks through the segments `paths`, in their order. `owner`: whose they have to be, if that is
/// known.
///
/// # Errors
/// [`OpenError`] if a file may not be read: then nothing is known of it, damaged or not.
pub(super) fn walk<D: Disk>(
    disk: &D,
    paths: &[PathBuf],
    owner: Option<(ClusterId, StoreId)>,
) -> Result<Walked, OpenError> {
    let mut walk = Walk { owner, ..Walk::default() };
    let mut file = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let is_last = number + 1 == paths.len();
        match read_readable(disk, path, &mut file) {
            Ok(unreadable) => walk.note_unreadable(path, unreadable),
            Err(error) if says_nothing_of_the_disk(&error) => {
                return Err(OpenError::io("reading", path)(error));
            }
            Err(error) => {
                walk.lose_segment(path, format!("it cannot be read: {error}"));
                continue;
            }
        }
        match SegmentHeader::read(&file) {
            Ok((header, header_bytes)) => walk.segment(path, &file, &header, header_bytes, is_last),
            Err(error) => walk.lose_segment(path, error.to_string()),
        }
    }
    Ok(walk.finish())
}

#[derive(Default)]
struct Walk {
    walked: Walked,
    owner: Option<(ClusterId, StoreId)>,
    /// The run that is being read; `None` behind damage.
    run: Option<Run>,
    /// Sequence and checksum that the next batch must follow, if the last one is known.
    reached: Option<(u64, u32)>,
    /// Whether the last batch was a seal.
    sealed: bool,
    /// The blocks of the segment that cannot be read.
    unreadable: Vec<Range<u64>>,
}

impl Walk {
    fn damage(&mut self, path: &Path, offset: u64, indices: Option<(u64, u64)>, why: String) {
        let indices = indices.filter(|(first, _)| *first > 0);
        self.walked.damages.push(Damage {
            file: path.to_path_buf(),
            offset,
            first_index: indices.map(|(first, _)| first),
            last_index: indices.map(|(_, last)| last),
            why,
        });
    }

    /// The rest of the segment is read like any other.
    fn note_unreadable(&mut self, path: &Path, unreadable: Option<Unreadable>) {
        self.unreadable.clear();
        let Some(Unreadable { ranges, why }) = unreadable else { return };
        for Range { start, end } in &ranges {
            self.damage(path, *start, None, format!("{} bytes cannot be read: {why}", end - start));
        }
        self.unreadable = ranges;
    }

    /// Nothing of a segment can be used.
    fn lose_segment(&mut self, path: &Path, why: String) {
        self.walked.unknown_end = Some(format!("{} cannot be used: {why}", path.display()));
        self.damage(path, 0, None, why);
        self.end_run();
        self.reached = None;
    }

    /// Damage, or the end: what the run says to be committed is final, the rest is not.
    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        self.walked.commit = self.walked.commit.max(run.commit);
        let (committed, rest) = run.end();
        self.walked.certain.extend(committed);
        self.walked.uncertain.push(rest);
    }

    /// What comes behind damage says what the log adds up to there. What was in it before, and is
    /// not there any more, had been truncated.
    fn note_mark(&mut self, mark: BatchMark, first_index: LogIndex) {
        self.walked.mark = Some(mark);
        self.walked.uncertain.iter_mut().for_each(|rest| rest.cut(first_index, mark.end.index));
    }

    fn segment(
        &mut self,
        path: &Path,
        file: &[u8],
        header: &SegmentHeader,
        header_bytes: usize,
        is_last: bool,
    ) {
        let named = path.file_name().is_some_and(|name| *name == *segment_name(header.first_sequence));
        let owner = (header.cluster, header.store);
        if self.owner.is_some_and(|known| known != owner) || !named {
            return self.lose_segment(path, "it belongs to another node, or has another's name".into());
        }
        self.owner = Some(owner);
        self.walked.owner = Some(owner);
        self.walked.unknown_end = None;
        if self.walked.starts.as_ref().is_none_or(|(known, _)| *known <= header.incarnation) {
            self.walked.starts = Some((header.incarnation, header.nonces.clone()));
        }
        header.markers.iter().for_each(|marker| self.note_marker(marker));
        self.begin_segment(path, header);
        if file.len() as u64 != header.capacity {
            let why = format!("it is {} bytes long, but was made with {}", file.len(), header.capacity);
            self.damage(path, file.len() as u64, None, why.clone());
            if is_last && (file.len() as u64) < header.capacity {
                self.walked.unknown_end = Some(why);
            }
        }
        let sectors = Sectors::new(file, header);
        let mut at = header_bytes as u64;
        self.sealed = false;
        while !self.sealed {
            match self.batch(path, &sectors, at) {
                Some(next) => at = next,
                None => break,
            }
        }
        if is_last {
            self.check_end(path, &sectors, at, header);
        }
    }

    /// A segment begins: it continues the one before, or damage lies between the two. Its header
    /// says what the log before it adds up to.
    fn begin_segment(&mut self, path: &Path, header: &SegmentHeader) {
        let follows = self.reached.is_some_and(|(next, checksum)| {
            let lacks_seal = !self.sealed
                && header.first_sequence == next + 1
                && header.previous == seal_batch(next, checksum).0.checksum;
            lacks_seal || (self.sealed && (header.first_sequence, header.previous) == (next, checksum))
        });
        let agrees = self
            .run
            .as_ref()
            .is_some_and(|run| run.hard_state == header.hard_state && run.last.index == header.last.index);
        if !follows && let Some((next, _)) = self.reached {
            let indices = self.run.as_ref().map(|run| (run.last.index.get() + 1, header.last.index.get()));
            let why = format!("batches {next} to {} before it are missing", header.first_sequence - 1);
            self.damage(path, 0, indices.filter(|(first, last)| first <= last), why);
        }
        if !(follows && agrees) {
            self.end_run();
            self.run = Some(Run::from_header(header));
        }
        self.reached = Some((header.first_sequence, header.previous));
        self.note_mark(BatchMark { hard_state: header.hard_state, end: header.last }, LogIndex::ZERO);
    }

    /// Reads the batch at `at`, or the next one behind it that can be read. Returns where it ends;
    /// `None` if there is none.
    fn batch(&mut self, path: &Path, sectors: &Sectors<'_>, at: u64) -> Option<u64> {
        if at + BLOCK_BYTES as u64 > sectors.length() {
            return None;
        }
        let (sequence, checksum) = self.reached?;
        match read_batch(sectors, &end_at(at, sequence, checksum)) {
            Ok(Scanned::Batch(batch)) => {
                let next = at + batch.header.file_bytes() as u64;
                self.take(path, batch);
                Some(next)
            }
            Ok(Scanned::Nothing) => None,
            Ok(Scanned::Torn { .. }) => self.resume(path, sectors, at, sequence, None),
            Err(fault) => {
                // A batch whose stamps alone are damaged is whole.
                let header = sectors.header_regardless(at).filter(|header| {
                    let is_next = header.sequence == sequence && header.previous == checksum;
                    is_next && at + header.file_bytes() as u64 <= sectors.length()
                });
                let Some(header) = header else {
                    return self.resume(path, sectors, at, sequence, Some((fault.indices, fault.why)));
                };
                self.damage(path, at, fault.indices, fault.why);
                self.take_in_part(path, sectors, at, &header);
                Some(at + header.file_bytes() as u64)
            }
        }
    }

    /// Takes in a batch of which the header can be read, and the records perhaps.
    fn take_in_part(&mut self, path: &Path, sectors: &Sectors<'_>, at: u64, header: &BatchHeader) {
        if let Some(batch) = read_regardless(sectors, at, header) {
            self.take(path, batch);
        } else if *header == seal_batch(header.sequence, header.previous).0 {
            // It is known what a seal says.
            self.sealed = true;
            self.note_header(header);
        } else {
            // Its records are lost, but not what the log adds up to after them.
            if !self.run.as_mut().is_some_and(|run| run.pass(header)) {
                self.end_run();
            }
            self.note_header(header);
        }
    }

    /// Looks for the next batch behind what cannot be read at `at`. If there is none, that is the
    /// end, torn or damaged.
    fn resume(
        &mut self,
        path: &Path,
        sectors: &Sectors<'_>,
        at: u64,
        sequence: u64,
        fault: Option<(Option<(u64, u64)>, String)>,
    ) -> Option<u64> {
        let heads = sectors.written(at + 1).filter(|(_, place)| *place == SectorPlace::Head);
        let found = heads.into_iter().find_map(|(offset, _)| {
            let header = sectors.batch_header(offset)?;
            let fits = header.sequence >= sequence && offset + header.file_bytes() as u64 <= sectors.length();
            fits.then_some((offset, header))
        });
        let (offset, header) = found?;
        let (indices, why) = fault.unwrap_or_else(|| {
            (None, "a batch is not whole, but a later one shows that it was durable".into())
        });
        self.damage(path, at, indices, why);
        self.end_run();
        self.take_in_part(path, sectors, offset, &header);
        Some(offset + header.file_bytes() as u64)
    }

    /// Takes in a batch that is whole.
    fn take(&mut self, path: &Path, batch: ScannedBatch) {
        let ScannedBatch { offset, header, records } = batch;
        self.sealed = matches!(records.last(), Some(Record::Seal(_)));
        let mut run = self.run.take().unwrap_or_else(|| Run::behind_damage(&header, &records));
        let mut applied = Ok(());
        for record in records {
            self.note_record(&record);
            applied = applied.and_then(|()| run.apply(record));
        }
        let applied = applied.and_then(|()| run.check(&header));
        match applied {
            Ok(()) => {
                self.run = Some(run);
                self.note_header(&header);
            }
            Err(why) => {
                self.damage(path, offset, Some((header.first_index, header.last_index)), why);
                self.run = Some(run);
                self.end_run();
                self.note_header(&header);
            }
        }
    }

    fn note_header(&mut self, header: &BatchHeader) {
        self.reached = Some((header.sequence + 1, header.checksum));
        self.walked.commit = self.walked.commit.max(LogIndex::new(header.commit));
        if header.mark != BatchMark::default() {
            self.note_mark(header.mark, LogIndex::new(header.first_index));
        }
    }

    fn note_record(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) if entry.kind() == EntryKind::Membership => {
                if let Ok(membership) = Membership::decode(&entry.data()) {
                    self.walked.memberships.push((entry.index(), membership));
                }
            }
            Record::Snapshot(meta) => self.note_marker(meta),
            _ => {}
        }
    }

    fn note_marker(&mut self, meta: &SnapshotMeta) {
        self.walked.memberships.push((meta.membership_id.index, meta.membership.clone()));
        self.walked.markers.push(meta.clone());
    }

    /// Whether the log may have gone on behind the last batch that can be read.
    fn check_end(&mut self, path: &Path, sectors: &Sectors<'_>, at: u64, header: &SegmentHeader) {
        let doubt = if self.sealed {
            Some("the segment in which the log goes on is missing")
        } else if self.reached.is_none_or(|(next, _)| next <= header.copied_through) {
            Some("batches that were durable when the file got its name are missing")
        } else if at + BLOCK_BYTES as u64 <= sectors.length() {
            match self.end_in_doubt(sectors, at) {
                Ok(None) => None,
                Ok(Some(garbage)) => {
                    let why = "a sector behind the end of the log is damaged; nothing of the log stood there";
                    self.damage(path, garbage, None, why.into());
                    None
                }
                Err(doubt) => Some(doubt),
            }
        } else {
            None
        };
        if let Some(doubt) = doubt {
            self.walked.unknown_end = Some(format!("{} at byte {at}: {doubt}", path.display()));
        }
    }

    /// One batch is in flight at a time, and it begins where the last one ends: at `at`. Says why
    /// one may have stood there that was durable, or else where a damaged sector stands.
    fn end_in_doubt(&self, sectors: &Sectors<'_>, at: u64) -> Result<Option<u64>, &'static str> {
        const UNREADABLE: &str = "a batch stands there that cannot be read";
        let mut behind = sectors.written(at + 1);
        if behind.any(|(_, place)| place == SectorPlace::Head) {
            return Err("batches stand behind it that cannot be read");
        }
        let garbage = sectors.garbage(at + SECTOR_BYTES as u64);
        match sectors.state(at) {
            SectorState::Unwritten => {
                // The first sector of a batch that had been durable would stand here. If it was
                // lost, the block may have been lost with it.
                let is_near = garbage.is_some_and(|place| place < at + BLOCK_BYTES as u64)
                    || self.is_unreadable_near(at);
                let torn = sectors.written(at + 1).next().is_some();
                // A whole batch may stand in the wrong place.
                let is_fill = sectors.garbage_is_damaged_fill(at + SECTOR_BYTES as u64, &self.unreadable);
                if is_near || (garbage.is_some() && (torn || !is_fill)) {
                    Err(UNREADABLE)
                } else {
                    Ok(garbage)
                }
            }
            SectorState::Written(SectorPlace::Head) if garbage.is_none() => {
                // A batch that was not written whole was never acknowledged. One that cannot be
                // read for another reason may have been.
                let (sequence, checksum) = self.reached.unwrap_or_default();
                match read_batch(sectors, &end_at(at, sequence, checksum)) {
                    Ok(Scanned::Torn { to, .. }) if sectors.written(to).next().is_none() => Ok(None),
                    _ => Err(UNREADABLE),
                }
            }
            _ => Err(UNREADABLE),
        }
    }

    /// Of a block that cannot be read nobody knows whether something had been written there. A
    /// batch that reached it would have begun at `at`, and filled every block in between; but what
    /// makes one block unreadable can empty the one beside it. So it stands for fill only if two
    /// blocks that were never written come before it.
    fn is_unreadable_near(&self, at: u64) -> bool {
        let near = at..at + 2 * BLOCK_BYTES as u64;
        self.unreadable.iter().any(|blocks| blocks.start < near.end && near.start < blocks.end)
    }

    fn finish(mut self) -> Walked {
        let end = self.walked.mark.map(|mark| mark.end);
        if let Some(run) = self.run.take() {
            self.walked.commit = self.walked.commit.max(run.commit);
            self.walked.certain.extend(run.entries);
        }
        let end_index = end.map_or(LogIndex::ZERO, |end| end.index);
        self.walked.certain.retain(|index, _| *index <= end_index);
        self.walked.commit = self.walked.commit.min(end_index);
        self.walked
    }
}

fn end_at(offset: u64, next_sequence: u64, last_checksum: u32) -> ScanEnd {
    ScanEnd { offset, next_sequence, last_checksum, sealed: false, torn_to: None }
}

/// Whether the term of an entry is not known.
pub(super) const fn is_unknown(id: LogId) -> bool {
    id.term.get() == 0 && id.index.get() > 0
}
