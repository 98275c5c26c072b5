//! Reads again what is at rest: sealed segments of the log, and snapshots. Bits that turn on a disk
//! are found while the state in memory is sound, and not at the start that needs them. So are files
//! that somebody has removed, the segment that is being written among them, and an identity that is
//! not this directory's any more.
//!
//! Reads only. One file at a time, piece by piece: the caller says before each piece whether and
//! when it may be read.

use crate::raft::{ClusterId, LogId, StoreId};
use crate::storage::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::{OpenError, SnapshotError, says_nothing_of_the_disk};
use crate::storage::own_notes::OwnNotes;
use crate::storage::record::Record;
use crate::storage::scan::decode_records;
use crate::storage::sector::{BLOCK_BYTES, Life, SECTOR_BYTES, SectorPlace, SectorState, classify, unstamp};
use crate::storage::segment::{SegmentHeader, segment_sequence};
use crate::storage::snapshots::{SnapshotFiles, snapshot_id};
use crate::storage::wanted::WantedFiles;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that are read at once where nothing is written.
const PIECE_BYTES: u64 = 256 << 10;
/// A header is in the first bytes of a segment, at most so many.
const HEADER_BYTES_MAX: u64 = 2 << 20;

/// Asked before a piece of this many bytes is read; it may wait. `false` ends the reading.
pub type Pace<'p> = &'p mut dyn FnMut(u64) -> bool;

/// Reads the files of one data directory again, one after the other.
pub struct Scrubber<D: Disk> {
    disk: D,
    wal_dir: PathBuf,
    snapshots: SnapshotFiles<D>,
    owner: (ClusterId, StoreId),
    /// What has to be there.
    wanted: WantedFiles,
    /// Files of this pass that are still to be read.
    left: VecDeque<PathBuf>,
    /// Files that were found damaged once. A file may be replaced or written anew while it is read,
    /// so only what is found twice is damage.
    suspects: BTreeSet<PathBuf>,
}

/// What one step has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// The file is as it was written, or is not needed any more.
    Sound(PathBuf),
    /// It is damaged, or gone.
    Damaged(ScrubDamage),
    /// It seems to be damaged or gone. It has to be read once more, a little later.
    Unsure(PathBuf),
    /// It could not be read, for a reason that says nothing of what is in it, which is given.
    Unread(PathBuf, String),
    /// The reading was ended.
    Stopped,
}

/// Damage to a file at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubDamage {
    /// The file.
    pub file: PathBuf,
    /// The last entry of the snapshot that is in it; `None`: it is a segment of the log, or a note.
    pub snapshot: Option<LogId>,
    /// What is wrong.
    pub why: String,
}

/// Why a file is not sound, or was not read.
enum Fault {
    /// Damaged, and how.
    Damaged(String),
    /// It could not be read now, and why.
    Unread(String),
    /// The caller ended the reading.
    Stopped,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Self::Damaged("it is gone".to_owned())
        } else if says_nothing_of_the_disk(&error) {
            Self::Unread(error.to_string())
        } else {
            Self::Damaged(format!("it cannot be read: {error}"))
        }
    }
}

impl<D: Disk> Scrubber<D> {
    pub(crate) fn new(
        disk: D,
        wal_dir: PathBuf,
        snapshots: SnapshotFiles<D>,
        owner: (ClusterId, StoreId),
        wanted: WantedFiles,
    ) -> Self {
        Self { disk, wal_dir, snapshots, owner, wanted, left: VecDeque::new(), suspects: BTreeSet::new() }
    }

    /// Begins a pass over all files that have to be at rest now. Returns how many bytes they have.
    pub fn begin(&mut self) -> u64 {
        self.left = self.at_rest().into();
        let bytes = |file: &PathBuf| self.disk.open(file).and_then(|file| file.len()).unwrap_or(0);
        self.left.iter().map(bytes).sum()
    }

    /// Reads the next file of the pass; `None` at its end.
    pub fn next(&mut self, pace: Pace<'_>) -> Option<Scrubbed> {
        let file = self.left.pop_front()?;
        Some(self.check(&file, pace))
    }

