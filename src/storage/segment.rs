//! Segment files: their header, their names, and how one comes to be.

use crate::codec::{COUNTER_MAX, Reader, Writer, checksum_parts, from_bytes, to_bytes};
use crate::raft::{ClusterId, HardState, LogId, SnapshotMeta, StoreId};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::{StorageError, is_full};
use crate::storage::format::FORMAT_VERSION;
use crate::storage::sector::{
    BLOCK_BYTES, Life, SECTOR_BYTES, SectorPlace, SectorState, classify, file_bytes_for, stamp_into, unstamp,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::Path;

/// Starts whose random numbers a header keeps: a peer that has missed fewer starts can tell whether
/// this log is the one it knew.
pub(crate) const NONCES_KEPT: usize = 16;

const MAGIC: &[u8; 8] = b"ISlogseg";
/// Magic, version u32, body length u32, life u64, checksum u32.
const FIXED_BYTES: usize = 28;
const BODY_BYTES_MAX: usize = 1 << 20;
const FILL_BYTES: usize = 1 << 20;
/// Room for batches in a segment that is made on a disk without room for more.
const NARROW_ROOM_BYTES: u64 = 1 << 20;

/// What a segment says about itself and about the log before it. Written and synced before the file
/// gets its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentHeader {
    /// Identifies this use of the file. It is not in the body, since it is needed to check the
    /// sectors.
    #[serde(skip)]
    pub(crate) life: u64,
    /// The cluster it belongs to.
    pub(crate) cluster: ClusterId,
    /// The data directory it belongs to.
    pub(crate) store: StoreId,
    /// Starts of this node, counting the one that made the file.
    pub(crate) incarnation: u64,
    /// The random numbers of that start and of those before it, newest first, at most
    /// [`NONCES_KEPT`].
    pub(crate) nonces: Vec<u64>,
    /// Length of the file, bytes: filled when it gets its name.
    pub(crate) capacity: u64,
    /// Sequence of its first batch.
    pub(crate) first_sequence: u64,
    /// Checksum of the batch before that one.
    pub(crate) previous: u32,
    /// Batches up to here were in the file, synced, when it got its name: they cannot be torn.
    pub(crate) copied_through: u64,
    /// Lives of the file before this one; their bytes may still stand where this life has not
    /// written yet.
    pub(crate) former_lives: Vec<u64>,
    /// Term and vote before the first batch.
    pub(crate) hard_state: HardState,
    /// The log's last entry before the first batch.
    pub(crate) last: LogId,
    /// Markers of the snapshots kept, oldest first, before the first batch.
    pub(crate) markers: Vec<SnapshotMeta>,
}

/// Why a header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It is of another format than this program's: of this version.
    OtherFormat(u32),
    /// Damaged, and how.
    Damaged(String),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherFormat(version) => write!(f, "its header claims format version {version}"),
            Self::Damaged(why) => f.write_str(why),
        }
    }
}

impl SegmentHeader {
    pub(crate) fn life(&self) -> Life {
        Life::new(self.life)
    }

    pub(crate) fn former(&self) -> Vec<Life> {
        self.former_lives.iter().copied().map(Life::new).collect()
    }

    /// Appends the header as stamped sectors for the start of the file.
    pub(crate) fn stamp_header_into(&self, out: &mut Vec<u8>) {
        let body = to_bytes(self);
        let length = u32::try_from(body.len()).expect("a header is far below 4 GiB");
        let mut fixed = Vec::with_capacity(FIXED_BYTES);
        fixed.extend_from_slice(MAGIC);
        fixed.put_u32(FORMAT_VERSION);
        fixed.put_u32(length);
        fixed.put_u64(self.life);
        let sum = checksum_parts(&[&fixed, &body]);
        fixed.put_u32(sum);
        stamp_into(out, &[&fixed, &body], self.life(), 0);
    }

