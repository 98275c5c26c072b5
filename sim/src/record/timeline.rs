//! What happened in a run, for the report: typed events with times, which either engine fills and
//! `report` draws.
//!
//! A timeline is told only if it was asked for ([`Trace::new`](crate::record::trace::Trace::new)
//! with `verbose`): a campaign pays one look at an `Option`. Filling it changes nothing in the run.

use crate::record::words::{clipped, described, extent, ids, write_text};
use crate::schedule::Fault;
use infinitystore::history::Operation;
use infinitystore::raft::{Body, LogIndex, Message, RoleName, Term};
use infinitystore::replica::{Notice, PeerMessage, Replica, StorageRequest};
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// What happened, in words.
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
    /// When it was asked, microseconds from the start.
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
                Notice::SnapshotRepeated { peer, times } => {
                    self.note(at, Some(slot), "snapshot repeated", format!("{times} for member {peer}"));
                }
                Notice::Withdrawn(why) => self.note(at, Some(slot), "withdrew", why.as_str()),
                Notice::PeerWithdrew { peer, why } => {
                    self.note(at, Some(slot), "peer withdrew", format!("member {peer}: {why}"));
                }
                Notice::StatesDiffer(index) => {
                    self.note(at, Some(slot), "states differ", format!("at {index}"))
                }
                Notice::DiskSlow { is_slow, write_micros } => {
                    let what = if *is_slow { "slow disk" } else { "disk quick again" };
                    self.note(at, Some(slot), what, format!("a write takes {write_micros} µs"));
                }
                Notice::LeftLeadToQuicker { successor, .. } => {
                    self.note(at, Some(slot), "lead left to a quicker disk", format!("member {successor}"));
                }
                Notice::LevelRaised(level) => {
                    self.note(at, Some(slot), "level raised", format!("to {level}"))
                }
                Notice::LevelAbove { level, told_by } => {
                    let what = format!("level {level}, said by member {told_by}");
                    self.note(at, Some(slot), "too old for the cluster", what);
                }
                Notice::LeaseCallsRefused { from, count } => {
                    self.note(at, Some(slot), "lease calls refused", format!("{count} of member {from}"));
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
