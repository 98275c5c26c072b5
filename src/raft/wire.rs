//! The bytes of a [`Message`] (docs/protocol.md).
//!
//! ```text
//! tag u8 | from u64 | to u64 | term u64 | what the tag says
//! ```
//! A tag never gets a second meaning: a new message gets a new tag. A node that does not know a tag
//! closes the connection. Entries stand in an append as they stand in the log, and a decoded
//! message shares the bytes of the input.

use crate::codec::{DecodeError, FeatureLevel, Reader, Writer};
use crate::raft::log::entry::{ENTRY_DATA_BYTES_MAX, ENTRY_HEADER_BYTES, Entry};
use crate::raft::log::snapshot::{SnapshotMeta, SnapshotRefusal};
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{AnswerClock, AppendClock, Body, ClockReading, CommitAge, Message, ReadRefusal};
use crate::raft::types::{Incarnation, LogId, LogIndex, NodeId, ReadRound, Session, Term, Time};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;

/// Bytes of a snapshot chunk, at most: a bound for decoders, above every configurable limit.
const CHUNK_BYTES_MAX: usize = ENTRY_DATA_BYTES_MAX;

/// Bytes of an encoded [`SnapshotMeta`], at most.
const SNAPSHOT_META_BYTES_MAX: usize = 1 << 20;

impl Message {
    /// Appends the encoded message to `out`. It carries no length: a frame around it does.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_at(FeatureLevel::NEWEST, out);
    }

    /// The same, in the words of a level.
    pub fn encode_at(&self, level: FeatureLevel, out: &mut Vec<u8>) {
        let from_to = [self.from.get(), self.to.get(), self.term.get()];
        match &self.body {
            // It gives no reason there.
            Body::ReadIndexRefused { incarnation, sequence, .. } if level < FeatureLevel::NEGOTIATES => {
                out.put_u8(REFUSED_WITHOUT_REASON);
                words(out, from_to);
                words(out, [incarnation.number(), incarnation.nonce(), *sequence]);
            }
            body => {
                out.put_u8(tag(body));
                words(out, from_to);
                encode_body(body, out);
            }
        }
    }

    /// Decodes a message that fills `bytes`; its entries and chunks share them.
    ///
    /// # Errors
    /// [`DecodeError`] for what no correct peer sends: cut short, undefined or inconsistent
    /// (entries that do not follow `prev` one by one, say).
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        Self::read(Reader::new(bytes))
    }

    /// As [`Self::decode`], from the rest of a larger message.
    pub(crate) fn read(mut reader: Reader) -> Result<Self, DecodeError> {
        let tag = reader.u8("message tag")?;
        let from = NodeId::new(reader.u64("sender")?);
        let to = NodeId::new(reader.u64("addressee")?);
        let term = decode_term(&mut reader)?;
        let body = decode_body(tag, term, &mut reader)?;
        reader.finish("message")?;
        Ok(Self { from, to, term, body })
    }
}

/// A node of level 7 refuses a question so.
const REFUSED_WITHOUT_REASON: u8 = 17;

const fn tag(body: &Body) -> u8 {
    match body {
        Body::PreVote { .. } => 1,
        Body::PreVoteGranted { .. } => 2,
        Body::PreVoteRejected { .. } => 3,
        Body::RequestVote { .. } => 4,
        Body::VoteGranted => 5,
        Body::VoteRejected => 6,
        Body::AppendEntries { .. } => 7,
        Body::AppendAccepted { .. } => 8,
        Body::AppendRejected { .. } => 9,
        Body::Heard { .. } => 10,
        Body::InstallSnapshot { .. } => 11,
        Body::SnapshotProgress { .. } => 12,
        Body::SnapshotInstalled { .. } => 13,
        Body::TimeoutNow => 14,
        Body::ReadIndex { .. } => 15,
        Body::ReadIndexReady { .. } => 16,
        Body::SnapshotRefused { .. } => 18,
        Body::Withdrawn(_) => 19,
        Body::ReadIndexRefused { .. } => 20,
    }
}

