//! Reads one segment, and decides whether its end is torn or damaged. This file is where the
//! promise is kept.

use crate::codec::{DecodeError, Reader};
use crate::storage::batch::{BATCH_HEADER_BYTES, BatchHeader, seal_batch};
use crate::storage::record::{Record, decode_record};
use crate::storage::sector::{BLOCK_BYTES, Life, SECTOR_BYTES, SectorPlace, SectorState, classify, unstamp};
use crate::storage::segment::SegmentHeader;
use bytes::Bytes;
use std::ops::Range;

/// A good batch.
#[derive(Clone, Debug)]
pub(crate) struct ScannedBatch {
    /// Where it starts in its file.
    pub(crate) offset: u64,
    pub(crate) header: BatchHeader,
    pub(crate) records: Vec<Record>,
}

/// Damage, before it is known which file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) offset: u64,
    /// Indices of the batch's entries, if its header could be read.
    pub(crate) indices: Option<(u64, u64)>,
    pub(crate) why: String,
}

/// Where a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScanEnd {
    /// After the last good batch.
    pub(crate) offset: u64,
    /// Sequence of the batch that would come next.
    pub(crate) next_sequence: u64,
    /// Checksum of the last good batch.
    pub(crate) last_checksum: u32,
    /// The last good batch is a seal.
    pub(crate) sealed: bool,
    /// A torn batch stands from `offset` to here.
    pub(crate) torn_to: Option<u64>,
}

/// What is known of the segments after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    /// There is none: this one must not be sealed.
    None,
    /// The last segment, without a batch yet, that begins with this sequence after this checksum.
    /// It gets its name before the seal of the one before it is written: the crash may have come
    /// between the two.
    Empty(u64, u32),
    /// There is one with batches in it: this one must be whole.
    Written,
}

/// Hands the segment's batches to `sink`, in order, and says where it ends.
///
/// An end is *torn* if (1) nothing later shows that the batch had been durable, and (2) at least
/// one of its sectors was never written in this life of the file. All else is damage.
pub(crate) fn scan_segment(
    file: &[u8],
    header: &SegmentHeader,
    header_bytes: usize,
    later: Later,
    sink: &mut dyn FnMut(ScannedBatch) -> Result<(), Fault>,
) -> Result<ScanEnd, Fault> {
    if file.len() as u64 != header.capacity {
        let why = format!("it is {} bytes long, but was made with {}", file.len(), header.capacity);
        return Err(Fault { offset: file.len() as u64, indices: None, why });
    }
    let sectors = Sectors::new(file, header);
    let mut end = ScanEnd {
        offset: header_bytes as u64,
        next_sequence: header.first_sequence,
        last_checksum: header.previous,
        sealed: false,
        torn_to: None,
    };
    while !end.sealed && end.offset + BLOCK_BYTES as u64 <= file.len() as u64 {
        match read_batch(&sectors, &end)? {
            Scanned::Batch(batch) => {
                end.offset += batch.header.file_bytes() as u64;
                end.next_sequence += 1;
                end.last_checksum = batch.header.checksum;
                end.sealed = matches!(batch.records.last(), Some(Record::Seal(_)));
                sink(batch)?;
            }
            Scanned::Torn { to, indices } => {
                // One batch is in flight at a time, so bytes written beyond it show that it had
                // been durable. If its length is unknown, only the start of a later batch shows
                // that.
                let later = match indices {
                    Some(_) => sectors.written(to).next(),
                    None => sectors.written(end.offset + 1).find(|(_, place)| *place == SectorPlace::Head),
                };
                if let Some((at, _)) = later {
                    let why = format!("a batch is not whole, but the bytes at {at} show that it was durable");
                    return Err(Fault { offset: end.offset, indices, why });
                }
                end.torn_to = Some(to);
                break;
            }
            Scanned::Nothing => break,
        }
    }
    let fault = |why: &str| Err(Fault { offset: end.offset, indices: None, why: why.into() });
    if end.next_sequence <= header.copied_through {
        return fault("a batch that was durable when the file got its name is not whole");
    }
    let consistent = match later {
        Later::None => !end.sealed,
        Later::Empty(first, previous) => {
            end.sealed
                || (end.next_sequence + 1 == first
                    && seal_batch(end.next_sequence, end.last_checksum).0.checksum == previous)
        }
        Later::Written => end.sealed,
    };
    if !consistent {
        return fault(match (later, end.torn_to) {
            (Later::None, _) => "the segment is sealed, but the one in which the log goes on is missing",
            (_, None) => {
                "the log goes on in a later segment, but this one is not sealed: batches are missing"
            }
            (_, Some(_)) => "a batch is not whole, but a later segment shows that it was durable",
        });
    }
    if end.sealed && sectors.written(end.offset).next().is_some() {
        return fault("the log goes on behind its seal");
    }
    if let Some(at) = sectors.garbage(end.offset) {
        let why = format!("the sector at byte {at} holds what no write of the log, whole or torn, leaves");
        return Err(Fault { offset: at, indices: None, why });
    }
    Ok(end)
}

