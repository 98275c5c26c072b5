//! Records: what a batch carries.

use crate::codec::{
    COUNTER_MAX, DecodeError, Reader, Writer, checksum, checksum_parts, from_bytes, to_bytes,
};
use crate::raft::{
    ENTRY_DATA_BYTES_MAX, ENTRY_HEADER_BYTES, Entry, HardState, LogIndex, LogRecords, SnapshotMeta,
};
use std::fmt;

/// Bytes before a record's body: checksum u32, body length u32, type u8.
pub(crate) const RECORD_HEADER_BYTES: usize = 9;
const RECORD_BODY_BYTES_MAX: usize = ENTRY_DATA_BYTES_MAX + ENTRY_HEADER_BYTES;

const ENTRY: u8 = 1;
const TRUNCATE: u8 = 2;
const VOTE: u8 = 3;
const SNAPSHOT: u8 = 4;
const SEAL: u8 = 5;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A log entry.
    Entry(Entry),
    /// Entries at this index and above are void.
    Truncate(LogIndex),
    /// Term and vote.
    Vote(HardState),
    /// A snapshot that is complete and synced.
    Snapshot(SnapshotMeta),
    /// The segment is complete: the log goes on in the segment whose first batch has this sequence.
    Seal(u64),
}

/// Appends the records of one write, in the order of replay. An incoming snapshot's chunk goes to
/// its own file.
pub(crate) fn encode_records(out: &mut Vec<u8>, records: &LogRecords) {
    if let Some(hard_state) = &records.hard_state {
        encode_record(out, VOTE, &to_bytes(hard_state));
    }
    if let Some(from) = records.truncate_from {
        encode_record(out, TRUNCATE, &from.get().to_le_bytes());
    }
    if let Some(meta) = &records.snapshot {
        encode_record(out, SNAPSHOT, &to_bytes(meta));
    }
    for entry in &records.entries {
        encode_record(out, ENTRY, entry.encoded());
    }
}

/// Appends a seal.
pub(crate) fn encode_seal(out: &mut Vec<u8>, next_sequence: u64) {
    encode_record(out, SEAL, &next_sequence.to_le_bytes());
}

fn encode_record(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("a record's body is bounded far below 4 GiB");
    let sum = checksum_parts(&[&length.to_le_bytes(), &[kind], body]);
    out.reserve(RECORD_HEADER_BYTES + body.len());
    out.put_u32(sum);
    out.put_u32(length);
    out.put_u8(kind);
    out.extend_from_slice(body);
}

/// Reads the next record; an entry shares the reader's bytes.
pub(crate) fn decode_record(reader: &mut Reader) -> Result<Record, DecodeError> {
    let expected = reader.u32("record checksum")?;
    let covered = reader.peek().clone();
    let length = reader.u32("record length")? as usize;
    if length > RECORD_BODY_BYTES_MAX {
        let (length, limit) = (length as u64, RECORD_BODY_BYTES_MAX as u64);
        return Err(DecodeError::TooLong { what: "record", length, limit });
    }
    let kind = reader.u8("record type")?;
    let body = reader.take("record", length)?;
    let found = checksum(&covered[..5 + length]);
    if found != expected {
        return Err(DecodeError::Checksum { what: "record", found, expected });
    }
    let mut fields = Reader::new(body.clone());
    let record = match kind {
        ENTRY => Record::Entry(Entry::decode(&mut fields)?),
        TRUNCATE => Record::Truncate(LogIndex::new(fields.counter("truncation")?)),
        VOTE => return check_counters(Record::Vote(from_bytes("vote", &body)?)),
        SNAPSHOT => return Ok(Record::Snapshot(SnapshotMeta::decode(&body)?)),
        SEAL => Record::Seal(fields.counter("seal")?),
        other => return Err(DecodeError::Invalid { what: "record type", value: u64::from(other) }),
    };
    fields.finish("record")?;
    check_counters(record)
}

/// Indices and terms must leave room to count on from them.
fn check_counters(record: Record) -> Result<Record, DecodeError> {
    let numbers = match &record {
        Record::Entry(entry) => [entry.index().get(), entry.term().get()],
        Record::Vote(hard_state) => [hard_state.term.get(), 0],
        _ => [0, 0],
    };
    match numbers.into_iter().find(|number| *number > COUNTER_MAX) {
        None => Ok(record),
        Some(value) => Err(DecodeError::Invalid { what: "index or term", value }),
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(entry) => write!(f, "entry {entry:?}"),
            Self::Truncate(from) => write!(f, "truncate from {from}"),
            Self::Vote(HardState { term, voted_for: Some(id) }) => {
                write!(f, "vote term {term} for member {id}")
            }
            Self::Vote(HardState { term, voted_for: None }) => write!(f, "vote term {term} for nobody"),
            Self::Snapshot(meta) => write!(
                f,
                "snapshot {} ({} bytes, membership of {} members at {})",
                meta.last,
                meta.bytes,
                meta.membership.members.len(),
                meta.membership_id
            ),
            Self::Seal(next) => write!(f, "seal, goes on with batch {next}"),
        }
    }
}
