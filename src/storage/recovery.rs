//! Reads a log directory: every segment in order, the state they add up to, and the tail that is
//! about to be rewritten. Changes nothing.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::raft::{ClusterId, LogIndex, StoreId};
use crate::storage::batch::BatchHeader;
use crate::storage::disk::Disk;
use crate::storage::error::{Damage, OpenError};
use crate::storage::replay::Replay;
use crate::storage::scan::{Fault, Later, ScanEnd, ScannedBatch, scan_segment};
use crate::storage::segment::{
    HeaderError, SegmentHeader, read_whole, read_whole_into, segment_name, segment_sequence,
};
use crate::storage::spare::Room;
use std::fmt;
use std::path::{Path, PathBuf};

/// The formats of segments that are read.
const SEGMENTS: FeatureLevels = FeatureLevels::only(FeatureLevel::UNTOLD);

/// Something that an operator may want to know about a start that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryNote {
    /// The data directory was empty: a new identity was made.
    Created,
    /// An earlier start had been interrupted while it made the directory; it was made anew.
    CreationResumed,
    /// Other users could look into the data directory; now they cannot.
    MadePrivate {
        /// The directory.
        dir: PathBuf,
    },
    /// The last batch had not been written whole, and was therefore never acknowledged. It was cut
    /// off.
    TornTail {
        /// The segment.
        file: PathBuf,
        /// Where the batch started.
        offset: u64,
        /// How much of it there was, bytes.
        bytes: u64,
        /// Where those bytes are kept; `None`: nowhere, since the disk has no room for them.
        kept: Option<PathBuf>,
    },
    /// The newest snapshot is damaged; an older one, and the log from there, were used.
    OlderSnapshot {
        /// The damaged file.
        damaged: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The one that was used.
        used: PathBuf,
    },
    /// Segments are missing that only the newest snapshot covers. The older one is of no use any
    /// more.
    Gap {
        /// Where, and what is missing.
        gap: Damage,
        /// The sound segments before it.
        before: usize,
        /// Where these are kept.
        kept: PathBuf,
    },
    /// The state and log that were recovered.
    Recovered {
        /// Bytes of log read.
        bytes: u64,
        /// Segments.
        segments: usize,
        /// First and last index of the entries recovered, if there are any.
        indices: Option<(u64, u64)>,
        /// The snapshot's index, if there is one.
        snapshot: Option<u64>,
    },
}

impl RecoveryNote {
    /// Whether it tells of a disk that has lost something. A crash brings about all the others.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::OlderSnapshot { .. } | Self::Gap { .. })
    }
}

impl fmt::Display for RecoveryNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("made a new data directory"),
            Self::CreationResumed => {
                f.write_str("made the data directory anew: an earlier start had been interrupted")
            }
            Self::MadePrivate { dir } => {
                write!(f, "other users could look into {}; took that right away (mode 0700)", dir.display())
            }
            Self::TornTail { file, offset, bytes, kept } => {
                write!(
                    f,
                    "cut off {bytes} bytes of a batch that was never acknowledged, at byte {offset} of {}; ",
                    file.display()
                )?;
                match kept {
                    Some(kept) => write!(f, "they are kept in {}", kept.display()),
                    None => f.write_str("they are not kept, since the disk has no room for them"),
                }
            }
            Self::OlderSnapshot { damaged, why, used } => write!(
                f,
                "the snapshot {} is damaged ({why}); used {} and the log since",
                damaged.display(),
                used.display()
            ),
            Self::Gap { gap, before, kept } => write!(
                f,
                "{}; the newest snapshot covers them, but the older one is of no use without them; the segments before them ({before}) are kept in {}",
                gap.in_words(),
                kept.display()
            ),
            Self::Recovered { bytes, segments, indices, snapshot } => {
                write!(f, "recovered {bytes} bytes of log in {segments} segments")?;
                if let Some((first, last)) = indices {
                    write!(f, ", entries {first} to {last}")?;
                }
                if let Some(index) = snapshot {
                    write!(f, ", on the snapshot at {index}")?;
                }
                Ok(())
            }
        }
    }
}

/// A segment that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedSegment {
    pub(crate) path: PathBuf,
    pub(crate) capacity: u64,
    /// This life and those before it, for the next one.
    pub(crate) lives: Vec<u64>,
    /// How its room was taken.
    pub(crate) room: Room,
    /// The highest index among its entries; 0 if there are none.
    pub(crate) max_index: u64,
}

/// The last segment, about to be rewritten.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    /// Its batches, unstamped and without padding, without a seal.
    pub(crate) batches: Vec<Vec<u8>>,
    pub(crate) max_index: u64,
    /// Offset and bytes of a torn batch.
    pub(crate) torn: Option<(u64, Vec<u8>)>,
    pub(crate) next_sequence: u64,
    pub(crate) last_checksum: u32,
}

