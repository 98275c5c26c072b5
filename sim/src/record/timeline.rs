//! What happened in a run, for the report: typed events with times, which either engine fills and
//! `report` draws.
//!
//! A timeline is told only if it was asked for ([`Trace::new`](crate::record::trace::Trace::new) with
//! `verbose`): a campaign pays one look at an `Option`. WireTap it changes nothing in the run.

use crate::schedule::{Cut, Fault};
use bytes::Bytes;
use infinitystore::history::Operation;
use infinitystore::kv::Op;
use infinitystore::raft::{Body, Entry, LogIndex, LogRecords, Message, NodeId, RoleName, Term};
use infinitystore::replica::{Notice, PeerMessage, Replica, StorageRequest, decode_proposal};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A text is cut after this many characters: a page has to stay small.
const TEXT_CHARS_MAX: usize = 220;
/// Entries (commands) of one message that are spelled out.
const ENTRIES_SHOWN_MAX: usize = 3;

/// What happened, each kind of event in the order in which it was told.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// What each machine was; one for each change.
    pub statuses: Vec<StatusChange>,
    /// Messages between machines.
    pub messages: Vec<MessageSent>,
    /// Faults, and what the operator did.
    pub faults: Vec<FaultSpan>,
    /// Work of disks.
    pub disk: Vec<DiskSpan>,
    /// Anything else worth a mark on a machine's lane.
    pub notes: Vec<Note>,
    /// What clients asked.
    pub operations: Vec<ClientOperation>,
    /// The last match index and term that each machine told each other one: the same again answers
    /// a heartbeat.
    matched: BTreeMap<(usize, usize), (Term, LogIndex)>,
}

/// What a process shows of its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `follower`, `pre-candidate`, `candidate` or `leader`.
    pub role: &'static str,
    /// Its term.
    pub term: u64,
    /// Its commit index.
    pub commit: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The last entry of its log.
    pub last: u64,
}

/// A machine's status from now on.
#[derive(Clone, Copy, Debug)]
pub struct StatusChange {
    /// Microseconds.
    pub at: u64,
    /// The machine.
    pub slot: usize,
    /// `None`: it is off.
    pub status: Option<Status>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrived, or will, at that time.
    Arrives(u64),
    /// This copy arrives beside another one.
    Duplicate(u64),
    /// Bits flipped, and what is left says something else.
    Altered(u64),
    /// The network lost it, or it was still held back when the run ended.
    Lost,
    /// Bits flipped, and what is left cannot be read.
    Unreadable,
}

/// A message between machines.
#[derive(Clone, Debug)]
pub struct MessageSent {
    /// When it was sent.
    pub at: u64,
    /// From which machine.
    pub from: usize,
    /// To which.
    pub to: usize,
    /// Its kind.
    pub kind: &'static str,
    /// Whether it only says that nothing is new.
    pub heartbeat: bool,
    /// What became of it.
    pub fate: Fate,
    /// What it says.
    pub text: String,
}

/// A fault, or something that the operator does.
#[derive(Clone, Debug)]
pub struct FaultSpan {
    /// When it strikes.
    pub at: u64,
    /// When it ends.
    pub until: u64,
    /// The machine it strikes; `None`: the network, or all of them.
    pub slot: Option<usize>,
    /// The kind of fault.
    pub kind: &'static str,
    /// Its particulars.
    pub text: String,
}

/// A disk's work.
#[derive(Clone, Debug)]
pub struct DiskSpan {
    /// When it began.
    pub at: u64,
    /// When it is done, unless the machine goes off before.
    pub until: u64,
    /// The machine.
    pub slot: usize,
    /// The kind of work.
    pub kind: &'static str,
    /// What was written or read.
    pub text: String,
}

/// Something that happened on a machine at one instant.
#[derive(Clone, Debug)]
pub struct Note {
    /// Microseconds.
    pub at: u64,
    /// Which machine; `None`: none in particular.
    pub slot: Option<usize>,
    /// What kind of thing.
    pub kind: &'static str,
    /// What.
    pub text: String,
}

/// How an operation ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was answered then.
    Answered(u64),
    /// It was told then that nothing happened.
    Failed(u64),
    /// It may have happened.
    Unknown,
}