/// The batches from byte `from` on that are whole by themselves, even if damage stands between
/// them.
pub(crate) fn salvage(file: &[u8], header: &SegmentHeader, from: u64) -> Vec<ScannedBatch> {
    let sectors = Sectors::new(file, header);
    let heads = sectors.written(from).filter(|(_, place)| *place == SectorPlace::Head);
    heads
        .filter_map(|(offset, _)| {
            let header = BatchHeader::decode(&unstamp(sectors.bytes(offset, SECTOR_BYTES))).ok()?;
            let end = ScanEnd {
                offset,
                next_sequence: header.sequence,
                last_checksum: header.previous,
                sealed: false,
                torn_to: None,
            };
            match read_batch(&sectors, &end) {
                Ok(Scanned::Batch(batch)) => Some(batch),
                _ => None,
            }
        })
        .collect()
}

/// What stands where a batch has to start.
pub(crate) enum Scanned {
    /// A good batch.
    Batch(ScannedBatch),
    /// Some sector of the batch was never written.
    Torn {
        /// Where it ends.
        to: u64,
        /// Indices of its entries, if its header could be read.
        indices: Option<(u64, u64)>,
    },
    /// The log ends here.
    Nothing,
}

/// Reads the batch that has to start where `end` is.
pub(crate) fn read_batch(sectors: &Sectors<'_>, end: &ScanEnd) -> Result<Scanned, Fault> {
    let offset = end.offset;
    let fault = |indices, why: String| Err(Fault { offset, indices, why });
    match sectors.state(offset) {
        SectorState::Written(SectorPlace::Head) => {}
        SectorState::Written(SectorPlace::Body) => {
            return fault(None, "a continuation stands where a batch has to start".into());
        }
        SectorState::Garbage => {
            return fault(None, "a sector holds what no write of the log, whole or torn, leaves".into());
        }
        SectorState::Unwritten => {
            // Without its first sector a torn batch's length is unknown: it reaches to the last
            // sector written.
            let last = sectors.written(offset + 1).last();
            return Ok(last.map_or(Scanned::Nothing, |(at, _)| Scanned::Torn {
                to: at + SECTOR_BYTES as u64,
                indices: None,
            }));
        }
    }
    let header = match BatchHeader::decode(&unstamp(sectors.bytes(offset, SECTOR_BYTES))) {
        Ok(header) => header,
        Err(error) => return fault(None, error.to_string()),
    };
    let indices = Some((header.first_index, header.last_index));
    if header.sequence != end.next_sequence {
        return fault(
            None,
            format!("batch {} stands where batch {} has to", header.sequence, end.next_sequence),
        );
    }
    if header.previous != end.last_checksum {
        return fault(indices, "the batch does not continue the one before it".into());
    }
    let length = header.file_bytes();
    if offset + length as u64 > sectors.file.len() as u64 {
        return fault(indices, "the batch reaches beyond the end of the file".into());
    }
    let mut missing = false;
    for at in (offset..offset + length as u64).step_by(SECTOR_BYTES).skip(1) {
        match sectors.state(at) {
            SectorState::Written(SectorPlace::Body) => {}
            SectorState::Unwritten => missing = true,
            SectorState::Written(SectorPlace::Head) | SectorState::Garbage => {
                return fault(indices, format!("the sector at byte {at} does not belong to its batch"));
            }
        }
    }
    if missing {
        return Ok(Scanned::Torn { to: offset + length as u64, indices });
    }
    let payload = Bytes::from(header.unstamp(sectors.bytes(offset, length))).split_off(BATCH_HEADER_BYTES);
    if crate::codec::checksum(&payload) != header.payload_checksum {
        return fault(
            indices,
            "every sector of the batch was written, but its records do not match its checksum".into(),
        );
    }
    match decode_records(payload) {
        Ok(records) => Ok(Scanned::Batch(ScannedBatch { offset, header, records })),
        Err(error) => fault(indices, error.to_string()),
    }
}