    /// Files that have to be there, and that their directories do not list, and the notes that say
    /// whose directory this is, if they do not. Costs little: nothing else is read.
    ///
    /// # Errors
    /// [`OpenError`] if a directory cannot be listed.
    pub fn missing(&self) -> Result<Vec<PathBuf>, OpenError> {
        let mut wanted = self.at_rest();
        wanted.extend(self.wanted.active());
        let mut there = BTreeSet::new();
        for dir in [&self.wal_dir, self.snapshots.dir()] {
            match self.disk.list(dir) {
                Ok(names) => there.extend(names.into_iter().map(|name| dir.join(name))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(OpenError::io("listing", dir)(error)),
            }
        }
        wanted.retain(|file| !there.contains(file) && self.is_wanted(file));
        if let Some(notes) = self.wanted.notes() {
            wanted.extend(notes.files().filter(|note| !matches!(notes.fault(&self.disk, note), Ok(None))));
        }
        Ok(wanted)
    }

    /// Reads one file.
    pub fn check(&mut self, file: &Path, pace: Pace<'_>) -> Scrubbed {
        let snapshot = snapshot_of(file);
        let notes = self.wanted.notes().filter(|notes| notes.has(file));
        let read = match (notes, snapshot) {
            (Some(notes), _) => self.note(&notes, file),
            (None, Some(last)) => self.snapshot(last, pace),
            (None, None) if self.wanted.active().as_deref() == Some(file) => self.is_there(file),
            (None, None) => self.segment(file, pace),
        };
        match read {
            Err(Fault::Stopped) => Scrubbed::Stopped,
            Ok(()) => {
                self.suspects.remove(file);
                Scrubbed::Sound(file.to_path_buf())
            }
            // It may have been removed, or replaced, while it was read.
            Err(_) if !self.is_wanted(file) => {
                self.suspects.remove(file);
                Scrubbed::Sound(file.to_path_buf())
            }
            Err(Fault::Unread(why)) => Scrubbed::Unread(file.to_path_buf(), why),
            Err(Fault::Damaged(_)) if self.suspects.insert(file.to_path_buf()) => {
                Scrubbed::Unsure(file.to_path_buf())
            }
            Err(Fault::Damaged(why)) => {
                Scrubbed::Damaged(ScrubDamage { file: file.to_path_buf(), snapshot, why })
            }
        }
    }

    /// The files that are at rest.
    fn at_rest(&self) -> Vec<PathBuf> {
        let (mut files, snapshots) = self.wanted.at_rest();
        files.extend(snapshots.into_iter().map(|last| self.snapshots.path(last)));
        files
    }

    fn is_wanted(&self, file: &Path) -> bool {
        match snapshot_of(file) {
            Some(last) => self.wanted.has_snapshot(last),
            None => self.wanted.has_segment(file) || self.wanted.has_note(file),
        }
    }

    /// The segment that is being written is not read, but it has to be there.
    fn is_there(&self, file: &Path) -> Result<(), Fault> {
        if self.disk.exists(file)? { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound).into()) }
    }

    fn note(&self, notes: &OwnNotes, file: &Path) -> Result<(), Fault> {
        notes.fault(&self.disk, file)?.map_or(Ok(()), |why| Err(Fault::Damaged(why)))
    }

    fn snapshot(&self, last: LogId, pace: Pace<'_>) -> Result<(), Fault> {
        match self.snapshots.verify(last, pace) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::Stopped),
            Err(SnapshotError::Io { source, .. }) => Err(source.into()),
            Err(error) => Err(Fault::Damaged(error.to_string())),
        }
    }

    /// A sealed segment: whole batches, each of which continues the one before it, a seal, and
    /// behind it nothing that was written in this life of the file.
    fn segment(&self, path: &Path, pace: Pace<'_>) -> Result<(), Fault> {
        let file = self.disk.open(path)?;
        file.forget_cached();
        let length = file.len()?;
        let (header, used) = self.header(&file, path, pace)?;
        if length != header.capacity {
            let why = format!("it is {length} bytes long, but was made with {}", header.capacity);
            return Err(Fault::Damaged(why));
        }
        let at_rest = AtRest { file: &file, length, life: header.life(), former: header.former() };
        let mut at = used;
        let mut chain = (header.first_sequence, header.previous);
        loop {
            let (batch, is_seal) = at_rest.batch(at, chain, pace)?;
            at += batch.file_bytes() as u64;
            chain = (batch.sequence + 1, batch.checksum);
            if is_seal {
                return at_rest.nothing_from(at, pace);
            }
        }
    }

    fn header(&self, file: &D::File, path: &Path, pace: Pace<'_>) -> Result<(SegmentHeader, u64), Fault> {
        let mut wanted = BLOCK_BYTES as u64;
        let (header, used) = loop {
            let start = read(file, 0, wanted, pace)?;
            match SegmentHeader::read(&start) {
                Ok(read) => break read,
                // It may be longer than what was read.
                Err(_) if wanted < HEADER_BYTES_MAX && start.len() as u64 == wanted => wanted *= 8,
                Err(why) => return Err(Fault::Damaged(why.to_string())),
            }
        };
        let name = path.file_name().and_then(|name| segment_sequence(Path::new(name)));
        if (header.cluster, header.store) != self.owner || name != Some(header.first_sequence) {
            return Err(Fault::Damaged("its header is another segment's".into()));
        }
        Ok((header, used as u64))
    }
}

