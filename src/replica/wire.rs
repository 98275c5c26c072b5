//! The bytes of a [`PeerMessage`]: a tag, then what the tag says (docs/protocol.md).

use crate::codec::{DecodeError, FeatureLevel, FeatureLevels, Reader, Writer};
use crate::kv::{Denial, LeaseId, Principal};
use crate::raft::{ENTRY_DATA_BYTES_MAX, Incarnation, LogIndex, Message, NodeId, Term};
use crate::replica::message::{
    DiskPaceSaid, Forward, ForwardRefused, LEASE_CALLS_MAX, LeaseAnswer, LeaseAnswers, LeaseCall, LeaseCalls,
    LeaseRefusal, LeaseTime, LevelsSaid, PeerMessage, RefusedBecause, StateHash, StateHashKind,
};
use alloc::vec::Vec;
use bytes::Bytes;

const RAFT: u8 = 1;
const FORWARD: u8 = 2;
const FORWARD_REFUSED: u8 = 3;
const STATE_HASH: u8 = 4;
const LEASE_CALLS: u8 = 5;
const LEASE_ANSWERS: u8 = 6;
const DISK_PACE: u8 = 7;
/// From level 8 on.
const LEVELS: u8 = 8;

impl PeerMessage {
    /// Appends the encoded message (without frame) to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_at(FeatureLevel::NEWEST, out);
    }

    /// The same, in the words of a level, which are enough for it ([`Self::is_sayable_at`]).
    pub fn encode_at(&self, level: FeatureLevel, out: &mut Vec<u8>) {
        match self {
            Self::Raft(message) => {
                out.put_u8(RAFT);
                message.encode_at(level, out);
            }
            Self::Forward(forward) => {
                out.put_u8(FORWARD);
                encode_forward(forward, out);
            }
            Self::ForwardRefused(refused) => {
                out.put_u8(FORWARD_REFUSED);
                encode_relation(refused.from, refused.to, refused.term, refused.incarnation, out);
                out.put_u64(refused.first_sequence);
                out.put_u64(refused.count);
                encode_reason(refused.why, out);
            }
            Self::StateHash(said) => {
                out.put_u8(STATE_HASH);
                for word in [said.from.get(), said.to.get(), said.term.get(), said.index.get()] {
                    out.put_u64(word);
                }
                out.put_u8(match said.kind {
                    StateHashKind::Question => 1,
                    StateHashKind::Answer => 2,
                    StateHashKind::Verdict => 3,
                    StateHashKind::Undecided => 4,
                });
                out.put_u128(said.hash);
            }
            Self::DiskPace(said) => {
                out.put_u8(DISK_PACE);
                for word in [said.from.get(), said.to.get(), said.term.get(), said.write_micros] {
                    out.put_u64(word);
                }
                out.put_u8(u8::from(said.is_full));
            }
            Self::Levels(said) => {
                out.put_u8(LEVELS);
                for word in [said.from.get(), said.to.get(), said.term.get()] {
                    out.put_u64(word);
                }
                said.speaks.encode(out);
            }
            Self::LeaseCalls(calls) => {
                out.put_u8(LEASE_CALLS);
                encode_ends(calls.from, calls.to, calls.incarnation, calls.calls.len(), out);
                for call in &calls.calls {
                    out.put_u64(call.number);
                    out.put_u64(call.lease.0);
                    out.put_u8(u8::from(call.renew));
                    out.put_u8(u8::from(call.by.is_some()));
                    if let Some(by) = &call.by {
                        by.encode(out);
                    }
                }
            }
            Self::LeaseAnswers(answers) => {
                out.put_u8(LEASE_ANSWERS);
                // A node of level 7 hears nothing of a leader that has too much to do.
                let is_known = |answer: &&(u64, LeaseAnswer)| {
                    level >= FeatureLevel::NEGOTIATES || answer.1 != Err(LeaseRefusal::Overloaded)
                };
                let count = answers.answers.iter().filter(is_known).count();
                encode_ends(answers.from, answers.to, answers.incarnation, count, out);
                for (number, answer) in answers.answers.iter().filter(is_known) {
                    out.put_u64(*number);
                    match answer {
                        Ok(None) => out.put_u8(0),
                        Ok(Some(LeaseTime { id, ttl_seconds, left_micros, keys })) => {
                            out.put_u8(1);
                            [id.0, *ttl_seconds, *left_micros, *keys]
                                .into_iter()
                                .for_each(|word| out.put_u64(word));
                        }
                        Err(LeaseRefusal::Denied(denial)) => {
                            out.put_u8(2);
                            out.put_u8(denial.code());
                        }
                        Err(LeaseRefusal::Overloaded) => out.put_u8(3),
                    }
                }
            }
        }
    }

    /// Decodes a message that fills `bytes`; entries, commands and chunks share them.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Self::encode`] does not produce.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8("peer message tag")? {
            RAFT => Ok(Self::Raft(Message::read(reader)?)),
            FORWARD => Ok(Self::Forward(decode_forward(reader)?)),
            FORWARD_REFUSED => Ok(Self::ForwardRefused(decode_forward_refused(reader)?)),
            STATE_HASH => Ok(Self::StateHash(decode_state_hash(reader)?)),
            DISK_PACE => Ok(Self::DiskPace(decode_disk_pace(reader)?)),
            LEVELS => Ok(Self::Levels(decode_levels(reader)?)),
            LEASE_CALLS => Ok(Self::LeaseCalls(decode_lease_calls(reader)?)),
            LEASE_ANSWERS => Ok(Self::LeaseAnswers(decode_lease_answers(reader)?)),
            other => Err(DecodeError::Invalid { what: "peer message tag", value: u64::from(other) }),
        }
    }
}