/// What a client asked.
#[derive(Clone, Debug)]
pub struct ClientOperation {
    /// The client.
    pub client: usize,
    /// The machine it asked.
    pub slot: usize,
    /// About which key.
    pub key: String,
    /// What it asked.
    pub text: String,
    /// When.
    pub call: u64,
    /// How it ended.
    pub ended: Ended,
    /// What it was answered.
    pub answer: String,
    /// When it took effect, in the order that was found, and its place in its key's order.
    pub point: Option<(u64, usize)>,
    /// It is one of those that no order explains.
    pub suspect: bool,
}

impl Timeline {
    /// A process' status, if it is another than before.
    pub fn status(&mut self, at: u64, slot: usize, status: Option<Status>) {
        let before = self.statuses.iter().rev().find(|change| change.slot == slot);
        if before.and_then(|change| change.status) != status {
            self.statuses.push(StatusChange { at, slot, status });
        }
    }

    /// A message was sent.
    pub fn message(&mut self, at: u64, from: usize, to: usize, fate: Fate, message: &PeerMessage) {
        let (kind, mut heartbeat, text) = described(message);
        if let PeerMessage::Raft(Message { term, body: Body::AppendAccepted { match_index, .. }, .. }) =
            message
        {
            let told = (*term, *match_index);
            heartbeat = self.matched.insert((from, to), told) == Some(told);
        }
        self.messages.push(MessageSent { at, from, to, kind, heartbeat, fate, text: clipped(text) });
    }

    /// A fault of the schedule strikes.
    pub fn fault(&mut self, at: u64, fault: &Fault) {
        let (slot, length, text) = extent(fault);
        self.faults.push(FaultSpan { at, until: at + length, slot, kind: fault.name(), text });
    }

    /// A disk works.
    pub fn disk(&mut self, slot: usize, at: u64, until: u64, kind: &'static str, text: impl Into<String>) {
        self.disk.push(DiskSpan { at, until, slot, kind, text: clipped(text.into()) });
    }

    /// Something happened.
    pub fn note(&mut self, at: u64, slot: Option<usize>, kind: &'static str, text: impl Into<String>) {
        self.notes.push(Note { at, slot, kind, text: clipped(text.into()) });
    }

    /// What a replica reports, as far as no status shows it.
    pub fn notices(&mut self, at: u64, slot: usize, notices: &[Notice]) {
        for notice in notices {
            match notice {
                Notice::RoleChanged { .. } | Notice::MembershipCommitted(_) => {}
                Notice::MembershipChanged { membership, committed } => {
                    let standing = if *committed { "committed" } else { "appended" };
                    let mut text = format!("{standing}; voters {}", ids(membership.voters.iter()));
                    if let Some(outgoing) = &membership.outgoing {
                        text.push_str(&format!(", of the old half {}", ids(outgoing.iter())));
                    }
                    if !membership.learners.is_empty() {
                        text.push_str(&format!(", learners {}", ids(membership.learners.keys())));
                    }
                    self.note(at, Some(slot), "membership", text);
                }
                Notice::SnapshotTaken(last) => {
                    self.note(at, Some(slot), "snapshot saved", last.to_string());
                }
                Notice::SnapshotInstalled(last) => {
                    self.note(at, Some(slot), "snapshot installed", last.to_string());
                }
                Notice::SnapshotFailed(why) => {
                    self.note(at, Some(slot), "snapshot failed", why.as_str());
                }
                Notice::SnapshotNotTaken { peer, why, times } => {
                    let what = format!("by member {peer}, {times} in a row: {why}");
                    self.note(at, Some(slot), "snapshot refused", what);
                }
                Notice::Withdrawn(why) => self.note(at, Some(slot), "withdrew", why.as_str()),
                Notice::PeerWithdrew { peer, why } => {
                    self.note(at, Some(slot), "peer withdrew", format!("member {peer}: {why}"));
                }
                Notice::BadMessage { from, reason } => {
                    self.note(at, Some(slot), "bad message", format!("from member {from}: {reason}"));
                }
            }
        }
    }

