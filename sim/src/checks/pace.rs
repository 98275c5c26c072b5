//! How soon clients are answered, and how many messages that takes, while all machines are well.
//! Judged over many answers and whole windows, so that bad luck once is no violation.

#[cfg(test)]
mod tests;

use crate::checks::bounds::Bounds;
use crate::record::violation::{Violation, check};
use crate::schedule::Settings;
use infinitystore::raft::{Body, LogIndex, NodeId, ReadRound, Term};
use infinitystore::replica::PeerMessage;
use std::collections::BTreeMap;

/// Answers of a kind that make a sample.
const ANSWERS_ENOUGH: u32 = 12;
/// Messages that one operation of a client needs, one after the other: any of them may be lost.
const MESSAGES_EACH: i32 = 8;
/// The share of answers that may be late if nothing is lost.
const LATE_SHARE: f64 = 0.4;
/// If more than this share may be late, lateness says nothing.
const LATE_SHARE_MAX: f64 = 0.6;
/// Heartbeats in a window.
const WINDOW_BEATS: u64 = 20;

/// A kind of request: whether the leader was asked, and whether it is a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The leader was asked.
    pub leader: bool,
    /// A write.
    pub write: bool,
}

/// How soon clients are answered by machines that could serve all the time.
#[derive(Clone, Debug)]
pub struct Promptness {
    hop: u64,
    sync: u64,
    late_share: f64,
    is_lossy: bool,
    /// Of each kind: all answers, and late ones.
    answers: [(u32, u32); 4],
    /// Of each kind: when the last late answer came.
    last_late_at: [Option<u64>; 4],
}

impl Promptness {
    /// For a run in which a message takes at most `hop` and a batch of the log `sync`,
    /// microseconds, and the share `loss` of messages is lost or late.
    #[must_use]
    pub fn of(hop: u64, sync: u64, loss: f64) -> Self {
        let late_share = LATE_SHARE + 1.0 - (1.0 - loss).powi(MESSAGES_EACH);
        Self { hop, sync, late_share, is_lossy: loss > 0.0, answers: [(0, 0); 4], last_late_at: [None; 4] }
    }

    /// The time within which an answer of this kind should come while `others` wait.
    #[must_use]
    pub fn due(&self, kind: Kind, others: u64) -> u64 {
        // A write is appended, and acknowledged. A read may have to wait for the round of reads
        // before its own.
        let served = if kind.write { 2 * self.hop + 2 * self.sync } else { 4 * self.hop };
        // A forward, and its outcome on the way back.
        let forwarded = if kind.leader { 0 } else { 2 * self.hop };
        served + forwarded + others * (2 * self.hop + self.sync)
    }

    /// A client that asked at `asked_at` was answered at `now`, by a machine that could serve all
    /// the time. One lost message may delay all that waits: of the late answers to requests that
    /// waited together only the first counts then.
    ///
    /// # Errors
    /// [`Violation`]: most are answered late.
    pub fn answered(&mut self, kind: Kind, asked_at: u64, now: u64, others: u64) -> Result<(), Violation> {
        if self.late_share > LATE_SHARE_MAX {
            return Ok(());
        }
        let (took, due) = (now - asked_at, self.due(kind, others));
        let index = usize::from(kind.leader) + 2 * usize::from(kind.write);
        if took > due {
            let last = self.last_late_at[index].replace(now);
            if self.is_lossy && last.is_some_and(|last| asked_at < last) {
                return Ok(());
            }
        }
        let (all, late) = &mut self.answers[index];
        *all += 1;
        *late += u32::from(took > due);
        let (all, late) = (*all, *late);
        check!(
            "most answers are prompt",
            all < ANSWERS_ENOUGH || f64::from(late) <= f64::from(all) * self.late_share,
            "{late} of {all} answers ({kind:?}) came late; the last took {took} µs and should have taken {due}"
        );
        Ok(())
    }
}

/// Where the logs stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stand {
    /// The leader's last index.
    pub last: LogIndex,
    /// Its commit index.
    pub commit: LogIndex,
    /// Entries that its followers lack, all together.
    pub lacked: u64,
    /// How many followers there are.
    pub followers: u64,
    /// Requests that are under way, at most.
    pub waiting: u64,
}

/// What a leader has sent to a follower in its term, and what that follower says that it lacks.
#[derive(Clone, Copy, Debug, Default)]
struct FollowerFeed {
    term: Term,
    /// The last entry that was sent.
    through: LogIndex,
    /// The last one that was acknowledged.
    acknowledged: LogIndex,
    /// The follower lacks the entries after the first index, up to the second. An append was
    /// overtaken by a later one, and the follower refused that. The leader cannot know whether the
    /// overtaken one is still on its way. So it may send the missing entries again, once for each
    /// time that the follower says so.
    lacks: (LogIndex, LogIndex),
}