fn decode_levels(mut reader: Reader) -> Result<LevelsSaid, DecodeError> {
    let from = NodeId::new(reader.u64("sender")?);
    let to = NodeId::new(reader.u64("addressee")?);
    let term = Term::new(reader.counter("term")?);
    let speaks = FeatureLevels::take(&mut reader)?;
    reader.finish("levels of a member")?;
    Ok(LevelsSaid { from, to, term, speaks })
}

fn encode_ends(from: NodeId, to: NodeId, incarnation: Incarnation, count: usize, out: &mut Vec<u8>) {
    for word in [from.get(), to.get(), incarnation.number(), incarnation.nonce()] {
        out.put_u64(word);
    }
    out.put_u32(u32::try_from(count).expect("a message has few calls"));
}

fn decode_ends(reader: &mut Reader) -> Result<(NodeId, NodeId, Incarnation, usize), DecodeError> {
    let from = NodeId::new(reader.u64("sender")?);
    let to = NodeId::new(reader.u64("addressee")?);
    let incarnation = Incarnation::drawn(reader.counter("incarnation")?, reader.u64("incarnation nonce")?);
    let count = reader.u32("number of calls")?;
    if count as usize > LEASE_CALLS_MAX {
        let (length, limit) = (u64::from(count), LEASE_CALLS_MAX as u64);
        return Err(DecodeError::TooLong { what: "calls of leases", length, limit });
    }
    Ok((from, to, incarnation, count as usize))
}

fn decode_lease_calls(mut reader: Reader) -> Result<LeaseCalls, DecodeError> {
    let (from, to, incarnation, count) = decode_ends(&mut reader)?;
    let mut calls = Vec::with_capacity(count);
    for _ in 0..count {
        let (number, lease) = (reader.u64("number of the call")?, LeaseId(reader.u64("lease")?));
        let renew = reader.flag("renewal")?;
        let by =
            reader.flag("whether it has a principal")?.then(|| Principal::take(&mut reader)).transpose()?;
        calls.push(LeaseCall { number, lease, by, renew });
    }
    reader.finish("calls of leases")?;
    Ok(LeaseCalls { from, to, incarnation, calls })
}

fn decode_lease_answers(mut reader: Reader) -> Result<LeaseAnswers, DecodeError> {
    let (from, to, incarnation, count) = decode_ends(&mut reader)?;
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        let number = reader.u64("number of the call")?;
        let answer = match reader.u8("answer about a lease")? {
            0 => Ok(None),
            1 => {
                let id = LeaseId(reader.u64("lease")?);
                let (ttl_seconds, left_micros) = (reader.u64("seconds to live")?, reader.u64("time left")?);
                Ok(Some(LeaseTime { id, ttl_seconds, left_micros, keys: reader.u64("number of keys")? }))
            }
            2 => {
                let code = reader.u8("denial")?;
                let invalid = DecodeError::Invalid { what: "denial", value: u64::from(code) };
                Err(LeaseRefusal::Denied(Denial::from_code(code).ok_or(invalid)?))
            }
            3 => Err(LeaseRefusal::Overloaded),
            other => {
                return Err(DecodeError::Invalid { what: "answer about a lease", value: u64::from(other) });
            }
        };
        answers.push((number, answer));
    }
    reader.finish("answers about leases")?;
    Ok(LeaseAnswers { from, to, incarnation, answers })
}

fn decode_state_hash(mut reader: Reader) -> Result<StateHash, DecodeError> {
    let from = NodeId::new(reader.u64("sender")?);
    let to = NodeId::new(reader.u64("addressee")?);
    let term = Term::new(reader.counter("term")?);
    let index = LogIndex::new(reader.counter("log index")?);
    let kind = match reader.u8("kind of a state hash")? {
        1 => StateHashKind::Question,
        2 => StateHashKind::Answer,
        3 => StateHashKind::Verdict,
        4 => StateHashKind::Undecided,
        other => {
            return Err(DecodeError::Invalid { what: "kind of a state hash", value: u64::from(other) });
        }
    };
    let hash = reader.u128("state hash")?;
    reader.finish("state hash")?;
    Ok(StateHash { from, to, term, kind, index, hash })
}