/// What a log directory holds.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub(crate) replay: Replay,
    pub(crate) sealed: Vec<SealedSegment>,
    pub(crate) tail: Tail,
    /// Where the earliest segment of an unbroken sequence begins, when segments before it are
    /// missing.
    pub(crate) gap: Option<Damage>,
    /// Segments before the gap. None of them is needed if a snapshot covers the gap.
    pub(crate) orphans: Vec<PathBuf>,
    /// The segment in which the log was about to go on, still without a batch. It is removed once
    /// the tail is rewritten.
    pub(crate) dropped: Option<PathBuf>,
    pub(crate) bytes: u64,
}

impl Recovered {
    /// The gap, if no removal leaves it: only segments that the older of the two newest snapshots
    /// covers are removed, unless they are damaged.
    pub(crate) fn loss(&self, replay: &Replay) -> Option<&Damage> {
        let older = replay.markers.iter().rev().nth(1).map_or(LogIndex::ZERO, |marker| marker.last.index);
        self.gap.as_ref().filter(|_| replay.start > older)
    }
}

/// Names of the segments in `wal_dir`, in order.
pub(crate) fn segment_names<D: Disk>(disk: &D, wal_dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let names = disk.list(wal_dir).map_err(OpenError::io("listing", wal_dir))?;
    let mut segments: Vec<(u64, PathBuf)> = names
        .into_iter()
        .filter_map(|name| segment_sequence(&name).map(|sequence| (sequence, wal_dir.join(name))))
        .collect();
    segments.sort();
    Ok(segments.into_iter().map(|(_, path)| path).collect())
}

/// Reads the whole log. `None` if there is no segment at all.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    wal_dir: &Path,
    cluster: ClusterId,
    store: StoreId,
) -> Result<Option<Recovered>, OpenError> {
    let paths = segment_names(disk, wal_dir)?;
    let mut reading = Reading::default();
    let mut dropped = None;
    let mut file = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        read_whole_into(disk, path, &mut file).map_err(OpenError::io("reading", path))?;
        let (header, header_bytes) = read_header(&file, path)?;
        if header.cluster != cluster || header.store != store {
            let why = format!("it belongs to store {} of cluster {}", header.store, header.cluster);
            return Err(damaged(path, &Fault { offset: 0, indices: None, why }, None));
        }
        let later = look_ahead(disk, &paths[number + 1..])?;
        if reading.segment(path, &file, header, header_bytes, later)? {
            dropped = paths.last().filter(|_| later != Later::None).cloned();
            break;
        }
    }
    let Reading { replay, mut sealed, mut tail, gap, orphans, bytes, .. } = reading;
    sealed.pop();
    if let (Some(path), Some(tail)) = (&dropped, &mut tail) {
        // The newest start may have written nothing but this segment's header.
        read_whole_into(disk, path, &mut file).map_err(OpenError::io("reading", path))?;
        let (newest, _) = read_header(&file, path)?;
        if newest.incarnation > tail.header.incarnation {
            tail.header.incarnation = newest.incarnation;
            tail.header.nonces = newest.nonces;
        }
    }
    Ok(tail.map(|tail| Recovered { replay, sealed, tail, gap, orphans, dropped, bytes }))
}

/// What the segments after one tell about it.
pub(crate) fn look_ahead<D: Disk>(disk: &D, rest: &[PathBuf]) -> Result<Later, OpenError> {
    let path = match rest {
        [] => return Ok(Later::None),
        [last] => last,
        _ => return Ok(Later::Written),
    };
    let file = read_whole(disk, path).map_err(OpenError::io("reading", path))?;
    let (header, header_bytes) = read_header(&file, path)?;
    let mut batches = 0;
    let scanned = scan_segment(&file, &header, header_bytes, Later::None, &mut |_| {
        batches += 1;
        Ok(())
    });
    let nothing = scanned.is_ok_and(|end| batches == 0 && end.torn_to.is_none());
    Ok(if nothing { Later::Empty(header.first_sequence, header.previous) } else { Later::Written })
}

/// Reads a segment's header, or says why it cannot.
pub(crate) fn read_header(file: &[u8], path: &Path) -> Result<(SegmentHeader, usize), OpenError> {
    SegmentHeader::read(file).map_err(|error| match error {
        HeaderError::OtherFormat(found) => OpenError::other_format(path, found, SEGMENTS),
        HeaderError::Damaged(why) => damaged(path, &Fault { offset: 0, indices: None, why }, None),
    })
}

#[derive(Default)]
struct Reading {
    replay: Replay,
    sealed: Vec<SealedSegment>,
    /// The last segment read, as long as it is not sealed.
    tail: Option<Tail>,
    /// Next sequence and last checksum, after the segments read so far.
    reached: Option<(u64, u32)>,
    gap: Option<Damage>,
    orphans: Vec<PathBuf>,
    bytes: u64,
}

