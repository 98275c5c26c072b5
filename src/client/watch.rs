//! A watch: changes as they happen, without a gap, whichever nodes come and go.

use crate::client::attempts::{Client, ClientOptions, connect};
use crate::client::connection::StreamedAnswer;
use crate::client::endpoint::Endpoint;
use crate::client::error::{CallError, CallFailure, RefusedCall, WriteOutcome, quote};
use crate::client::events::{EventMessage, EventReader, TooLong};
use crate::client::json::{KeyValueBody, NoSuchJson, bytes_of};
use crate::client::request::Ask;
use crate::client::target::Target;
use crate::kv::{Event, KeyRange, KeyValue, LeaseId, Revision, RevisionChanges};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Between two rounds over all nodes: at first, and at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A node says something at least this often. A connection that held for so long was a good one.
const STEADY: Duration = Duration::from_secs(10);
/// Why a node ends a watch that no other node would go on with, each with the status of an answer
/// that says so.
const FINAL_CODES: &[(&str, u16)] =
    &[("revision-too-large", 413), ("forbidden", 403), ("unauthenticated", 401)];

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchQuery {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision that is wanted; `None`: the one after the present one.
    pub from: Option<Revision>,
    /// Whether puts are wanted.
    pub puts: bool,
    /// Whether deletions are wanted.
    pub deletions: bool,
    /// Whether the version that each change replaced is wanted.
    pub previous: bool,
    /// A watch that has lost its node tries to find another that goes on for so long before it
    /// ends.
    pub patience: Duration,
}

impl WatchQuery {
    /// Everything that happens to a range from now on.
    #[must_use]
    pub fn of(range: KeyRange) -> Self {
        let patience = Duration::from_secs(300);
        Self { range, from: None, puts: true, deletions: true, previous: false, patience }
    }
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// What one revision changed, all of it that is wanted.
    Changes(RevisionChanges),
    /// Everything up to this revision has been said.
    Progress(Revision),
    /// What the watch wanted next is gone from history. This is the oldest revision that is there:
    /// a caller that goes on is given everything from there on, and has missed something.
    Compacted(Revision),
}

/// A watch. It has a connection of its own. When that breaks, or its node says nothing any more, it
/// asks the next node for what follows the last revision that it was told of.
#[derive(Debug)]
pub struct Watch {
    endpoints: Arc<[Endpoint]>,
    /// The one that is asked next.
    at: usize,
    options: ClientOptions,
    query: WatchQuery,
    /// The first revision that has not been told; `None`: it has not begun.
    next: Option<Revision>,
    /// Whether a node has ever taken it.
    was_connected: bool,
    stream: Option<Stream>,
    /// Nothing new has come since it lost its node. That a node takes the watch is not enough: one
    /// that was removed takes it, and ends it at once.
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    /// How many nodes have failed since then.
    failures: usize,
    /// Before the round after the next one.
    pause: Duration,
    /// The next node is asked then.
    again_at: Instant,
}

#[derive(Debug)]
struct Stream {
    began: Instant,
    answer: StreamedAnswer,
    reader: EventReader,
    /// What was received and not taken apart.
    piece: Bytes,
    /// When the node said something last.
    last_heard: Instant,
}

#[derive(Deserialize)]
struct ChangesBody {
    revision: Revision,
    events: Vec<EventBody>,
}

#[derive(Deserialize)]
struct EventBody {
    #[serde(rename = "type")]
    kind: EventKind,
    #[serde(flatten)]
    key: KeyValueBody,
    previous: Option<PreviousBody>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EventKind {
    Put,
    Delete,
}

#[derive(Deserialize)]
struct PreviousBody {
    value: Option<String>,
    value64: Option<String>,
    create_revision: Revision,
    mod_revision: Revision,
    version: u64,
    #[serde(default)]
    lease: LeaseId,
}

#[derive(Deserialize)]
struct FailureBody {
    code: String,
    #[serde(default)]
    detail: String,
    revision: Option<Revision>,
}

#[derive(Deserialize)]
struct RevisionBody {
    revision: Revision,
}

impl Client {
    /// Watches a range. It connects when its first message is asked for.
    #[must_use]
    pub fn watch(&self, query: WatchQuery) -> Watch {
        Watch {
            endpoints: self.endpoints().clone(),
            at: self.place(),
            options: self.options().clone(),
            next: query.from,
            query,
            was_connected: false,
            stream: None,
            trouble: None,
        }
    }
}

impl Watch {
    /// What follows. Nothing is lost if the caller does not wait for it to the end.
    ///
    /// # Errors
    /// [`CallError`]: the request is wrong in itself, or no more allowed; what comes next is too
    /// large for a node to send, or for this client to take in; or no node went on, in one round
    /// over all nodes if the watch has never been connected, and for [`WatchQuery::patience`]
    /// otherwise.
    pub async fn next(&mut self) -> Result<WatchMessage, CallError> {
        loop {
            if self.stream.is_none()
                && let Some(compacted) = self.reconnect().await?
            {
                return Ok(self.compacted(compacted));
            }
            match self.receive().await {
                Ok(Some(message)) => {
                    self.trouble = None;
                    return Ok(message);
                }
                Ok(None) => {}
                Err(failure) => {
                    tracing::debug!(endpoint = %self.endpoints[self.at], %failure, "the watch lost its node");
                    let was_steady =
                        self.stream.as_ref().is_none_or(|stream| stream.began.elapsed() >= STEADY);
                    if (was_steady || self.trouble.is_none()) && failure.is_of_the_node() {
                        // Another node is asked at once.
                        self.trouble = Some(Trouble::now());
                        self.pass_on();
                    } else {
                        self.fail(failure)?;
                    }
                }
            }
        }
    }