fn decode_disk_pace(mut reader: Reader) -> Result<DiskPaceSaid, DecodeError> {
    let from = NodeId::new(reader.u64("sender")?);
    let to = NodeId::new(reader.u64("addressee")?);
    let term = Term::new(reader.counter("term")?);
    let write_micros = reader.counter("time of a write")?;
    let is_full = reader.flag("full disk")?;
    reader.finish("pace of a disk")?;
    Ok(DiskPaceSaid { from, to, term, write_micros, is_full })
}

fn encode_relation(from: NodeId, to: NodeId, term: Term, incarnation: Incarnation, out: &mut Vec<u8>) {
    for word in [from.get(), to.get(), term.get(), incarnation.number(), incarnation.nonce()] {
        out.put_u64(word);
    }
}

fn encode_forward(forward: &Forward, out: &mut Vec<u8>) {
    out.reserve(52 + forward.commands.iter().map(|command| 4 + command.len()).sum::<usize>());
    encode_relation(forward.from, forward.to, forward.term, forward.incarnation, out);
    out.put_u64(forward.first_sequence);
    out.put_u32(u32::try_from(forward.commands.len()).expect("a forward is bounded by its bytes"));
    for command in &forward.commands {
        out.put_bytes(command);
    }
}

fn decode_relation(reader: &mut Reader) -> Result<(NodeId, NodeId, Term, Incarnation), DecodeError> {
    let from = NodeId::new(reader.u64("sender")?);
    let to = NodeId::new(reader.u64("addressee")?);
    let term = Term::new(reader.counter("term")?);
    let incarnation = Incarnation::drawn(reader.counter("incarnation")?, reader.u64("incarnation nonce")?);
    Ok((from, to, term, incarnation))
}

fn decode_forward(mut reader: Reader) -> Result<Forward, DecodeError> {
    let (from, to, term, incarnation) = decode_relation(&mut reader)?;
    let first_sequence = reader.counter("forward sequence")?;
    let count = reader.u32("command count")? as usize;
    let commands_max = reader.remaining() / size_of::<u32>();
    if count > commands_max {
        let (length, limit) = (count as u64, commands_max as u64);
        return Err(DecodeError::TooLong { what: "commands", length, limit });
    }
    let mut commands = Vec::with_capacity(count);
    for _ in 0..count {
        commands.push(reader.bytes("command", ENTRY_DATA_BYTES_MAX)?);
    }
    reader.finish("forward")?;
    Ok(Forward { from, to, term, incarnation, first_sequence, commands })
}

fn decode_forward_refused(mut reader: Reader) -> Result<ForwardRefused, DecodeError> {
    let (from, to, term, incarnation) = decode_relation(&mut reader)?;
    let first_sequence = reader.counter("forward sequence")?;
    let count = reader.counter("refused count")?;
    let why = decode_reason(&mut reader)?;
    reader.finish("refused forward")?;
    Ok(ForwardRefused { from, to, term, incarnation, first_sequence, count, why })
}

fn encode_reason(why: RefusedBecause, out: &mut Vec<u8>) {
    let tag = match why {
        RefusedBecause::NotLeading => 0,
        RefusedBecause::Overloaded => 1,
        RefusedBecause::HandingOver => 2,
        RefusedBecause::DiskFull => 3,
        RefusedBecause::TooLarge { .. } => 4,
        RefusedBecause::Malformed => 5,
        RefusedBecause::Overtaken => 6,
    };
    out.put_u8(tag);
    if let RefusedBecause::TooLarge { bytes, limit } = why {
        out.put_u64(bytes);
        out.put_u64(limit);
    }
}

fn decode_reason(reader: &mut Reader) -> Result<RefusedBecause, DecodeError> {
    match reader.u8("refusal reason")? {
        0 => Ok(RefusedBecause::NotLeading),
        1 => Ok(RefusedBecause::Overloaded),
        2 => Ok(RefusedBecause::HandingOver),
        3 => Ok(RefusedBecause::DiskFull),
        4 => {
            Ok(RefusedBecause::TooLarge { bytes: reader.u64("command length")?, limit: reader.u64("limit")? })
        }
        5 => Ok(RefusedBecause::Malformed),
        6 => Ok(RefusedBecause::Overtaken),
        other => Err(DecodeError::Invalid { what: "refusal reason", value: u64::from(other) }),
    }
}

#[cfg(test)]
mod tests;
