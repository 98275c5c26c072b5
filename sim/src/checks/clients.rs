//! The clients: each asks one thing after the other, and writes down what it saw.

use crate::record::timeline::{Ended, Timeline};
use crate::record::violation::Violation;
use crate::record::words::{op_text, short};
use crate::schedule::{Operation, OperationKind, Schedule, Timed};
use bytes::Bytes;
use infinitystore::history::{
    Action, Effort, OperationId, Recorder, Verdict, check as check_history, witness,
};
use infinitystore::kv::{Command, Found, Op, Outcome, QueryAnswer};
use infinitystore::raft::Entry;
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Level, RequestId, decode_proposal};
use std::collections::BTreeSet;

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its set succeeded, at this revision, if it was told which.
    Set {
        /// The revision.
        revision: Option<u64>,
    },
    /// Its delete succeeded.
    Deleted,
    /// What it read, with its revision, if it was told.
    Value(Option<(Bytes, Option<u64>)>),
    /// It did not happen, and will not.
    Failed,
    /// It may have happened, or may yet.
    Unknown,
}

impl Seen {
    /// For the report: how the operation ended, and the answer.
    fn told(&self, now: u64) -> (Ended, String) {
        let at = |revision: &Option<u64>| revision.map_or(String::new(), |it| format!(" at revision {it}"));
        match self {
            Self::Set { revision } => (Ended::Answered(now), format!("done{}", at(revision))),
            Self::Deleted => (Ended::Answered(now), "done".to_owned()),
            Self::Value(None) => (Ended::Answered(now), "nothing".to_owned()),
            Self::Value(Some((value, revision))) => {
                (Ended::Answered(now), format!("{}{}", short(value), at(revision)))
            }
            Self::Failed => (Ended::Failed(now), "failed: it did not happen".to_owned()),
            Self::Unknown => (Ended::Unknown, "unknown: it may have happened".to_owned()),
        }
    }
}

impl From<&ClientReply> for Seen {
    fn from(reply: &ClientReply) -> Self {
        match reply {
            ClientReply::Written(Outcome::Put { revision, .. }) => Self::Set { revision: Some(revision.0) },
            ClientReply::Written(Outcome::Deleted { .. }) => Self::Deleted,
            ClientReply::Answer(QueryAnswer { found: Found::Key(found), .. }) => {
                Self::Value(found.as_ref().map(|found| (found.value.clone(), Some(found.mod_revision.0))))
            }
            ClientReply::Failed(ClientError::Unknown) => Self::Unknown,
            _ => Self::Failed,
        }
    }
}

/// An operation that a client waits for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    recorded: OperationId,
    request: RequestId,
    kind: OperationKind,
}

#[derive(Debug)]
struct Client {
    plan: Vec<Timed<Operation>>,
    next: usize,
    waiting: Option<Waiting>,
}

/// All clients of a run, and their history.
#[derive(Debug)]
pub struct Clients {
    clients: Vec<Client>,
    recorder: Recorder,
    value_bytes: usize,
    last_request: u64,
    /// Sets of unknown outcome. The log settles them at the end.
    unknown: Vec<(OperationId, Bytes)>,
    /// Operations that were answered.
    answered: u64,
    /// Operations that failed, or whose outcome was unknown.
    unanswered: u64,
}

