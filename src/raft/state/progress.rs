//! What a leader knows of one peer.

use crate::raft::log::snapshot::SnapshotRefusal;
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{AnswerClock, ClockReading};
use crate::raft::state::sending::SnapshotTransfer;
use crate::raft::types::{LogIndex, ReadRound, Session, Time};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::fmt;

/// A chunk that is left unanswered again and again is sent again after a pause that doubles, up to
/// this many times.
const SILENCES_MAX: u32 = 5;

/// A peer, as the leader sees it. It exists from when the leader is elected or the peer is added,
/// until either is gone.
///
/// Invariant: `match_index < next_index`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Peer {
    /// Echoed by its answers; another one when a snapshot is (re)started.
    pub session: Session,
    /// The session that the relation began with.
    pub first_session: Session,
    /// Its log durably agrees with ours up to here: only an acknowledgement moves it, and only
    /// forward.
    pub match_index: LogIndex,
    /// The next entry to send.
    pub next_index: LogIndex,
    /// How entries are sent.
    pub state: PeerState,
    /// Appends that may be in flight; `None`: as many as are configured. It falls to one when the
    /// peer lacked what had been sent to it (lost, or overtaken by a later append), and doubles
    /// with each acknowledgement that is news. Otherwise, if messages overtake each other, a full
    /// window would be sent again and again.
    pub window: Option<usize>,
    /// When the relation began: the leader was elected, or the peer was added.
    pub since: Time,
    /// When it was last heard from in this relation.
    pub last_heard: Option<Time>,
    /// When the newest message was sent that it has answered, by the leader's clock. It took this
    /// node for the leader of this term then, or later.
    pub confirmed_at: Option<Time>,
    /// The newest clock reading that an answer of the peer carried.
    pub reading: Option<ClockReading>,
    /// When the leader last sent it a message.
    pub last_sent_at: Option<Time>,
    /// The highest commit index sent to it (bounded by the tail of the append that carried it).
    pub sent_commit: LogIndex,
    /// The newest read round sent to it.
    pub sent_round: ReadRound,
    /// The newest read round it confirmed.
    pub confirmed_round: ReadRound,
    /// Until then it votes for nobody, by the leader's clock.
    pub promised_until: Time,
    /// Set while the peer refuses snapshots, until it has one.
    pub refusal: Option<SnapshotBackoff>,
    /// What it has left unanswered of a snapshot, although it answers.
    pub silence: ChunkSilence,
    /// Snapshots that it has installed since it had caught up.
    pub installs: u32,
    /// The leader's last index when the peer installed its newest snapshot. Once the peer has that
    /// entry, it has caught up.
    pub catches_up_at: LogIndex,
    /// Set when the peer is no member any more: it is still told of its removal, and then dropped.
    pub leaving: Option<Leaving>,
    /// Set when the peer said that it takes no part any more, until it answers again.
    pub withdrawn: Option<Withdrawal>,
}

/// How entries are sent to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) enum PeerState {
    /// It is not known up to where its log agrees: one append at a time finds out.
    Probe {
        /// The append that is out; only heartbeats follow until it is answered.
        sent: Option<Probe>,
    },
    /// Its log agrees up to `next_index - 1`, or will when what is in flight arrives: appends are
    /// pipelined.
    Replicate(Inflight),
    /// It lacks entries that have left memory: a snapshot is on its way.
    Snapshot(Box<SnapshotTransfer>),
}

/// An append that finds out where a peer's log agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Probe {
    /// Its last index.
    pub last: LogIndex,
    /// Bytes of its entries.
    pub bytes: u64,
    /// Whether a heartbeat that begins at the same place was sent after it.
    pub has_heartbeat_after: bool,
}

/// How a leader brings a peer up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicationState {
    /// It looks for the place where the logs agree: one append at a time.
    Probe,
    /// It sends appends without waiting for answers.
    Replicate,
    /// It sends a snapshot: the peer needs entries that have left memory.
    Snapshot,
}

impl ReplicationState {
    /// Its name in `/v1/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Replicate => "replicate",
            Self::Snapshot => "snapshot",
        }
    }
}

impl fmt::Display for ReplicationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PeerState {
    /// The state without its details.
    pub(in crate::raft) const fn kind(&self) -> ReplicationState {
        match self {
            Self::Probe { .. } => ReplicationState::Probe,
            Self::Replicate(_) => ReplicationState::Replicate,
            Self::Snapshot(_) => ReplicationState::Snapshot,
        }
    }
}

/// Appends that were sent and not acknowledged, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Inflight {
    /// Each append's last index and bytes.
    appends: VecDeque<(LogIndex, u64)>,
    bytes: u64,
}