    fn compacted(&mut self, oldest: Revision) -> WatchMessage {
        self.stream = None;
        self.next = Some(oldest);
        WatchMessage::Compacted(oldest)
    }

    fn pass_on(&mut self) {
        self.stream = None;
        self.at = (self.at + 1) % self.endpoints.len();
    }

    /// A node has failed: the next one is asked after a while.
    ///
    /// # Errors
    /// It is no use to ask another one, or it was long enough.
    #[allow(clippy::result_large_err, reason = "the error is made once, and passed on as it is")]
    fn fail(&mut self, failure: CallFailure) -> Result<(), CallError> {
        let endpoint = self.endpoints[self.at].clone();
        self.pass_on();
        let mut trouble = self.trouble.take().unwrap_or_else(Trouble::now);
        trouble.failures += 1;
        let is_round = trouble.failures.is_multiple_of(self.endpoints.len());
        let is_over = !self.was_connected || trouble.since.elapsed() >= self.query.patience;
        if !failure.is_of_the_node() || (is_round && is_over) {
            return Err(CallError { endpoint, failure, is_write: false, maybe_done: false });
        }
        if is_round {
            trouble.again_at = Instant::now() + trouble.pause;
            trouble.pause = (trouble.pause * 2).min(PAUSE_MAX);
        }
        self.trouble = Some(trouble);
        Ok(())
    }

    /// Asks the nodes, one after the other, until one takes the watch. `Some`: what is wanted is
    /// gone, and this is the oldest revision that is there.
    async fn reconnect(&mut self) -> Result<Option<Revision>, CallError> {
        loop {
            if let Some(trouble) = &self.trouble {
                sleep_until(trouble.again_at).await;
            }
            match self.connect().await {
                Ok(compacted) => return Ok(compacted),
                Err(failure) => self.fail(failure)?,
            }
        }
    }

    async fn connect(&mut self) -> Result<Option<Revision>, CallFailure> {
        let endpoint = &self.endpoints[self.at];
        let request = self.ask()?.to_http(endpoint, self.options.credentials.as_ref(), false);
        let connection = connect(endpoint, &self.options).await?;
        let late = |_| CallFailure::Late;
        let answer =
            timeout(self.options.answer_timeout, connection.stream(request)).await.map_err(late)??;
        if answer.status() != 200 {
            let whole = answer.whole(self.options.answer_bytes_max);
            let whole = timeout(self.options.answer_timeout, whole).await.map_err(late)??;
            let failure = match self.ask()?.judge(whole) {
                Err(failure) => failure,
                Ok(_) => CallFailure::Nonsense("a watch begins with status 200".to_owned()),
            };
            return match compacted_of(&failure) {
                Some(oldest) => Ok(Some(oldest)),
                None => Err(failure),
            };
        }
        if answer.content_type().is_none_or(|kind| kind != "text/event-stream") {
            return Err(CallFailure::Nonsense("a watch is a stream of events".to_owned()));
        }
        let reader = EventReader::new(self.options.watch_message_bytes_max);
        let now = Instant::now();
        self.stream = Some(Stream { began: now, answer, reader, piece: Bytes::new(), last_heard: now });
        self.was_connected = true;
        Ok(None)
    }