impl Clients {
    /// The clients of a schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let clients = schedule.clients.iter();
        let clients = clients.map(|plan| Client { plan: plan.clone(), next: 0, waiting: None }).collect();
        Self {
            clients,
            recorder: Recorder::new(),
            value_bytes: schedule.settings.value_bytes,
            last_request: 0,
            unknown: Vec::new(),
            answered: 0,
            unanswered: 0,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Operations answered, and not.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.answered, self.unanswered)
    }

    /// When a client wants to ask next, and which machine; `None` while it waits, and at the end of
    /// its plan.
    #[must_use]
    pub fn next(&self, client: usize) -> Option<(u64, usize)> {
        let client = &self.clients[client];
        if client.waiting.is_some() {
            return None;
        }
        client.plan.get(client.next).map(|operation| (operation.at, operation.what.slot))
    }

    /// Whether any of them waits for an answer.
    #[must_use]
    pub fn are_waiting(&self) -> bool {
        self.clients.iter().any(|client| client.waiting.is_some())
    }

    /// A client's next operation cannot be sent: the machine does not listen.
    pub fn skip(&mut self, client: usize) {
        self.clients[client].next += 1;
        self.unanswered += 1;
    }

    /// A client sends its next operation.
    pub fn send(
        &mut self,
        client: usize,
        now: u64,
        timeline: Option<&mut Timeline>,
    ) -> (RequestId, ClientRequest) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        let position = self.clients[client].next;
        let operation = self.clients[client].plan[position].what.clone();
        let key = Bytes::from(format!("key{}", operation.key));
        let (action, body) = match operation.kind {
            OperationKind::Set => {
                let mut value = format!("{client}.{position}:").into_bytes();
                value.resize(value.len() + self.value_bytes, b'0');
                let value = Bytes::from(value);
                (Action::Set(value.clone()), ClientRequest::write(Op::set(key.clone(), value)))
            }
            OperationKind::Delete => (Action::Delete, ClientRequest::write(Op::delete(key.clone()))),
            OperationKind::Get => (Action::Get, ClientRequest::read(key.clone(), Level::Linearizable)),
        };
        if let Some(timeline) = timeline {
            let text = match &body {
                ClientRequest::Write(command) => op_text(&command.op),
                _ => format!("get {}", short(&key)),
            };
            timeline.called(client, operation.slot, &key, text, now);
        }
        let value = if let Action::Set(value) = &action { Some(value.clone()) } else { None };
        let recorded = self.recorder.call(client as u64, key, action, now);
        if let Some(value) = value {
            self.unknown.push((recorded, value));
        }
        let state = &mut self.clients[client];
        state.waiting = Some(Waiting { recorded, request, kind: operation.kind });
        state.next += 1;
        (request, body)
    }

    /// An answer reached a client. `false` if it does not wait for it any more.
    pub fn answer(
        &mut self,
        client: usize,
        request: RequestId,
        seen: &Seen,
        now: u64,
        timeline: Option<&mut Timeline>,
    ) -> bool {
        let Some(waiting) = self.clients[client].waiting.filter(|waiting| waiting.request == request) else {
            return false;
        };
        let id = waiting.recorded;
        if let Some(timeline) = timeline {
            let (ended, answer) = seen.told(now);
            timeline.ended(client, ended, answer);
        }
        match seen {
            Seen::Set { revision: Some(revision) } => self.recorder.done_at_revision(id, now, *revision),
            Seen::Set { revision: None } | Seen::Deleted => self.recorder.done(id, now),
            Seen::Value(Some((value, Some(revision)))) => {
                self.recorder.got_at_revision(id, now, value.clone(), *revision);
            }
            Seen::Value(value) => self.recorder.got(id, now, value.as_ref().map(|(value, _)| value.clone())),
            Seen::Unknown => return self.give_up(client, request),
            Seen::Failed => self.recorder.failed(id),
        }
        self.unknown.retain(|(unknown, _)| *unknown != id);
        self.clients[client].waiting = None;
        if *seen == Seen::Failed {
            self.unanswered += 1;
        } else {
            self.answered += 1;
        }
        true
    }

    /// A client's time is up, or its connection broke. `false` if it does not wait for that request
    /// any more.
    pub fn give_up(&mut self, client: usize, request: RequestId) -> bool {
        let Some(waiting) = self.clients[client].waiting.filter(|waiting| waiting.request == request) else {
            return false;
        };
        if waiting.kind == OperationKind::Get {
            self.recorder.failed(waiting.recorded);
        }
        self.clients[client].waiting = None;
        self.unanswered += 1;
        true
    }

    /// The history. Sets of unknown outcome that are not in the final log never happened.
    #[must_use]
    pub fn into_history(mut self, log: &[Entry]) -> Vec<infinitystore::history::Operation> {
        let written: BTreeSet<Bytes> = log
            .iter()
            .filter_map(|entry| match decode_proposal(entry.data()) {
                Ok((_, Command { op: Op::Put(put), .. })) => Some(put.value),
                _ => None,
            })
            .collect();
        for (id, value) in self.unknown {
            if !written.contains(&value) {
                self.recorder.failed(id);
            }
        }
        self.recorder.into_operations()
    }
}

/// The clients' history must be linearizable, given the committed log. The timeline learns where
/// each operation took effect, or which ones nothing explains.
#[must_use]
pub fn check_clients(clients: Clients, log: &[Entry], timeline: Option<&mut Timeline>) -> Option<Violation> {
    let history = clients.into_history(log);
    let verdict = check_history(&history, Effort::default()).verdict;
    if let Some(timeline) = timeline {
        let suspects = match &verdict {
            Verdict::Violation(violation) => &violation.operations[..],
            _ => &[],
        };
        for operation in suspects {
            if let Some(told) = timeline.find(operation) {
                told.suspect = true;
            }
        }
        for point in witness(&history, Effort::default()) {
            if let Some(told) = timeline.find(&history[point.operation]) {
                told.point = Some((point.at, point.position));
            }
        }
    }
    match verdict {
        Verdict::Linearizable => None,
        Verdict::Violation(violation) => {
            Some(Violation { check: "linearizability", what: violation.to_string() })
        }
        other => {
            Some(Violation { check: "linearizability", what: format!("the search did not end: {other:?}") })
        }
    }
}