fn encode_body(body: &Body, out: &mut Vec<u8>) {
    match body {
        Body::PreVote { campaign_term, last_log } => {
            words(out, [campaign_term.get(), last_log.term.get(), last_log.index.get()]);
        }
        Body::PreVoteGranted { campaign_term } | Body::PreVoteRejected { campaign_term } => {
            words(out, [campaign_term.get()]);
        }
        Body::RequestVote { last_log, transfer } => {
            words(out, [last_log.term.get(), last_log.index.get()]);
            out.put_u8(u8::from(*transfer));
        }
        Body::VoteGranted | Body::VoteRejected | Body::TimeoutNow => {}
        Body::AppendEntries { session, prev, acknowledged, entries, commit, round, clock } => {
            out.reserve(128 + entries.iter().map(Entry::encoded_bytes).sum::<usize>());
            words(out, [session.get(), prev.term.get(), prev.index.get()]);
            words(out, [acknowledged.term.get(), acknowledged.index.get(), commit.get(), round.get()]);
            encode_append_clock(clock, out);
            out.put_u32(u32::try_from(entries.len()).expect("an append is bounded by its bytes"));
            for entry in entries {
                out.extend_from_slice(entry.encoded());
            }
        }
        Body::AppendAccepted { session, match_index, round, clock } => {
            words(out, [session.get(), match_index.get(), round.get()]);
            encode_answer_clock(clock, out);
        }
        Body::AppendRejected { session, rejected, hint, round, clock } => {
            words(out, [session.get(), rejected.term.get(), rejected.index.get()]);
            words(out, [hint.term.get(), hint.index.get(), round.get()]);
            encode_answer_clock(clock, out);
        }
        Body::Heard { round, promised_micros, clock } => {
            words(out, [round.get(), *promised_micros]);
            encode_answer_clock(clock, out);
        }
        Body::InstallSnapshot { session, snapshot, offset, data, done } => {
            words(out, [session.get(), *offset]);
            out.put_u8(u8::from(*done));
            out.put_bytes(&snapshot.encode());
            out.put_bytes(data);
        }
        Body::SnapshotProgress { session, snapshot, next_offset, is_lacking } => {
            words(out, [session.get(), snapshot.term.get(), snapshot.index.get(), *next_offset]);
            out.put_u8(u8::from(*is_lacking));
        }
        Body::SnapshotInstalled { session, match_index } => words(out, [session.get(), match_index.get()]),
        Body::SnapshotRefused { session, snapshot, why } => {
            words(out, [session.get(), snapshot.term.get(), snapshot.index.get()]);
            out.put_u8(match why {
                SnapshotRefusal::NoRoom => 1,
                SnapshotRefusal::Disk => 2,
                SnapshotRefusal::Content => 3,
            });
        }
        Body::ReadIndex { incarnation, sequence } => {
            words(out, [incarnation.number(), incarnation.nonce(), *sequence]);
        }
        Body::ReadIndexRefused { incarnation, sequence, why } => {
            words(out, [incarnation.number(), incarnation.nonce(), *sequence]);
            out.put_u8(match why {
                ReadRefusal::NotLeading => 0,
                ReadRefusal::Overloaded => 1,
            });
        }
        Body::ReadIndexReady { incarnation, sequence, index } => {
            words(out, [incarnation.number(), incarnation.nonce(), *sequence, index.get()]);
        }
        Body::Withdrawn(why) => encode_withdrawal(why, out),
    }
}

fn words<const N: usize>(out: &mut Vec<u8>, words: [u64; N]) {
    for word in words {
        out.put_u64(word);
    }
}

fn encode_append_clock(clock: &AppendClock, out: &mut Vec<u8>) {
    words(out, [clock.sent_at.get()]);
    out.put_u8(u8::from(clock.age.is_some()));
    if let Some(CommitAge { reading, micros }) = clock.age {
        encode_reading(reading, out);
        words(out, [micros]);
    }
}

fn encode_answer_clock(clock: &AnswerClock, out: &mut Vec<u8>) {
    words(out, [clock.sent_at.get()]);
    encode_reading(clock.reading, out);
}

fn encode_reading(reading: ClockReading, out: &mut Vec<u8>) {
    words(out, [reading.incarnation.number(), reading.incarnation.nonce(), reading.at.get()]);
}