    /// Reads the header at the start of `file`; with it, the bytes it takes up.
    pub(crate) fn read(file: &[u8]) -> Result<(Self, usize), HeaderError> {
        let damaged = |why: String| HeaderError::Damaged(why);
        let first = unstamp(file.get(..SECTOR_BYTES).ok_or_else(|| damaged("no whole header".into()))?);
        let mut reader = Reader::new(Bytes::from(first));
        let wrong = |error: crate::codec::DecodeError| HeaderError::Damaged(error.to_string());
        if reader.take("segment magic", MAGIC.len()).map_err(wrong)?[..] != MAGIC[..] {
            return Err(damaged("it does not start as a segment of the log".into()));
        }
        let version = reader.u32("segment version").map_err(wrong)?;
        if version != FORMAT_VERSION {
            return Err(HeaderError::OtherFormat(version));
        }
        let length = reader.u32("segment header length").map_err(wrong)? as usize;
        if length > BODY_BYTES_MAX {
            return Err(damaged(format!("its header claims {length} bytes")));
        }
        let number = reader.u64("segment life").map_err(wrong)?;
        let life = Life::new(number);
        let expected = reader.u32("segment header checksum").map_err(wrong)?;
        let used = file_bytes_for(FIXED_BYTES + length);
        let sectors = file.get(..used).ok_or_else(|| damaged("its header is cut short".into()))?;
        let payload = unstamp(sectors);
        let body = &payload[FIXED_BYTES..FIXED_BYTES + length];
        if checksum_parts(&[&payload[..FIXED_BYTES - 4], body]) != expected {
            return Err(damaged("its header does not match its checksum".into()));
        }
        for (at, sector) in (0u64..).step_by(SECTOR_BYTES).zip(sectors.chunks(SECTOR_BYTES)) {
            let place = if at == 0 { SectorPlace::Head } else { SectorPlace::Body };
            if classify(sector, at, life, &[]) != SectorState::Written(place) {
                return Err(damaged(format!("the header's sector at byte {at} does not belong to it")));
            }
        }
        let mut header: Self = from_bytes("segment header", body).map_err(wrong)?;
        header.life = number;
        header.check().map_err(|why| damaged(why.into()))?;
        Ok((header, used))
    }

    /// Numbers that are counted on from must leave room for that.
    fn check(&self) -> Result<(), &'static str> {
        let numbers = [
            self.incarnation,
            self.first_sequence,
            self.copied_through,
            self.hard_state.term.get(),
            self.last.index.get(),
            self.last.term.get(),
        ];
        let markers = self.markers.iter().map(|marker| marker.last.index.get().max(marker.bytes));
        if self.nonces.len() > NONCES_KEPT {
            return Err("its header keeps more starts than any does");
        }
        if self.first_sequence == 0 || numbers.into_iter().chain(markers).any(|number| number > COUNTER_MAX) {
            return Err("a number in its header is beyond any that can be reached");
        }
        Ok(())
    }
}

/// Name of the segment whose first batch has this sequence.
pub(crate) fn segment_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.seg")
}

