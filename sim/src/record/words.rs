//! What messages, writes, faults and operations are called in the report.

use crate::schedule::{Cut, Fault};
use bytes::Bytes;
use infinitystore::kv::Op;
use infinitystore::raft::{Body, Entry, LogRecords, Message, NodeId};
use infinitystore::replica::{PeerMessage, StorageRequest, decode_proposal};
use std::fmt::Write as _;

/// A text is cut after this many characters: a page has to stay small.
const TEXT_CHARS_MAX: usize = 220;
/// Entries (commands) of one message that are spelled out.
const ENTRIES_SHOWN_MAX: usize = 3;

/// What a write puts into the log.
#[must_use]
pub fn write_text(records: &LogRecords) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = records.hard_state {
        let vote = hard_state.voted_for.map_or_else(|| "nobody".to_owned(), |id| format!("member {id}"));
        parts.push(format!("term {}, vote for {vote}", hard_state.term));
    }
    if let Some(from) = records.truncate_from {
        parts.push(format!("truncate from {from}"));
    }
    for chunk in &records.snapshot_chunks {
        parts.push(format!("snapshot chunk at {}", chunk.offset));
    }
    if let Some(meta) = &records.snapshot {
        parts.push(format!("snapshot {}", meta.last));
    }
    if !records.entries.is_empty() {
        parts.push(entries_text(&records.entries));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
}

/// What work beside the log is about.
#[must_use]
pub fn beside_text(request: &StorageRequest) -> String {
    match request {
        StorageRequest::SaveSnapshot(save) => format!("to {}", save.last),
        StorageRequest::ReadChunk(read) => format!("for member {}, at {}", read.to, read.offset),
        StorageRequest::Write(write) => write_text(write.records()),
        StorageRequest::Committed(index) => format!("up to {index}"),
    }
}

/// An operation as a reader wants it.
#[must_use]
pub fn op_text(op: &Op) -> String {
    match op {
        Op::Put(put) => format!("set {} = {}", short(&put.key), short(&put.value)),
        Op::Delete(range) => match range.one_key() {
            Some(key) => format!("delete {}", short(key)),
            None => format!("delete from {} to {:?}", short(&range.start), range.end.as_deref().map(short)),
        },
        other => format!("{other:?}"),
    }
}