fn decode_body(tag: u8, term: Term, reader: &mut Reader) -> Result<Body, DecodeError> {
    match tag {
        1 => Ok(Body::PreVote { campaign_term: decode_term(reader)?, last_log: decode_log_id(reader)? }),
        2 => Ok(Body::PreVoteGranted { campaign_term: decode_term(reader)? }),
        3 => Ok(Body::PreVoteRejected { campaign_term: decode_term(reader)? }),
        4 => Ok(Body::RequestVote { last_log: decode_log_id(reader)?, transfer: reader.flag("transfer")? }),
        5 => Ok(Body::VoteGranted),
        6 => Ok(Body::VoteRejected),
        7 => decode_append(term, reader),
        8 => Ok(Body::AppendAccepted {
            session: Session::new(reader.u64("session")?),
            match_index: decode_index(reader)?,
            round: decode_round(reader)?,
            clock: decode_answer_clock(reader)?,
        }),
        9 => Ok(Body::AppendRejected {
            session: Session::new(reader.u64("session")?),
            rejected: decode_log_id(reader)?,
            hint: decode_log_id(reader)?,
            round: decode_round(reader)?,
            clock: decode_answer_clock(reader)?,
        }),
        10 => Ok(Body::Heard {
            round: decode_round(reader)?,
            promised_micros: reader.counter("promised microseconds")?,
            clock: decode_answer_clock(reader)?,
        }),
        11 => decode_install_snapshot(term, reader),
        12 => Ok(Body::SnapshotProgress {
            session: Session::new(reader.u64("session")?),
            snapshot: decode_log_id(reader)?,
            next_offset: reader.counter("snapshot offset")?,
            is_lacking: reader.flag("lacking")?,
        }),
        13 => Ok(Body::SnapshotInstalled {
            session: Session::new(reader.u64("session")?),
            match_index: decode_index(reader)?,
        }),
        14 => Ok(Body::TimeoutNow),
        15 => {
            let (incarnation, sequence) = decode_question(reader)?;
            Ok(Body::ReadIndex { incarnation, sequence })
        }
        16 => {
            let (incarnation, sequence) = decode_question(reader)?;
            Ok(Body::ReadIndexReady { incarnation, sequence, index: decode_index(reader)? })
        }
        18 => Ok(Body::SnapshotRefused {
            session: Session::new(reader.u64("session")?),
            snapshot: decode_log_id(reader)?,
            why: match reader.u8("snapshot refusal")? {
                1 => SnapshotRefusal::NoRoom,
                2 => SnapshotRefusal::Disk,
                3 => SnapshotRefusal::Content,
                other => {
                    return Err(DecodeError::Invalid { what: "snapshot refusal", value: u64::from(other) });
                }
            },
        }),
        19 => decode_withdrawal(reader).map(Body::Withdrawn),
        REFUSED_WITHOUT_REASON => {
            let (incarnation, sequence) = decode_question(reader)?;
            Ok(Body::ReadIndexRefused { incarnation, sequence, why: ReadRefusal::NotLeading })
        }
        20 => {
            let (incarnation, sequence) = decode_question(reader)?;
            let why = match reader.u8("read refusal")? {
                0 => ReadRefusal::NotLeading,
                1 => ReadRefusal::Overloaded,
                other => {
                    return Err(DecodeError::Invalid { what: "read refusal", value: u64::from(other) });
                }
            };
            Ok(Body::ReadIndexRefused { incarnation, sequence, why })
        }
        other => Err(DecodeError::Invalid { what: "message tag", value: u64::from(other) }),
    }
}

fn decode_append(term: Term, reader: &mut Reader) -> Result<Body, DecodeError> {
    let session = Session::new(reader.u64("session")?);
    let prev = decode_log_id(reader)?;
    let acknowledged = decode_log_id(reader)?;
    let commit = decode_index(reader)?;
    let round = decode_round(reader)?;
    let clock = decode_append_clock(reader)?;
    let count = reader.u32("entry count")? as usize;
    let entries_max = reader.remaining() / ENTRY_HEADER_BYTES;
    if count > entries_max {
        let (length, limit) = (count as u64, entries_max as u64);
        return Err(DecodeError::TooLong { what: "entries", length, limit });
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = prev;
    for _ in 0..count {
        let entry = Entry::decode(reader)?;
        if entry.index() != last.index.next() || entry.term() < last.term || entry.term() > term {
            let why = "its entries do not follow each other";
            return Err(DecodeError::Inconsistent { what: "append", why });
        }
        last = entry.id();
        entries.push(entry);
    }
    Ok(Body::AppendEntries { session, prev, acknowledged, entries, commit, round, clock })
}

fn decode_install_snapshot(term: Term, reader: &mut Reader) -> Result<Body, DecodeError> {
    let session = Session::new(reader.u64("session")?);
    let offset = reader.counter("snapshot offset")?;
    let done = reader.flag("last chunk")?;
    let snapshot = SnapshotMeta::decode(&reader.bytes("snapshot description", SNAPSHOT_META_BYTES_MAX)?)?;
    let snapshot = Box::new(snapshot);
    let data: Bytes = reader.bytes("snapshot chunk", CHUNK_BYTES_MAX)?;
    let end = offset + data.len() as u64;
    if snapshot.last.term > term {
        let why = "it is of a later term than its leader";
        return Err(DecodeError::Inconsistent { what: "snapshot", why });
    }
    if end > snapshot.bytes || (done && end != snapshot.bytes) {
        let why = "it does not lie where the snapshot's length says";
        return Err(DecodeError::Inconsistent { what: "snapshot chunk", why });
    }
    Ok(Body::InstallSnapshot { session, snapshot, offset, data, done })
}

impl Withdrawal {
    /// As it travels, and as it is noted in a data directory.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_withdrawal(self, &mut bytes);
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Bytes::from(bytes));
        let why = decode_withdrawal(&mut reader)?;
        reader.finish("withdrawal").map(|()| why)
    }
}