impl FollowerFeed {
    fn of(&mut self, term: Term) -> &mut Self {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
        self
    }

    /// Entries after one up to another are sent. How many of them its receiver has asked for again.
    fn send(&mut self, after: LogIndex, through: LogIndex) -> u64 {
        let (from, to) = self.lacks;
        let again = to.min(through).since(from.max(after));
        self.lacks.0 = from.max(through.min(to));
        self.through = self.through.max(through);
        again
    }

    /// It has been refused, since its receiver has nothing that fits before it and says where to
    /// look.
    fn refused(&mut self, rejected: LogIndex, hint: LogIndex) {
        // A follower that denies what it has acknowledged has no reason for that.
        if rejected > self.acknowledged {
            let (from, to) = self.lacks;
            self.lacks = (if from < to { from.min(hint) } else { hint }, self.through);
        }
    }
}

/// What was said since the window began.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// Entries, once for each follower, but for those that it lacked by its own word.
    entries: u64,
    /// Appends without any, that tell of a commit index or a round of reads.
    news: u64,
    /// Appends that tell of nothing: heartbeats.
    idle: u64,
    /// Appends with some.
    full: u64,
    /// Answers to appends.
    answers: u64,
    /// Refusals among them: the leader looks at once where the logs agree, with or without an
    /// entry.
    lacking: u64,
    /// Requests for votes and pre-votes, and answers to no request.
    campaigns: u64,
    /// Questions for a read index, and their answers.
    questions: u64,
    /// Commands that were forwarded.
    forwarded: u64,
    /// Refusals of forwarded commands.
    refused: u64,
}

/// What is said among voters while all of them are well, in touch with their leader, and keep up.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    beat: u64,
    /// How often a question for a read index is sent until it is answered: once for each heartbeat.
    /// It has to arrive, to wait for the end of the round under way, to be confirmed by the next,
    /// and to be answered.
    copies: u64,
    /// Messages may come twice.
    twice: bool,
    /// When the window began, and how things stood.
    began: Option<(u64, Stand)>,
    said: Said,
    /// What each was told last by the other: a commit index, and a round of reads.
    told: BTreeMap<(NodeId, NodeId), (Term, LogIndex, ReadRound)>,
    /// What leaders have sent, by leader and follower.
    sent: BTreeMap<(NodeId, NodeId), FollowerFeed>,
    /// Requests for a vote or a pre-vote that a member has taken in and not answered, by that
    /// member and the one that asks.
    owed: BTreeMap<(NodeId, NodeId), u64>,
    reads: u64,
    writes: u64,
}