/// Bytes for a reader: what is no text is replaced, what is long is cut.
#[must_use]
pub fn short(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 12;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX)]).into_owned();
    if bytes.len() > BYTES_MAX { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

pub(super) fn ids<'a>(ids: impl Iterator<Item = &'a NodeId>) -> String {
    ids.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

pub(super) fn clipped(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn entries_text(entries: &[Entry]) -> String {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return "no entries".to_owned();
    };
    let mut text = if entries.len() == 1 {
        format!("entry {}", first.id())
    } else {
        format!("{} entries {} to {}", entries.len(), first.id(), last.id())
    };
    for (number, entry) in entries.iter().take(ENTRIES_SHOWN_MAX).enumerate() {
        text.push_str(if number == 0 { ": " } else { ", " });
        match decode_proposal(entry.data()) {
            Ok((_, command)) => text.push_str(&op_text(&command.op)),
            Err(_) => text.push_str(&format!("{:?}", entry.kind()).to_lowercase()),
        }
    }
    if entries.len() > ENTRIES_SHOWN_MAX {
        text.push_str(", …");
    }
    text
}

fn command_text(command: &Bytes) -> String {
    decode_proposal(command.clone())
        .map_or_else(|_| format!("{} bytes", command.len()), |(_, command)| op_text(&command.op))
}

/// Kind, whether it is a heartbeat (or the answer to one, as far as can be told), and content of a
/// message.
pub(super) fn described(message: &PeerMessage) -> (&'static str, bool, String) {
    match message {
        PeerMessage::Raft(message) => raft_described(message),
        PeerMessage::Forward(forward) => {
            let shown: Vec<String> =
                forward.commands.iter().take(ENTRIES_SHOWN_MAX).map(command_text).collect();
            let (term, count) = (forward.term, forward.commands.len());
            let text = format!(
                "term {term}, sequence {}, {count} commands: {}",
                forward.first_sequence,
                shown.join(", ")
            );
            ("Forward", false, text)
        }
        PeerMessage::StateHash(said) => (
            "StateHash",
            false,
            format!("term {}, {:?} at {}: {:032x}", said.term, said.kind, said.index, said.hash),
        ),
        PeerMessage::DiskPace(said) => {
            ("DiskPace", false, format!("term {}, a write takes {} µs", said.term, said.write_micros))
        }
        PeerMessage::Levels(said) => ("Levels", false, format!("term {}, speaks {}", said.term, said.speaks)),
        PeerMessage::LeaseCalls(said) => ("LeaseCalls", false, format!("{:?}", said.calls)),
        PeerMessage::LeaseAnswers(said) => ("LeaseAnswers", false, format!("{:?}", said.answers)),
        PeerMessage::ForwardRefused(refused) => {
            let why = format!("{:?}", refused.why);
            let (term, count, first) = (refused.term, refused.count, refused.first_sequence);
            ("ForwardRefused", false, format!("term {term}, {count} commands from sequence {first}: {why}"))
        }
    }
}

fn raft_described(message: &Message) -> (&'static str, bool, String) {
    let mut text = format!("term {}", message.term);
    let mut heartbeat = false;
    // Writing to a string does not fail.
    let (kind, written) = match &message.body {
        Body::PreVote { campaign_term, last_log } => {
            ("PreVote", write!(text, ", for term {campaign_term}, log to {last_log}"))
        }
        Body::PreVoteGranted { campaign_term } => {
            ("PreVoteGranted", write!(text, ", for term {campaign_term}"))
        }
        Body::PreVoteRejected { campaign_term } => {
            ("PreVoteRejected", write!(text, ", for term {campaign_term}"))
        }
        Body::RequestVote { last_log, transfer } => {
            let why = if *transfer { ", leadership handed over" } else { "" };
            ("RequestVote", write!(text, ", log to {last_log}{why}"))
        }
        Body::VoteGranted => ("VoteGranted", Ok(())),
        Body::VoteRejected => ("VoteRejected", Ok(())),
        Body::AppendEntries { prev, entries, commit, round, .. } => {
            heartbeat = entries.is_empty();
            let what = entries_text(entries);
            ("AppendEntries", write!(text, ", after {prev}, commit {commit}, round {round:?}, {what}"))
        }
        Body::AppendAccepted { match_index, round, .. } => {
            ("AppendAccepted", write!(text, ", match {match_index}, round {round:?}"))
        }
        Body::AppendRejected { rejected, hint, .. } => {
            ("AppendRejected", write!(text, ", {rejected} does not match, try {hint}"))
        }
        Body::Heard { round, .. } => {
            heartbeat = true;
            ("Heard", write!(text, ", round {round:?}"))
        }
        Body::InstallSnapshot { snapshot, offset, data, done, .. } => {
            let end = if *done { ", the last" } else { "" };
            let (last, length) = (snapshot.last, data.len());
            ("InstallSnapshot", write!(text, ", snapshot {last}, {length} bytes at {offset}{end}"))
        }
        Body::SnapshotProgress { snapshot, next_offset, is_lacking, .. } => {
            let lacking = if *is_lacking { ", lacking" } else { "" };
            ("SnapshotProgress", write!(text, ", snapshot {snapshot}, next {next_offset}{lacking}"))
        }
        Body::SnapshotInstalled { match_index, .. } => {
            ("SnapshotInstalled", write!(text, ", match {match_index}"))
        }
        Body::SnapshotRefused { snapshot, why, .. } => {
            ("SnapshotRefused", write!(text, ", snapshot {snapshot}: {why}"))
        }
        Body::TimeoutNow => ("TimeoutNow", Ok(())),
        Body::ReadIndex { sequence, .. } => ("ReadIndex", write!(text, ", read {sequence}")),
        Body::ReadIndexReady { sequence, index, .. } => {
            ("ReadIndexReady", write!(text, ", read {sequence} at {index}"))
        }
        Body::Withdrawn(why) => ("Withdrawn", write!(text, ", {why:?}")),
        Body::ReadIndexRefused { sequence, why, .. } => {
            ("ReadIndexRefused", write!(text, ", read {sequence}, {why:?}"))
        }
    };
    written.expect("a string takes everything");
    (kind, heartbeat, text)
}

/// Which machine a fault strikes, for how long, and how.
pub(super) fn extent(fault: &Fault) -> (Option<usize>, u64, String) {
    let seconds = |micros: u64| format!("{:.3} s", micros as f64 / 1e6);
    match fault {
        Fault::Kill { slot, back_micros }
        | Fault::Move { slot, back_micros }
        | Fault::Release { slot, back_micros, .. }
        | Fault::PowerLoss { slot, back_micros } => {
            (Some(*slot), *back_micros, format!("back after {}", seconds(*back_micros)))
        }
        Fault::Blackout { back_micros } => {
            (None, *back_micros, format!("all machines, back after {}", seconds(*back_micros)))
        }
        Fault::Pause { slot, for_micros } | Fault::DiskFull { slot, for_micros } => {
            (Some(*slot), *for_micros, format!("for {}", seconds(*for_micros)))
        }
        Fault::Partition { cut, for_micros } => (None, *for_micros, cut_text(cut)),
        Fault::SlowNode { slot, by_micros, for_micros } | Fault::SlowDisk { slot, by_micros, for_micros } => {
            (Some(*slot), *for_micros, format!("by {} for {}", seconds(*by_micros), seconds(*for_micros)))
        }
        Fault::FailSync { slot } | Fault::FailWrite { slot } | Fault::Misdirect { slot } => {
            (Some(*slot), 0, "the next one".to_owned())
        }
        Fault::Wipe { slot } | Fault::Join { slot } | Fault::Learn { slot } | Fault::Remove { slot } => {
            (Some(*slot), 0, "asked for; it happens if the others can bear it".to_owned())
        }
        Fault::Rot { slot, file } => {
            (Some(*slot), 0, format!("a bit of {file:?}, if the others can bear it"))
        }
        Fault::Disk { slot, trouble } => (Some(*slot), 0, format!("{trouble:?}")),
        Fault::Exchange { slot, with } => {
            (Some(*slot), 0, format!("for machines {with:?}, if they can bear it"))
        }
        Fault::InJointState { after_micros, what } => {
            (None, 0, format!("{} after the next one begins: {what:?}", seconds(*after_micros)))
        }
        Fault::WhenInstalling { after_micros, what } => (
            None,
            0,
            format!("{} after a snapshot is about to be installed: {what:?}", seconds(*after_micros)),
        ),
        Fault::SplitJoint { for_micros, .. } => {
            (None, *for_micros, format!("if there is a joint state, for {}", seconds(*for_micros)))
        }
        Fault::Flood { for_micros, every_micros } => {
            (None, *for_micros, format!("a write every {}", seconds(*every_micros)))
        }
        Fault::ClockJump { slot, by_micros } => (Some(*slot), 0, format!("ahead by {}", seconds(*by_micros))),
        Fault::Transfer { slot } => (*slot, 0, "of leadership, asked of the leader".to_owned()),
    }
}

fn cut_text(cut: &Cut) -> String {
    match cut {
        Cut::Split(side) => format!("machines {side:?} against the others"),
        Cut::Mute(slot) => format!("nothing leaves machine {slot}"),
        Cut::Deaf(slot) => format!("nothing reaches machine {slot}"),
        Cut::Bridge(slot) => format!("two halves that share machine {slot}"),
        Cut::Ring => "each machine reaches its neighbours only".to_owned(),
        Cut::OneWay(from, to) => format!("nothing from machine {from} to machine {to}"),
    }
}
