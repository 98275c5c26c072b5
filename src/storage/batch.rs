//! Batches: what one sync makes durable, all or nothing.

use crate::codec::{DecodeError, Reader, Writer, checksum};
use crate::raft::{HardState, LogId, LogIndex, NodeId, Term};
use crate::storage::record::encode_seal;
use crate::storage::sector::{Life, SECTOR_BYTES, SECTOR_PAYLOAD_BYTES, file_bytes_for, stamp_into, unstamp};
use bytes::Bytes;

/// Bytes of a batch's header; it lies in the batch's first sector whole.
pub(crate) const BATCH_HEADER_BYTES: usize = 92;
const MAGIC: u32 = u32::from_le_bytes(*b"ISb3");

/// A batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Checksum of the header, and through `payload_checksum` of the whole batch: what the next one
    /// chains to.
    pub(crate) checksum: u32,
    /// Checksum of the records.
    pub(crate) payload_checksum: u32,
    /// `checksum` of the batch before it, across segments; 0 for the very first.
    pub(crate) previous: u32,
    /// Bytes of records.
    pub(crate) payload_bytes: u32,
    /// Grows by one with each batch, over all segments, from 1.
    pub(crate) sequence: u64,
    /// The batch that was durable when this one was written.
    pub(crate) last_durable: u64,
    /// First and last index among its entries; 0 when there are none. Says what is lost when the
    /// records are damaged.
    pub(crate) first_index: u64,
    /// See `first_index`.
    pub(crate) last_index: u64,
    /// Entries up to here were known to be committed when the batch was written. At most the log's
    /// last index after the batch; 0 when nothing was known, and in seals.
    pub(crate) commit: u64,
    /// The state after the batch.
    pub(crate) mark: BatchMark,
}

/// What the log adds up to after a batch. So a batch that is sound tells what a damaged one before
/// it had done to term, vote and the end of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchMark {
    /// Term and vote. All zero in seals.
    pub(crate) hard_state: HardState,
    /// The log's last entry; index and term zero in seals. The term alone is zero if the batch
    /// ends with a truncation: the log does not know it then.
    pub(crate) end: LogId,
}

/// The batch that ends a segment, with its records: the log goes on with the batch after it, in the
/// next segment.
pub(crate) fn seal_batch(sequence: u64, previous: u32) -> (BatchHeader, Vec<u8>) {
    let mut payload = Vec::new();
    encode_seal(&mut payload, sequence + 1);
    (BatchHeader::new(sequence, previous, (0, 0), 0, BatchMark::default(), &payload), payload)
}

impl BatchHeader {
    /// Bytes the batch takes up in its file.
    pub(crate) const fn file_bytes(&self) -> usize {
        file_bytes_for(BATCH_HEADER_BYTES + self.payload_bytes as usize)
    }

    /// The header of a batch with these records.
    pub(crate) fn new(
        sequence: u64,
        previous: u32,
        indices: (u64, u64),
        commit: u64,
        mark: BatchMark,
        payload: &[u8],
    ) -> Self {
        let mut header = Self {
            checksum: 0,
            payload_checksum: checksum(payload),
            previous,
            payload_bytes: u32::try_from(payload.len()).expect("a batch is bounded far below 4 GiB"),
            sequence,
            last_durable: sequence - 1,
            first_index: indices.0,
            last_index: indices.1,
            commit,
            mark,
        };
        header.checksum = checksum(&header.encode()[8..]);
        header
    }

    /// Appends the whole batch as stamped sectors that start at byte `offset` of the file.
    pub(crate) fn stamp_batch_into(&self, out: &mut Vec<u8>, payload: &[u8], life: Life, offset: u64) {
        stamp_into(out, &[&self.encode(), payload], life, offset);
    }

    /// Header and records, out of the batch's stamped sectors.
    pub(crate) fn unstamp(&self, sectors: &[u8]) -> Vec<u8> {
        let bytes = BATCH_HEADER_BYTES + self.payload_bytes as usize;
        let used = bytes.div_ceil(SECTOR_PAYLOAD_BYTES) * SECTOR_BYTES;
        let mut payload = unstamp(&sectors[..used.min(sectors.len())]);
        payload.truncate(bytes);
        payload
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES);
        bytes.put_u32(MAGIC);
        bytes.put_u32(self.checksum);
        bytes.put_u32(self.payload_checksum);
        bytes.put_u32(self.previous);
        bytes.put_u32(self.payload_bytes);
        bytes.put_u64(self.sequence);
        bytes.put_u64(self.last_durable);
        bytes.put_u64(self.first_index);
        bytes.put_u64(self.last_index);
        bytes.put_u64(self.commit);
        bytes.put_u64(self.mark.hard_state.term.get());
        // Members have ids from 1.
        bytes.put_u64(self.mark.hard_state.voted_for.map_or(0, NodeId::get));
        bytes.put_u64(self.mark.end.index.get());
        bytes.put_u64(self.mark.end.term.get());
        bytes
    }

    /// Reads a header from the payload of a batch's first sector and verifies its own checksum.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader =
            Reader::new(Bytes::copy_from_slice(&payload[..payload.len().min(BATCH_HEADER_BYTES)]));
        let magic = reader.u32("batch magic")?;
        if magic != MAGIC {
            return Err(DecodeError::Invalid { what: "batch magic", value: u64::from(magic) });
        }
        let expected = reader.u32("batch checksum")?;
        let found = checksum(reader.peek());
        if found != expected {
            return Err(DecodeError::Checksum { what: "batch header", found, expected });
        }
        Ok(Self {
            checksum: expected,
            payload_checksum: reader.u32("batch records checksum")?,
            previous: reader.u32("batch chain")?,
            payload_bytes: reader.u32("batch length")?,
            sequence: reader.u64("batch sequence")?,
            last_durable: reader.u64("batch witness")?,
            first_index: reader.u64("batch first index")?,
            last_index: reader.u64("batch last index")?,
            commit: reader.u64("batch commit index")?,
            mark: BatchMark {
                hard_state: HardState {
                    term: Term::new(reader.counter("batch term")?),
                    voted_for: Some(reader.u64("batch vote")?).filter(|id| *id > 0).map(NodeId::new),
                },
                end: {
                    let index = LogIndex::new(reader.counter("batch log end")?);
                    LogId::new(Term::new(reader.counter("batch log end term")?), index)
                },
            },
        })
    }
}