/// The sequence in a segment's name; `None` if it is another file's.
pub(crate) fn segment_sequence(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// Length of a segment that starts with `used` bytes. The first segments of a log are small, so
/// that a node starts fast. Each is twice as long as what it starts with, up to `segment_bytes`.
pub(crate) fn capacity_for(used: u64, segment_bytes: u64) -> u64 {
    const FIRST_BYTES: u64 = 1 << 20;
    const ROOM_BYTES: u64 = 64 << 10;
    let wanted = (used + ROOM_BYTES).next_power_of_two().max(FIRST_BYTES).min(segment_bytes);
    if wanted < used + ROOM_BYTES / 2 {
        (used + ROOM_BYTES).next_multiple_of(BLOCK_BYTES as u64)
    } else {
        wanted
    }
}

/// Writes zeros to `file` from `from` to `to`, in pieces with a sync after each, so that the log's
/// own syncs do not wait behind one large one. Real zeros: a sync over a block that is only
/// reserved has to update the file's extents too, which makes it about two thirds slower. Stops
/// with `Interrupted` when `stop`, asked before each piece, says so.
pub(crate) fn fill<F: DiskFile>(file: &F, from: u64, to: u64, stop: &dyn Fn() -> bool) -> io::Result<()> {
    let mut at = from;
    while at < to {
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let now = usize::try_from(to - at).unwrap_or(FILL_BYTES).min(FILL_BYTES);
        file.write_zeros_at(now, at)?;
        at += now as u64;
        if at < to {
            file.sync_data()?;
        }
    }
    file.sync_data()
}

/// Takes room for `length` bytes without writing them. Much cheaper than [`fill`], but each sync of
/// a batch then updates the file's extents too. Worth it only for batches so large that this cost
/// does not matter.
pub(crate) fn reserve<F: DiskFile>(file: &F, length: u64, stop: &dyn Fn() -> bool) -> io::Result<()> {
    match file.reserve(length) {
        Ok(()) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => fill(file, 0, length, stop),
        Err(error) => Err(error),
    }
}

/// Makes the segment `header` describes, with `batches` (unstamped, header and records) in it:
/// under a temporary name, filled to its capacity, synced, renamed into place, the directory
/// synced. Replaces a segment of the same name. Sets the header's capacity: a smaller one than
/// usual if there is no room for that. Returns the file and where its next batch goes.
pub(crate) fn build_segment<D: Disk>(
    disk: &D,
    wal_dir: &Path,
    segment_bytes: u64,
    header: &mut SegmentHeader,
    batches: &[Vec<u8>],
) -> Result<(D::File, u64), StorageError> {
    let path = wal_dir.join(segment_name(header.first_sequence));
    let temporary = wal_dir.join(format!("{}.tmp", segment_name(header.first_sequence)));
    let header_bytes = stamped_header(header).len();
    let batch_bytes: usize = batches.iter().map(|batch| file_bytes_for(batch.len())).sum();
    let used = (header_bytes + batch_bytes) as u64;
    header.capacity = capacity_for(used, segment_bytes);
    let narrow = (used + NARROW_ROOM_BYTES).next_multiple_of(BLOCK_BYTES as u64);
    let built = match build_file(disk, &temporary, header, batches, used) {
        Err(error) if is_full(&error.source) && narrow < header.capacity => {
            // A node on a full disk should start all the same: it serves reads, and other members
            // take the writes.
            disk.remove(&temporary).map_err(StorageError::new("removing", &temporary))?;
            header.capacity = narrow;
            build_file(disk, &temporary, header, batches, used)
        }
        built => built,
    };
    let file = built.inspect_err(|_| {
        // Half of it would take the room that the next start needs.
        let _ = disk.remove(&temporary);
    })?;
    disk.rename(&temporary, &path).map_err(StorageError::new("renaming into place", &path))?;
    disk.sync_dir(wal_dir).map_err(StorageError::new("syncing the directory", wal_dir))?;
    Ok((file, used))
}

fn stamped_header(header: &SegmentHeader) -> Vec<u8> {
    let mut image = Vec::new();
    header.stamp_header_into(&mut image);
    image
}

/// Writes header and batches (`used` bytes) into a new file, fills it to its capacity and syncs it.
fn build_file<D: Disk>(
    disk: &D,
    temporary: &Path,
    header: &SegmentHeader,
    batches: &[Vec<u8>],
    used: u64,
) -> Result<D::File, StorageError> {
    let mut image = stamped_header(header);
    let file = disk.create(temporary).map_err(StorageError::new("creating", temporary))?;
    let mut written = 0;
    for batch in batches {
        let offset = written + image.len() as u64;
        stamp_into(&mut image, &[batch], header.life(), offset);
        if image.len() >= FILL_BYTES {
            file.write_at(&image, written).map_err(StorageError::new("writing", temporary))?;
            written += image.len() as u64;
            image.clear();
        }
    }
    file.write_at(&image, written).map_err(StorageError::new("writing", temporary))?;
    fill(&file, used, header.capacity, &|| false).map_err(StorageError::new("filling", temporary))?;
    Ok(file)
}

/// Reads a whole file.
pub(crate) fn read_whole<D: Disk>(disk: &D, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_whole_into(disk, path, &mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file into a buffer that may have held another.
pub(crate) fn read_whole_into<D: Disk>(disk: &D, path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
    let file = disk.open_to_read(path)?;
    let length = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    bytes.resize(length, 0);
    let count = file.read_at(bytes, 0)?;
    bytes.truncate(count);
    Ok(())
}