impl Inflight {
    /// Whether nothing more may be sent. One append larger than `bytes_max` still goes alone.
    pub(in crate::raft) fn is_full(&self, messages_max: usize, bytes_max: u64) -> bool {
        self.appends.len() >= messages_max || self.bytes >= bytes_max
    }

    /// An append that ends at `last` was sent.
    pub(in crate::raft) fn add(&mut self, last: LogIndex, bytes: u64) {
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Everything up to `index` is acknowledged.
    pub(in crate::raft) fn acknowledge(&mut self, index: LogIndex) {
        while let Some((last, bytes)) = self.appends.front()
            && *last <= index
        {
            self.bytes -= bytes;
            self.appends.pop_front();
        }
    }

    /// Their bytes.
    pub(in crate::raft) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether an append in flight ends at `index`.
    pub(in crate::raft) fn ends_at(&self, index: LogIndex) -> bool {
        self.appends.iter().any(|(last, _)| *last == index)
    }

    /// Appends in flight.
    pub(in crate::raft) fn len(&self) -> usize {
        self.appends.len()
    }
}

/// A peer that could not take a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct SnapshotBackoff {
    /// Why, the last time.
    pub why: SnapshotRefusal,
    /// How often in a row; from 1.
    pub times: u32,
    /// When it is offered a snapshot again.
    pub retry_at: Time,
}

/// A peer that answers heartbeats and no chunks: its disk has no room, say, and it waits for some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct ChunkSilence {
    /// How often in a row a chunk was left unanswered.
    pub times: u32,
    /// When it is sent the next one.
    pub retry_at: Time,
}

impl ChunkSilence {
    /// The peer left one more chunk unanswered. After the first the leader sends it again at once,
    /// since it was probably lost.
    fn lengthen(&mut self, now: Time, patience: u64) {
        self.times = self.times.saturating_add(1).min(SILENCES_MAX);
        self.retry_at = now.plus(patience * ((1 << (self.times - 1)) - 1));
    }
}

/// A peer that left the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Leaving {
    /// The entry that removed it. It is sent nothing that comes after it.
    pub removed_at: LogIndex,
    /// When the relation ends: an election timeout after that entry was committed. Until then each
    /// heartbeat tells it so. `None` while the entry is not committed.
    pub until: Option<Time>,
}

impl Peer {
    /// A relation that begins now, at the end of the leader's log.
    pub(in crate::raft) const fn new(session: Session, next_index: LogIndex, now: Time) -> Self {
        Self {
            session,
            first_session: session,
            match_index: LogIndex::ZERO,
            next_index,
            state: PeerState::Probe { sent: None },
            window: None,
            since: now,
            last_heard: None,
            confirmed_at: None,
            reading: None,
            last_sent_at: None,
            sent_commit: LogIndex::ZERO,
            sent_round: ReadRound::ZERO,
            confirmed_round: ReadRound::ZERO,
            promised_until: Time::new(0),
            refusal: None,
            silence: ChunkSilence { times: 0, retry_at: Time::new(0) },
            installs: 0,
            catches_up_at: LogIndex::ZERO,
            leaving: None,
            withdrawn: None,
        }
    }

    /// Whether it takes part, and was heard from (or the relation began) less than `micros` ago.
    /// What a member acknowledges that has withdrawn does not count: it must not keep a leader in
    /// office that cannot commit, nor let a change begin that cannot end.
    pub(in crate::raft) fn is_active(&self, now: Time, micros: u64) -> bool {
        self.withdrawn.is_none() && now.since(self.last_heard.unwrap_or(self.since)) < micros
    }

    /// It left a chunk unanswered for `patience` microseconds, which was sent at `since`. That
    /// counts if it has answered a message that was sent later. Otherwise nothing reaches it: late
    /// answers may come from it all the same.
    pub(in crate::raft) fn note_silence(&mut self, since: Time, now: Time, patience: u64) {
        if self.confirmed_at.is_some_and(|at| at > since) {
            self.silence.lengthen(now, patience);
        }
    }

    /// The peer has installed a snapshot, when the leader's log ended at `last`. Returns how many
    /// snapshots in a row the peer has installed without catching up; `None` for the first.
    pub(in crate::raft) fn note_install(&mut self, last: LogIndex) -> Option<u32> {
        (self.silence, self.catches_up_at) = (ChunkSilence::default(), last);
        self.installs = self.installs.saturating_add(1);
        (self.installs > 1).then_some(self.installs)
    }

    /// Whether it is left alone since it refused a snapshot.
    pub(in crate::raft) fn refuses_at(&self, now: Time) -> bool {
        self.refusal.is_some_and(|refused| now < refused.retry_at)
    }