    fn ask(&self) -> Result<Ask, CallFailure> {
        let WatchQuery { range, puts, deletions, previous, .. } = &self.query;
        let target = Target::new("/v1/watch");
        let target = match range.one_key() {
            Some(key) => target.with_bytes("key", key),
            None => target.with_range(range),
        };
        let target = target
            .with_some("from", self.next)
            .with_flag("deletes_only", !puts)
            .with_flag("puts_only", !deletions)
            .with_flag("previous", *previous);
        Ask::get(target.into_text(), &[200])
    }

    /// The next message of the stream; `None`: one that says nothing new.
    async fn receive(&mut self) -> Result<Option<WatchMessage>, CallFailure> {
        let stream = self.stream.as_mut().expect("the caller has connected");
        let message = stream.message(&self.options).await?;
        let wrong = |NoSuchJson| CallFailure::Nonsense("an event that no node sends".to_owned());
        match &*message.name {
            "" => {
                let changes = read_changes(&message.data).map_err(wrong)?;
                if self.next.is_some_and(|next| changes.revision < next) {
                    return Err(CallFailure::Nonsense(format!("revision {} comes again", changes.revision)));
                }
                self.next = Some(changes.revision.next());
                Ok(Some(WatchMessage::Changes(changes)))
            }
            "progress" => {
                let revision = read_revision(&message.data).map_err(wrong)?;
                let is_news = self.next.is_none_or(|next| revision >= next);
                // A client that watches from a revision to come has heard of all before it.
                self.next = Some(self.next.unwrap_or_default().max(revision.next()));
                Ok(is_news.then_some(WatchMessage::Progress(revision)))
            }
            "compacted" => {
                let oldest = read_revision(&message.data).map_err(wrong)?;
                Ok(Some(self.compacted(oldest)))
            }
            "failed" => Err(read_failure(&message.data)),
            // Of a later version.
            _ => Ok(None),
        }
    }
}

impl Trouble {
    fn now() -> Self {
        let now = Instant::now();
        Self { since: now, failures: 0, pause: PAUSE, again_at: now }
    }
}

impl Stream {
    async fn message(&mut self, options: &ClientOptions) -> Result<EventMessage, CallFailure> {
        loop {
            match self.reader.take(&mut self.piece) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(TooLong) => return Err(CallFailure::TooLong(options.watch_message_bytes_max)),
            }
            let piece = timeout_at(self.last_heard + options.watch_silence_max, self.answer.piece()).await;
            let piece = piece.map_err(|_| CallFailure::Late)??;
            self.piece = piece.ok_or_else(|| CallFailure::Lost("the node ended it".to_owned()))?;
            self.last_heard = Instant::now();
        }
    }
}

/// The oldest revision that is there, if the failure is that another was asked for.
fn compacted_of(failure: &CallFailure) -> Option<Revision> {
    match failure {
        CallFailure::Refused(refusal) if refusal.code.as_deref() == Some("compacted") => refusal.revision,
        _ => None,
    }
}

/// Why a node ended the watch. What every other node would say too is a refusal.
fn read_failure(data: &[u8]) -> CallFailure {
    let lost = || CallFailure::Lost(format!("the node ended it: {}", quote(data)));
    let Ok(FailureBody { code, detail, revision }) = serde_json::from_slice(data) else { return lost() };
    let Some((_, status)) = FINAL_CODES.iter().find(|(known, _)| *known == code) else { return lost() };
    CallFailure::Refused(RefusedCall {
        status: *status,
        text: quote(detail.as_bytes()),
        code: Some(code),
        revision,
        present: None,
        reason: None,
        outcome: WriteOutcome::NotApplied,
    })
}

fn read_revision(data: &[u8]) -> Result<Revision, NoSuchJson> {
    let body: RevisionBody = serde_json::from_slice(data).map_err(|_| NoSuchJson)?;
    Ok(body.revision)
}

fn read_changes(data: &[u8]) -> Result<RevisionChanges, NoSuchJson> {
    let ChangesBody { revision, events } = serde_json::from_slice(data).map_err(|_| NoSuchJson)?;
    let events = events.into_iter().map(read_event).collect::<Result<_, _>>()?;
    Ok(RevisionChanges { revision, events })
}

fn read_event(body: EventBody) -> Result<Event, NoSuchJson> {
    let now = KeyValue::try_from(body.key)?;
    let key = now.key.clone();
    let previous = match body.previous {
        None => None,
        Some(previous) => Some(KeyValue {
            key: key.clone(),
            value: bytes_of(previous.value, previous.value64)?.unwrap_or_default(),
            create_revision: previous.create_revision,
            mod_revision: previous.mod_revision,
            version: previous.version,
            lease: previous.lease,
        }),
    };
    Ok(Event { key, now: (body.kind == EventKind::Put).then_some(now), previous })
}