impl Reading {
    fn segment(
        &mut self,
        path: &Path,
        file: &[u8],
        header: SegmentHeader,
        header_bytes: usize,
        later: Later,
    ) -> Result<bool, OpenError> {
        self.begin(path, &header)?;
        let known = self.replay.last_index().get() + 1;
        let mut max_index = 0;
        let mut extents = Vec::new();
        let replay = &mut self.replay;
        let mut sink = |batch: ScannedBatch| {
            let ScannedBatch { offset, header, records } = batch;
            max_index = max_index.max(header.last_index);
            extents.push((offset, header));
            for record in records {
                let indices = Some((header.first_index, header.last_index));
                replay.apply(record).map_err(|why| Fault { offset, indices, why })?;
            }
            let noted = replay.note_commit(LogIndex::new(header.commit));
            noted.map_err(|why| Fault { offset, indices: None, why })?;
            replay.check_mark(&header).map_err(|why| Fault { offset, indices: None, why })
        };
        let scanned = scan_segment(file, &header, header_bytes, later, &mut sink);
        let end = scanned.map_err(|fault| {
            damaged(path, &fault, Some(self.replay.last_index().get().max(known - 1) + 1))
        })?;
        self.bytes += end.offset;
        self.reached = Some((end.next_sequence, end.last_checksum));
        let mut lives = header.former_lives.clone();
        lives.push(header.life);
        let capacity = header.capacity;
        // It is not known any more how its room was taken. Most of it has been written.
        let room = Room::Filled;
        let sealed = SealedSegment { path: path.to_path_buf(), capacity, lives, room, max_index };
        // A seal with nothing after it may be in the page cache alone, like the end of any tail: it
        // is rewritten too.
        let is_tail = match later {
            Later::Empty(first, _) => !end.sealed || first == end.next_sequence,
            Later::None => true,
            Later::Written => false,
        };
        self.tail = is_tail.then(|| tail(path, file, header, extents, max_index, &end));
        self.sealed.push(sealed);
        Ok(is_tail)
    }

    /// Checks that the segment continues the one before it, or is the first that is left.
    fn begin(&mut self, path: &Path, header: &SegmentHeader) -> Result<(), OpenError> {
        let fault = |why: String| damaged(path, &Fault { offset: 0, indices: None, why }, None);
        if path.file_name().is_none_or(|name| *name != *segment_name(header.first_sequence)) {
            return Err(fault(format!(
                "its first batch is {}, which is not its name",
                header.first_sequence
            )));
        }
        match self.reached {
            None => self.replay = Replay::from_header(header),
            Some((next, checksum)) if header.first_sequence == next => {
                if header.previous != checksum {
                    return Err(fault("it does not continue the segment before it".into()));
                }
                if header.hard_state != self.replay.hard_state {
                    return Err(fault(
                        "term and vote at its start are not those of the segment before it".into(),
                    ));
                }
            }
            Some((next, _)) => {
                // Segments that the older of two snapshots made unnecessary are removed from the
                // oldest on, but a crash may undo any of these removals: what is before the gap is
                // then as unnecessary as what is missing. [`Recovered::loss`] tells that from
                // another gap.
                self.gap = Some(Damage {
                    file: path.to_path_buf(),
                    offset: 0,
                    first_index: Some(self.replay.last_index().get() + 1),
                    last_index: Some(header.last.index.get()),
                    why: format!("batches {next} to {} before it are missing", header.first_sequence - 1),
                });
                self.orphans.extend(self.sealed.drain(..).map(|segment| segment.path));
                self.replay = Replay::from_header(header);
            }
        }
        Ok(())
    }
}

fn tail(
    path: &Path,
    file: &[u8],
    header: SegmentHeader,
    mut extents: Vec<(u64, BatchHeader)>,
    max_index: u64,
    end: &ScanEnd,
) -> Tail {
    let part = |from: u64, to: u64| {
        let to = usize::try_from(to).expect("the file is in memory");
        &file[usize::try_from(from).expect("the file is in memory")..to]
    };
    if end.sealed {
        extents.pop();
    }
    let batches: Vec<Vec<u8>> = extents
        .iter()
        .map(|(offset, header)| header.unstamp(part(*offset, offset + header.file_bytes() as u64)))
        .collect();
    Tail {
        path: path.to_path_buf(),
        batches,
        max_index,
        torn: end.torn_to.map(|to| (end.offset, part(end.offset, to).to_vec())),
        next_sequence: header.first_sequence + extents.len() as u64,
        last_checksum: extents.last().map_or(header.previous, |(_, batch)| batch.checksum),
        header,
    }
}

/// Names the file and the indices: those in the batch's header if it could be read, else all from
/// `next_index` on.
pub(crate) fn damaged(path: &Path, fault: &Fault, next_index: Option<u64>) -> OpenError {
    let (first_index, last_index) = match fault.indices {
        Some((first, last)) if first > 0 => (Some(first), Some(last)),
        _ => (next_index, None),
    };
    OpenError::Damaged(Box::new(Damage {
        file: path.to_path_buf(),
        offset: fault.offset,
        first_index,
        last_index,
        why: fault.why.clone(),
    }))
}