    /// The snapshot on its way to it, and whether it takes chunks just now: it was heard from less
    /// than `patience_micros` ago, and refuses none.
    pub(in crate::raft) fn transfer(
        &self,
        now: Time,
        patience_micros: u64,
    ) -> Option<(&SnapshotTransfer, bool)> {
        let PeerState::Snapshot(transfer) = &self.state else { return None };
        Some((transfer.as_ref(), !self.refuses_at(now) && self.is_active(now, patience_micros)))
    }

    /// Whether the relation is over: the peer is no member, and had `patience_micros` to hear that
    /// its removal is committed.
    pub(in crate::raft) fn is_done(&mut self, commit: LogIndex, now: Time, patience_micros: u64) -> bool {
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| commit >= leaving.removed_at) else {
            return false;
        };
        let until = *leaving.until.get_or_insert(now.plus(patience_micros));
        now >= until
    }

    /// Its log agrees up to `index`, durably: pipelining begins or goes on. At most `window_max`
    /// appends are ever in flight.
    ///
    /// # Panics
    /// If the next entry to send is then one that the peer has.
    pub(in crate::raft) fn acknowledge(&mut self, index: LogIndex, window_max: usize) {
        self.note_acknowledged(index, window_max);
        self.assert_next();
    }

    fn note_acknowledged(&mut self, index: LogIndex, window_max: usize) {
        let is_news = index > self.match_index;
        self.match_index = self.match_index.max(index);
        if self.match_index >= self.catches_up_at {
            self.installs = 0;
        }
        let from = self.next_index.previous();
        self.next_index = self.next_index.max(index.next());
        match &mut self.state {
            PeerState::Replicate(inflight) => {
                inflight.acknowledge(index);
                if is_news {
                    let doubled = self.window.map(|window| window.saturating_mul(2));
                    self.window = doubled.filter(|window| *window < window_max);
                }
            }
            PeerState::Probe { sent } => {
                // The answer to an earlier append may say that the logs agree where the probe
                // begins, or beyond: what it carries is in flight. The heartbeat that follows a
                // probe is answered so if the probe is lost.
                let under_way =
                    sent.filter(|it| it.last > index && !(it.has_heartbeat_after && index == from));
                if under_way.is_some() && index < from {
                    return;
                }
                let mut inflight = Inflight::default();
                if let Some(probe) = under_way {
                    inflight.add(probe.last, probe.bytes);
                }
                let last = under_way.map_or(self.match_index, |probe| probe.last);
                self.next_index = last.next();
                self.state = PeerState::Replicate(inflight);
            }
            PeerState::Snapshot(transfer) => {
                if index >= transfer.snapshot.last.index {
                    self.refusal = None;
                    self.probe(index.next());
                }
            }
        }
    }

    /// Up to which index the peer counts for a commit; [`LogIndex::ZERO`] if it has withdrawn.
    pub(in crate::raft) fn counted(&self) -> LogIndex {
        if self.withdrawn.is_some() { LogIndex::ZERO } else { self.match_index }
    }

    /// Until when it confirms that this node leads; `None` if it has withdrawn, or never answered.
    pub(in crate::raft) fn counted_at(&self) -> Option<Time> {
        if self.withdrawn.is_some() { None } else { self.confirmed_at }
    }

    /// Takes in what an answer says of time. Of answers that arrive in another order the newest
    /// counts. A reading of another start takes the place of what is known: if it is an earlier
    /// one, the peer does not recognise it, until its next answer.
    pub(in crate::raft) fn note_clock(&mut self, now: Time, clock: AnswerClock) {
        if clock.sent_at <= now {
            self.confirmed_at = self.confirmed_at.max(Some(clock.sent_at));
        }
        let known = self.reading.filter(|reading| reading.incarnation == clock.reading.incarnation);
        if known.is_none() {
            // It was started again: what made it silent may be over.
            self.silence = ChunkSilence::default();
        }
        if known.is_none_or(|reading| reading.at < clock.reading.at) {
            self.reading = Some(clock.reading);
        }
    }

    /// The peer lacks what was sent to it: from now on one append at a time.
    pub(in crate::raft) fn narrow(&mut self) {
        if matches!(self.state, PeerState::Replicate(_)) {
            self.window = Some(1);
        }
    }

    /// Finds out again where the logs agree, starting with `next_index`.
    pub(in crate::raft) fn probe(&mut self, next_index: LogIndex) {
        self.next_index = next_index.max(self.match_index.next());
        self.state = PeerState::Probe { sent: None };
        self.assert_next();
    }

    /// What each answer leaves behind. It is looked at here, since a step looks at one peer only.
    fn assert_next(&self) {
        let (matched, next) = (self.match_index, self.next_index);
        assert!(matched < next, "a peer has entries up to {matched}, but {next} is sent next");
    }
}