impl Traffic {
    /// For a run.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            beat: settings.heartbeat_interval_micros,
            copies: 1 + 6 * Bounds::of(settings).hop / settings.heartbeat_interval_micros,
            twice: settings.duplicate_ppm > 0,
            ..Self::default()
        }
    }

    /// Somebody is asked for something that has to be said to others: not for what it has itself.
    pub const fn asked(&mut self, write: bool) {
        if write {
            self.writes += 1;
        } else {
            self.reads += 1;
        }
    }

    /// A member has taken in a message of another. A request for a vote is answered, and so is a
    /// copy of it that the network delivers seconds later. The request itself is counted when it is
    /// said.
    pub fn heard(&mut self, message: &PeerMessage) {
        if let PeerMessage::Raft(message) = message
            && let Body::PreVote { .. } | Body::RequestVote { .. } = message.body
        {
            *self.owed.entry((message.to, message.from)).or_default() += 1;
        }
    }

    /// Whether a message is an answer that its sender owes the receiver, and owes no more with it.
    pub fn settles(&mut self, message: &PeerMessage) -> bool {
        let PeerMessage::Raft(message) = message else { return false };
        let answers = matches!(
            message.body,
            Body::PreVoteGranted { .. }
                | Body::PreVoteRejected { .. }
                | Body::VoteGranted
                | Body::VoteRejected
        );
        let owed = self.owed.get_mut(&(message.from, message.to)).filter(|owed| answers && **owed > 0);
        owed.map(|owed| *owed -= 1).is_some()
    }

    /// A process that starts does not know what the one before it was asked.
    pub fn started(&mut self, id: NodeId) {
        self.owed.retain(|(answers, _), _| *answers != id);
    }

    /// A voter says something to another.
    pub fn said(&mut self, message: &PeerMessage) {
        let said = &mut self.said;
        match message {
            PeerMessage::Raft(message) => match &message.body {
                Body::AppendEntries { prev, entries, commit, round, .. } => {
                    let told = self.told.entry((message.from, message.to)).or_default();
                    // Rounds are counted anew in each term.
                    let round_before = if told.0 == message.term { told.2 } else { ReadRound::ZERO };
                    let now = (message.term, told.1.max(*commit), round_before.max(*round));
                    let known = std::mem::replace(told, now) == now;
                    match (entries.is_empty(), known) {
                        (true, true) => said.idle += 1,
                        (true, false) => said.news += 1,
                        _ => said.full += 1,
                    }
                    if !entries.is_empty() {
                        let sent = self.sent.entry((message.from, message.to)).or_default();
                        let through = prev.index.plus(entries.len() as u64);
                        let again = sent.of(message.term).send(prev.index, through);
                        said.entries += entries.len() as u64 - again;
                    }
                }
                Body::AppendRejected { rejected, hint, .. } => {
                    said.answers += 1;
                    said.lacking += 1;
                    let sent = self.sent.entry((message.to, message.from)).or_default();
                    sent.of(message.term).refused(rejected.index, hint.index);
                }
                Body::AppendAccepted { match_index, .. } => {
                    said.answers += 1;
                    let sent = self.sent.entry((message.to, message.from)).or_default().of(message.term);
                    sent.acknowledged = sent.acknowledged.max(*match_index);
                }
                Body::Heard { .. } => said.answers += 1,
                Body::ReadIndex { .. } | Body::ReadIndexReady { .. } | Body::ReadIndexRefused { .. } => {
                    said.questions += 1;
                }
                Body::PreVote { .. }
                | Body::PreVoteGranted { .. }
                | Body::PreVoteRejected { .. }
                | Body::RequestVote { .. }
                | Body::VoteGranted
                | Body::VoteRejected
                | Body::TimeoutNow => said.campaigns += 1,
                _ => {}
            },
            PeerMessage::Forward(forward) => said.forwarded += forward.commands.len() as u64,
            PeerMessage::ForwardRefused(_) => said.refused += 1,
            PeerMessage::StateHash(_)
            | PeerMessage::DiskPace(_)
            | PeerMessage::Levels(_)
            | PeerMessage::LeaseCalls(_)
            | PeerMessage::LeaseAnswers(_) => {}
        }
    }

    /// How things stand. `quiet`: nothing has struck for a while, and no member lags.
    ///
    /// # Errors
    /// [`Violation`]: more was said than there was reason for. Whether a window has passed.
    pub fn look(&mut self, now: u64, quiet: bool, stand: Stand) -> Result<bool, Violation> {
        let Some((began, from)) = self.began.filter(|_| quiet) else {
            self.begin(now, quiet, stand);
            return Ok(false);
        };
        let long = now - began;
        if long < WINDOW_BEATS * self.beat {
            return Ok(false);
        }
        let said = self.said;
        let n = from.followers;
        // A clock may be fast, and what was asked just before belongs to it too.
        let beats = long * 17 / 16 / self.beat + 3;
        let (appended, committed) = (stand.last.since(from.last), stand.commit.since(from.commit));
        let (reads, writes) = (self.reads + from.waiting, self.writes + from.waiting);
        // A follower may say twice that it lacks something, and a read may be asked for again.
        let ample = |needed: u64| 2 * needed + 4 * n;
        let entries = ample(n * appended + from.lacked);
        let appends = said.idle + said.news + said.full;
        let questions = 2 * self.copies * reads + 4 * n;
        let answers = 2 * (appends + from.lacked + 4 * n);
        self.begin(now, quiet, stand);
        let budgets = [
            ("entries", said.entries, entries),
            ("heartbeats", said.idle, n * beats + said.lacking),
            ("appends with news alone", said.news, ample(n * (committed + reads))),
            ("answers to appends", said.answers, if self.twice { 4 * answers } else { answers }),
            ("messages of campaigns", said.campaigns, 0),
            (
                "questions for a read index",
                said.questions,
                if self.twice { 2 * questions } else { questions },
            ),
            ("forwarded commands", said.forwarded, ample(writes)),
            ("refusals", said.refused, ample(writes)),
        ];
        for (what, said, budget) in budgets {
            check!(
                "no more is said than is needed",
                said <= budget,
                "{said} {what} within {long} µs, and {budget} were enough: {n} followers, {appended} entries appended, \
                 {committed} committed, {reads} reads and {writes} writes asked for"
            );
        }
        Ok(true)
    }

    fn begin(&mut self, now: u64, quiet: bool, stand: Stand) {
        (self.said, self.reads, self.writes) = (Said::default(), 0, 0);
        self.began = quiet.then_some((now, stand));
    }
}