/// The last entry of the snapshot that a file of this name holds; `None`: it holds a segment.
fn snapshot_of(file: &Path) -> Option<LogId> {
    file.file_name().and_then(|name| snapshot_id(Path::new(name)))
}

/// A sealed segment that is being read.
struct AtRest<'f, F> {
    file: &'f F,
    length: u64,
    life: Life,
    former: Vec<Life>,
}

impl<F: DiskFile> AtRest<'_, F> {
    /// The batch at `at`, which continues the one with this sequence and checksum, and whether it
    /// is a seal.
    fn batch(
        &self,
        at: u64,
        (sequence, previous): (u64, u32),
        pace: Pace<'_>,
    ) -> Result<(BatchHeader, bool), Fault> {
        let damaged = |why: String| Fault::Damaged(format!("at byte {at}: {why}"));
        if at + BLOCK_BYTES as u64 > self.length {
            return Err(damaged("the segment ends without its seal".into()));
        }
        let first = read(self.file, at, BLOCK_BYTES as u64, pace)?;
        self.is_written(&first, at, at)?;
        let header = BatchHeader::decode(&unstamp(&first[..SECTOR_BYTES]))
            .map_err(|error| damaged(error.to_string()))?;
        if (header.sequence, header.previous) != (sequence, previous) {
            return Err(damaged("the batch does not continue the one before it".into()));
        }
        let length = header.file_bytes() as u64;
        if at + length > self.length {
            return Err(damaged("the batch reaches beyond the end of the file".into()));
        }
        let mut sectors = first;
        if length > BLOCK_BYTES as u64 {
            let rest = read(self.file, at + BLOCK_BYTES as u64, length - BLOCK_BYTES as u64, pace)?;
            self.is_written(&rest, at + BLOCK_BYTES as u64, at)?;
            sectors.extend_from_slice(&rest);
        }
        let used = BATCH_HEADER_BYTES + header.payload_bytes as usize;
        if unstamp(&sectors)[used..].iter().any(|byte| *byte != 0) {
            return Err(damaged("the fill behind the batch is not as it was".into()));
        }
        let payload = Bytes::from(header.unstamp(&sectors)).split_off(BATCH_HEADER_BYTES);
        if crate::codec::checksum(&payload) != header.payload_checksum {
            return Err(damaged("the records of the batch do not match their checksum".into()));
        }
        let records = decode_records(payload).map_err(|error| damaged(error.to_string()))?;
        Ok((header, matches!(records.last(), Some(Record::Seal(_)))))
    }

    /// Whether all of these sectors, from byte `from` on, were written for the batch at `batch`.
    fn is_written(&self, sectors: &[u8], from: u64, batch: u64) -> Result<(), Fault> {
        for (at, sector) in (from..).step_by(SECTOR_BYTES).zip(sectors.chunks(SECTOR_BYTES)) {
            let place = if at == batch { SectorPlace::Head } else { SectorPlace::Body };
            if classify(sector, at, self.life, &self.former) != SectorState::Written(place) {
                return Err(Fault::Damaged(format!("the sector at byte {at} does not belong to its batch")));
            }
        }
        Ok(())
    }

    /// Nothing was written in this life from byte `from` on.
    fn nothing_from(&self, from: u64, pace: Pace<'_>) -> Result<(), Fault> {
        let mut at = from;
        while at < self.length {
            let piece = read(self.file, at, PIECE_BYTES.min(self.length - at), pace)?;
            for (at, sector) in (at..).step_by(SECTOR_BYTES).zip(piece.chunks(SECTOR_BYTES)) {
                if classify(sector, at, self.life, &self.former) != SectorState::Unwritten {
                    let why = format!("the sector at byte {at}, behind the seal, is not as it was");
                    return Err(Fault::Damaged(why));
                }
            }
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// Reads `length` bytes, or what is there of them.
fn read<F: DiskFile>(file: &F, offset: u64, length: u64, pace: Pace<'_>) -> Result<Vec<u8>, Fault> {
    if !pace(length) {
        return Err(Fault::Stopped);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let count = file.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    if count == 0 {
        return Err(Fault::Damaged(format!("it ends at byte {offset}")));
    }
    Ok(bytes)
}

impl<D: Disk> fmt::Debug for Scrubber<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("left", &self.left.len()).finish_non_exhaustive()
    }
}