    /// A batch of writes is on its way to the disk: written, and then synced as one.
    pub fn batch(&mut self, slot: usize, at: u64, until: u64, batch: &[StorageRequest]) {
        let writes: Vec<String> = batch
            .iter()
            .filter_map(|request| match request {
                StorageRequest::Write(write) => Some(write_text(write.records())),
                _ => None,
            })
            .collect();
        self.writes(slot, at, until, &writes);
    }

    /// The same, of what is known of the writes ([`write_text`]).
    pub fn writes(&mut self, slot: usize, at: u64, until: u64, writes: &[String]) {
        let text = format!("{} writes: {}", writes.len(), writes.join(" | "));
        self.disk(slot, at, until, "write and fsync", text);
    }

    /// A client asks.
    pub fn called(&mut self, client: usize, slot: usize, key: &[u8], text: impl Into<String>, call: u64) {
        self.operations.push(ClientOperation {
            client,
            slot,
            key: String::from_utf8_lossy(key).into_owned(),
            text: clipped(text.into()),
            call,
            ended: Ended::Unknown,
            answer: String::new(),
            point: None,
            suspect: false,
        });
    }

    /// A client's last question has ended.
    pub fn ended(&mut self, client: usize, ended: Ended, answer: impl Into<String>) {
        let last = self.operations.iter_mut().rev().find(|operation| operation.client == client);
        if let Some(operation) = last {
            operation.ended = ended;
            operation.answer = clipped(answer.into());
        }
    }

    /// The told operation that `operation` of the history is: a client asks one thing after the
    /// other.
    pub fn find(&mut self, operation: &Operation) -> Option<&mut ClientOperation> {
        let client = usize::try_from(operation.client).ok()?;
        self.operations.iter_mut().find(|told| told.client == client && told.call == operation.call)
    }
}

impl Status {
    /// The status of a replica.
    #[must_use]
    pub fn of(replica: &Replica) -> Self {
        let raft = replica.raft();
        let role = match raft.role() {
            RoleName::Follower => "follower",
            RoleName::PreCandidate => "pre-candidate",
            RoleName::Candidate => "candidate",
            RoleName::Leader => "leader",
        };
        Self {
            role,
            term: raft.term().get(),
            commit: raft.commit_index().get(),
            applied: replica.last_applied().index.get(),
            last: raft.last_log().index.get(),
        }
    }
}

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
    if let Some(chunk) = &records.snapshot_chunk {
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
        Op::Set { key, value } => format!("set {} = {}", short(key), short(value)),
        Op::Delete { key } => format!("delete {}", short(key)),
    }
}

/// Bytes for a reader: what is no text is replaced, what is long is cut.
#[must_use]
pub fn short(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 12;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BYTES_MAX)]).into_owned();
    if bytes.len() > BYTES_MAX { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

fn ids<'a>(ids: impl Iterator<Item = &'a NodeId>) -> String {
    ids.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn clipped(mut text: String) -> String {
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
            Ok((_, op)) => text.push_str(&op_text(&op)),
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
        .map_or_else(|_| format!("{} bytes", command.len()), |(_, op)| op_text(&op))
}

/// Kind, whether it is a heartbeat (or the answer to one, as far as can be told), and content of a
/// message.
fn described(message: &PeerMessage) -> (&'static str, bool, String) {
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
        Body::Heard { round } => {
            heartbeat = true;
            ("Heard", write!(text, ", round {round:?}"))
        }
        Body::InstallSnapshot { snapshot, offset, data, done, .. } => {
            let end = if *done { ", the last" } else { "" };
            let (last, length) = (snapshot.last, data.len());
            ("InstallSnapshot", write!(text, ", snapshot {last}, {length} bytes at {offset}{end}"))
        }
        Body::SnapshotProgress { snapshot, next_offset, .. } => {
            ("SnapshotProgress", write!(text, ", snapshot {snapshot}, next {next_offset}"))
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
        Body::ReadIndexRefused { sequence, .. } => ("ReadIndexRefused", write!(text, ", read {sequence}")),
    };
    written.expect("a string takes everything");
    (kind, heartbeat, text)
}

/// Which machine a fault strikes, for how long, and how.
fn extent(fault: &Fault) -> (Option<usize>, u64, String) {
    let seconds = |micros: u64| format!("{:.3} s", micros as f64 / 1e6);
    match fault {
        Fault::Kill { slot, back_micros }
        | Fault::Move { slot, back_micros }
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