/// A kind, and what it says of the log.
fn encode_withdrawal(why: &Withdrawal, out: &mut Vec<u8>) {
    match why {
        Withdrawal::LostEntries { acknowledged, last } => {
            out.put_u8(1);
            words(out, [acknowledged.term.get(), acknowledged.index.get()]);
            words(out, [last.term.get(), last.index.get()]);
        }
        Withdrawal::Contradicted { committed } => {
            out.put_u8(2);
            words(out, [committed.term.get(), committed.index.get()]);
        }
        Withdrawal::Diverged { index } => {
            out.put_u8(3);
            words(out, [index.get()]);
        }
        Withdrawal::OlderCopy { met_by } => {
            out.put_u8(4);
            words(out, [met_by.get()]);
        }
        Withdrawal::Removed { told_by } => {
            out.put_u8(5);
            words(out, [told_by.get()]);
        }
    }
}

fn decode_withdrawal(reader: &mut Reader) -> Result<Withdrawal, DecodeError> {
    match reader.u8("withdrawal")? {
        1 => {
            Ok(Withdrawal::LostEntries { acknowledged: decode_log_id(reader)?, last: decode_log_id(reader)? })
        }
        2 => Ok(Withdrawal::Contradicted { committed: decode_log_id(reader)? }),
        3 => Ok(Withdrawal::Diverged { index: decode_index(reader)? }),
        4 => Ok(Withdrawal::OlderCopy { met_by: NodeId::new(reader.u64("member")?) }),
        5 => Ok(Withdrawal::Removed { told_by: NodeId::new(reader.u64("member")?) }),
        other => Err(DecodeError::Invalid { what: "withdrawal", value: u64::from(other) }),
    }
}

fn decode_append_clock(reader: &mut Reader) -> Result<AppendClock, DecodeError> {
    let sent_at = decode_time(reader)?;
    let has_age = reader.flag("age of the commit index")?;
    let decode_age = |reader: &mut Reader| {
        let reading = decode_reading(reader)?;
        Ok(CommitAge { reading, micros: reader.counter("age in microseconds")? })
    };
    Ok(AppendClock { sent_at, age: has_age.then(|| decode_age(reader)).transpose()? })
}

fn decode_answer_clock(reader: &mut Reader) -> Result<AnswerClock, DecodeError> {
    Ok(AnswerClock { sent_at: decode_time(reader)?, reading: decode_reading(reader)? })
}

fn decode_reading(reader: &mut Reader) -> Result<ClockReading, DecodeError> {
    Ok(ClockReading { incarnation: decode_incarnation(reader)?, at: decode_time(reader)? })
}

fn decode_time(reader: &mut Reader) -> Result<Time, DecodeError> {
    reader.counter("time").map(Time::new)
}

fn decode_incarnation(reader: &mut Reader) -> Result<Incarnation, DecodeError> {
    Ok(Incarnation::drawn(reader.counter("incarnation")?, reader.u64("incarnation nonce")?))
}

fn decode_question(reader: &mut Reader) -> Result<(Incarnation, u64), DecodeError> {
    let incarnation = decode_incarnation(reader)?;
    Ok((incarnation, reader.counter("read sequence")?))
}

fn decode_term(reader: &mut Reader) -> Result<Term, DecodeError> {
    reader.counter("term").map(Term::new)
}

fn decode_index(reader: &mut Reader) -> Result<LogIndex, DecodeError> {
    reader.counter("log index").map(LogIndex::new)
}

fn decode_round(reader: &mut Reader) -> Result<ReadRound, DecodeError> {
    reader.counter("read round").map(ReadRound::new)
}

fn decode_log_id(reader: &mut Reader) -> Result<LogId, DecodeError> {
    Ok(LogId::new(decode_term(reader)?, decode_index(reader)?))
}

#[cfg(test)]
mod tests;