/// The records of a batch.
pub(crate) fn decode_records(payload: Bytes) -> Result<Vec<Record>, DecodeError> {
    let mut reader = Reader::new(payload);
    let mut records = Vec::new();
    while !reader.is_empty() {
        records.push(decode_record(&mut reader)?);
    }
    Ok(records)
}

/// The batch at `offset` with this header, if its records match their checksum, whatever the stamps
/// of its sectors are. For a log that is known to be damaged.
pub(crate) fn read_regardless(
    sectors: &Sectors<'_>,
    offset: u64,
    header: &BatchHeader,
) -> Option<ScannedBatch> {
    let bytes = sectors.bytes(offset, header.file_bytes());
    let payload = Bytes::from(header.unstamp(bytes)).split_off(BATCH_HEADER_BYTES);
    if crate::codec::checksum(&payload) != header.payload_checksum {
        return None;
    }
    let records = decode_records(payload).ok()?;
    Some(ScannedBatch { offset, header: *header, records })
}

/// The sectors of a segment.
pub(crate) struct Sectors<'a> {
    file: &'a [u8],
    life: Life,
    former: Vec<Life>,
}

impl<'a> Sectors<'a> {
    /// Those of a segment with this header.
    pub(crate) fn new(file: &'a [u8], header: &SegmentHeader) -> Self {
        Self { file, life: header.life(), former: header.former() }
    }

    /// The header of the batch that starts at `offset`, if one does that verifies.
    pub(crate) fn batch_header(&self, offset: u64) -> Option<BatchHeader> {
        if self.state(offset) != SectorState::Written(SectorPlace::Head) {
            return None;
        }
        BatchHeader::decode(&unstamp(self.bytes(offset, SECTOR_BYTES))).ok()
    }

    /// The same, whatever the sector's stamp is.
    pub(crate) fn header_regardless(&self, offset: u64) -> Option<BatchHeader> {
        BatchHeader::decode(&unstamp(self.bytes(offset, SECTOR_BYTES))).ok()
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.file.len() as u64
    }

    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        let start = usize::try_from(offset).expect("the file is in memory");
        &self.file[start..(start + length).min(self.file.len())]
    }

    /// What the sector at `offset` is.
    pub(crate) fn state(&self, offset: u64) -> SectorState {
        classify(self.bytes(offset, SECTOR_BYTES), offset, self.life, &self.former)
    }

    /// The first sector from byte `from` on that is neither written in this life nor unwritten.
    pub(crate) fn garbage(&self, from: u64) -> Option<u64> {
        let mut sectors = (from..self.file.len() as u64).step_by(SECTOR_BYTES);
        sectors.find(|&at| self.state(at) == SectorState::Garbage)
    }

    /// Whether all garbage from byte `from` on is zeros that changed in a few places. A sector that
    /// was written to the wrong place begins with a stamp, and has more. Sectors in `except` are
    /// not looked at.
    pub(crate) fn garbage_is_damaged_fill(&self, from: u64, except: &[Range<u64>]) -> bool {
        const CHANGED_MAX: usize = 3;
        let sectors = (from..self.file.len() as u64).step_by(SECTOR_BYTES);
        sectors
            .filter(|at| !except.iter().any(|range| range.contains(at)))
            .filter(|&at| self.state(at) == SectorState::Garbage)
            .all(|at| self.bytes(at, SECTOR_BYTES).iter().filter(|byte| **byte != 0).count() <= CHANGED_MAX)
    }

    /// The sectors written in this life from byte `from` (rounded up to a sector) on.
    pub(crate) fn written(&self, from: u64) -> impl Iterator<Item = (u64, SectorPlace)> + '_ {
        let first = from.next_multiple_of(SECTOR_BYTES as u64);
        (first..self.file.len() as u64).step_by(SECTOR_BYTES).filter_map(|at| match self.state(at) {
            SectorState::Written(place) => Some((at, place)),
            SectorState::Unwritten | SectorState::Garbage => None,
        })
    }
}
