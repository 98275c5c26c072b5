//! What clients may expect while faults last.
//!
//! While a majority of voters is well and connected, one of them leads, what it appends is
//! committed, connected members keep up, and clients are answered. The bounds follow from the
//! settings of the run. Leadership does not change without a cause. The engine tells the
//! surroundings ([`Service::surroundings`]); it knows them from its own faults, never from the
//! product.

#[cfg(test)]
mod tests;

use crate::checks::bounds::Bounds;
use crate::checks::pace::{Promptness, Stand, Traffic};
use crate::record::violation::Violation;
use crate::schedule::{SECOND, Settings};
use infinitystore::raft::{Body, LogIndex, Message, NodeId, RoleName, Term};
use infinitystore::replica::{PeerMessage, RequestId};
use std::collections::{BTreeMap, VecDeque};

/// A member whose disk refused a snapshot is left alone for this time, and twice as long with each
/// further refusal …
const LEFT_ALONE_MICROS: u64 = SECOND;
/// … up to this.
const LEFT_ALONE_MAX_MICROS: u64 = 60 * SECOND;

/// How a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It does not run, or stands still.
    #[default]
    Absent,
    /// It runs, and something ails its disk, its network or its clock.
    Ill,
    /// It runs, and nothing ails it.
    Well,
}

/// The surroundings at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// How each machine is.
    pub health: Vec<Health>,
    /// Bit `to` of `severed[from]`: messages from the one do not reach the other.
    pub severed: Vec<u32>,
    /// The voters, as bits.
    pub voters: u32,
    /// Members come or go.
    pub surgery: bool,
}

/// What a replica shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shows {
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// The machine that it takes for the leader.
    pub leader: Option<usize>,
    /// The last index of its log.
    pub last: LogIndex,
    /// Its commit index.
    pub commit: LogIndex,
    /// The last index that it applied.
    pub applied: LogIndex,
    /// Entries from before the leader's term that the leader has and it lacks; 0 once the leader
    /// has committed in its term.
    pub behind: u64,
}

/// The leader of the highest term.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reign {
    pub(super) slot: usize,
    pub(super) term: Term,
    pub(super) since: u64,
}

/// Where a machine stood when it was last seen to get on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) index: LogIndex,
    pub(super) at: u64,
}

/// A client that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) slot: usize,
    pub(super) at: u64,
    pub(super) write: bool,
    /// The term of the leader when it was asked.
    pub(super) reign: Option<Term>,
    /// How many others waited, anywhere.
    pub(super) others: u64,
    /// Bytes of writes that may wait at that machine, with this one, at most.
    pub(super) bytes: u64,
}

/// A transfer of leadership that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handing {
    pub(super) at: u64,
    pub(super) from: usize,
    /// The machine that is to lead, and by when, if nothing strikes meanwhile.
    pub(super) owed: Option<(usize, u64)>,
}

/// Judges what is done for clients.
#[derive(Clone, Debug)]
pub struct Service {
    /// How long things may take.
    pub bounds: Bounds,
    pub(super) at: Surroundings,
    pub(super) health_since: Vec<u64>,
    pub(super) link_since: Vec<Vec<u64>>,
    /// Since when these are the voters, and no member comes or goes.
    pub(super) voters_since: u64,
    pub(super) reign: Option<Reign>,
    pub(super) handing: Option<Handing>,
    /// When a machine that stood still while a transfer was under way went on. It may find an order
    /// to take over among what it was sent, and it obeys.
    pub(super) woke_at: Vec<u64>,
    /// The last index and the commit index of the leader, one look after the other.
    pub(super) past: VecDeque<(u64, LogIndex, LogIndex)>,
    pub(super) committed: Progress,
    pub(super) applied: Vec<Progress>,
    /// Since when what is proposed is committed in time, and applied by each machine.
    pub(super) flowing_since: u64,
    pub(super) keeping_since: Vec<u64>,
    /// When each machine was last seen to keep up.
    pub(super) kept_at: Vec<u64>,
    /// When a leader that a majority heard last led.
    pub(super) reigned_at: u64,
    pub(super) asked: BTreeMap<RequestId, Asked>,
    /// Since when a forwarded write or its refusal was last lost on the way from or to a machine.
    pub(super) lost_at: Vec<Option<u64>>,
    pub(super) installed_at: Vec<Option<u64>>,
    /// Whether a machine's disk has refused a snapshot, and until when a leader leaves it alone for
    /// that.
    pub(super) refused: Vec<bool>,
    pub(super) left_alone_until: Vec<u64>,
    /// When a leader last had no room.
    pub(super) leader_full_at: Option<u64>,
    /// When the log of each machine last had none at all.
    pub(super) log_full_at: Vec<Option<u64>>,
    /// When a leader last had so much to commit or to sync that it had to refuse more.
    pub(super) loaded_at: Option<u64>,
    /// When the disk of each machine was last slow.
    pub(super) disk_slow_at: Vec<Option<u64>>,
    /// The term and the time of the last order to take over that reached each machine.
    pub(super) ordered: Vec<Option<(Term, u64)>>,
    /// In which term each machine stood for election last. Whether it had a cause is judged when it
    /// begins to: its disk may take long to write that down.
    pub(super) stood: Vec<Term>,
    /// Bytes of writes that a machine holds, at most; 0: more than any run has.
    pub(super) held_bytes_max: u64,
    pub(super) promptness: Promptness,
    pub(super) traffic: Traffic,
    /// Windows in which what was said was judged.
    pub(super) windows: u64,
    /// Since when messages are lost, late, or come twice no more.
    pub(super) calm_at: Option<u64>,
}

impl Service {
    /// For a run with `slots` machines.
    #[must_use]
    pub fn new(settings: &Settings, slots: usize) -> Self {
        let bounds = Bounds::of(settings);
        let promptness = Promptness::of(bounds.hop, bounds.sync, bounds.loss);
        Self {
            bounds,
            promptness,
            traffic: Traffic::of(settings),
            windows: 0,
            calm_at: None,
            loaded_at: None,
            held_bytes_max: settings.pending_write_bytes_max,
            at: Surroundings {
                health: vec![Health::Absent; slots],
                severed: vec![0; slots],
                ..Surroundings::default()
            },
            health_since: vec![0; slots],
            link_since: vec![vec![0; slots]; slots],
            voters_since: 0,
            reign: None,
            handing: None,
            woke_at: vec![0; slots],
            past: VecDeque::new(),
            committed: Progress::default(),
            applied: vec![Progress::default(); slots],
            flowing_since: 0,
            keeping_since: vec![0; slots],
            kept_at: vec![0; slots],
            reigned_at: 0,
            asked: BTreeMap::new(),
            lost_at: vec![None; slots],
            installed_at: vec![None; slots],
            refused: vec![false; slots],
            left_alone_until: vec![0; slots],
            leader_full_at: None,
            log_full_at: vec![None; slots],
            disk_slow_at: vec![None; slots],
            ordered: vec![None; slots],
            stood: vec![Term::ZERO; slots],
        }
    }

    /// Something short struck a machine, which may look well again when it is looked at next.
    pub fn struck(&mut self, slot: usize, until: u64) {
        self.health_since[slot] = self.health_since[slot].max(until);
    }

    /// The surroundings, as they are now.
    pub fn surroundings(&mut self, now: u64, next: &Surroundings) {
        for slot in 0..next.health.len() {
            if next.health[slot] != self.at.health[slot] {
                let slept_since = self.health_since[slot];
                let ordered =
                    self.handing.is_some_and(|order| order.at + self.bounds.transfer >= slept_since);
                if self.at.health[slot] == Health::Absent && ordered {
                    self.woke_at[slot] = now;
                }
                self.struck(slot, now);
            }
            let changed = next.severed[slot] ^ self.at.severed[slot];
            for to in (0..next.health.len()).filter(|to| changed & (1 << to) != 0) {
                self.link_since[slot][to] = now;
            }
        }
        if next.surgery || next.voters != self.at.voters {
            self.voters_since = now;
        }
        self.at.clone_from(next);
    }

    /// Leadership was asked to go to a machine that could take over, or to any.
    pub fn transfer_asked(&mut self, now: u64, from: usize, to: Option<usize>) {
        let within = self.bounds.transfer;
        let busy = self.handing.is_some_and(|earlier| earlier.at + within > now);
        let owed = to.filter(|_| self.bounds.is_brisk && !busy).map(|slot| (slot, now + within));
        self.handing = Some(Handing { at: now, from, owed });
    }

    /// A client's connection broke with its machine.
    pub fn forget(&mut self, request: RequestId) {
        self.asked.remove(&request);
    }

    /// A message of a client's write was lost between these machines.
    pub fn write_lost(&mut self, from: usize, to: usize, now: u64) {
        (self.lost_at[from], self.lost_at[to]) = (Some(now), Some(now));
    }

    /// A machine's state was replaced by a snapshot: which of the writes that wait there it
    /// contains is not known.
    pub fn installed(&mut self, slot: usize, now: u64) {
        self.installed_at[slot] = Some(now);
    }

    /// A machine's disk failed while a leader's snapshot was stored.
    pub fn snapshot_refused(&mut self, slot: usize) {
        self.refused[slot] = true;
    }

    /// A leader has been told that a machine did not take its snapshot, for the `times`th time in a
    /// row. It may leave that machine alone for a while, and no longer.
    pub fn snapshot_not_taken(&mut self, now: u64, slot: usize, times: u32) {
        if std::mem::take(&mut self.refused[slot]) {
            let doubled = LEFT_ALONE_MICROS << times.saturating_sub(1).min(6);
            let pause = doubled.min(LEFT_ALONE_MAX_MICROS);
            // By its own clock.
            self.left_alone_until[slot] = now + pause + pause / 16;
        }
    }

    /// A leader has no room: clients of all members are refused.
    pub const fn leader_full(&mut self, now: u64) {
        self.leader_full_at = Some(now);
    }

    /// The log of a machine has no room at all: its own clients are refused, and no others.
    pub fn log_full(&mut self, slot: usize, now: u64) {
        self.log_full_at[slot] = Some(now);
    }

    /// The disk of a machine is slow.
    pub fn disk_slow(&mut self, slot: usize, now: u64) {
        self.disk_slow_at[slot] = Some(now);
    }

    /// In how many windows what was said was judged.
    #[must_use]
    pub const fn windows(&self) -> u64 {
        self.windows
    }

    /// A leader has so much to commit or to sync that it has to refuse more.
    pub const fn loaded(&mut self, now: u64) {
        self.loaded_at = Some(now);
    }

    /// Faults have ended.
    pub const fn calm(&mut self, now: u64) {
        self.calm_at = Some(now);
    }

    /// A machine is asked for a write or a read.
    pub const fn asking(&mut self, write: bool) {
        self.traffic.asked(write);
    }

    /// A machine says something to another.
    pub fn said(&mut self, from: usize, to: usize, message: &PeerMessage) {
        let owed = self.traffic.settles(message);
        if !owed && self.at.voters & (1 << from) != 0 && self.at.voters & (1 << to) != 0 {
            self.traffic.said(message);
        }
    }

    /// A machine takes in what another has said, now or long ago.
    pub fn heard(&mut self, now: u64, slot: usize, message: &PeerMessage) {
        if let PeerMessage::Raft(Message { term, body: Body::TimeoutNow, .. }) = message {
            self.ordered[slot] = self.ordered[slot].max(Some((*term, now)));
        }
        self.traffic.heard(message);
    }

    /// A member begins another life.
    pub fn started(&mut self, id: NodeId) {
        self.traffic.started(id);
    }

    /// Since when two machines hear each other and are well, and no leader was asked to hand over.
    #[must_use]
    pub fn in_touch_since(&self, one: usize, other: usize) -> Option<u64> {
        let handed = self.handing.map_or(0, |handing| handing.at + self.bounds.transfer);
        self.linked_since(one, other).map(|since| since.max(handed))
    }

    /// Since when both hear each other, and are well.
    pub(super) fn linked_since(&self, one: usize, other: usize) -> Option<u64> {
        let cut = self.at.severed[one] & (1 << other) != 0 || self.at.severed[other] & (1 << one) != 0;
        let well = [one, other].iter().all(|&slot| self.at.health[slot] == Health::Well);
        let since = self.health_since[one].max(self.health_since[other]);
        (well && !cut).then(|| since.max(self.link_since[one][other]).max(self.link_since[other][one]))
    }

    fn voters(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.at.health.len()).filter(|slot| self.at.voters & (1 << slot) != 0)
    }

    pub(super) fn majority(&self) -> usize {
        self.at.voters.count_ones() as usize / 2 + 1
    }

    /// Since when a machine is well and in touch with a majority that has not changed.
    pub(super) fn supported_since(&self, leader: usize) -> Option<u64> {
        if self.at.surgery || self.at.voters & (1 << leader) == 0 {
            return None;
        }
        let mut since: Vec<u64> =
            self.voters().filter_map(|voter| self.linked_since(leader, voter)).collect();
        since.sort_unstable();
        since.get(self.majority().checked_sub(1)?).map(|since| (*since).max(self.voters_since))
    }

    /// Since when one majority of voters is well and connected, and no other voter hinders it.
    pub(super) fn majority_since(&self) -> Option<(u32, u64)> {
        if self.at.surgery {
            return None;
        }
        let voters: Vec<usize> = self.voters().collect();
        let (count, majority) = (voters.len(), self.majority());
        let sets = (0..1_u32 << count).filter(|set| set.count_ones() as usize >= majority);
        sets.filter_map(|set| {
            let inside = |position: usize| set & (1 << position) != 0;
            let mut since = self.voters_since;
            for (position, &one) in voters.iter().enumerate() {
                since = since.max(self.health_since[one]);
                if inside(position) {
                    for (other, &two) in voters.iter().enumerate() {
                        since = since.max(self.link_since[one][two]).max(self.link_since[two][one]);
                        if inside(other) {
                            self.linked_since(one, two)?;
                        }
                    }
                }
            }
            let members = voters
                .iter()
                .enumerate()
                .filter(|(it, _)| inside(*it))
                .fold(0, |set, (_, slot)| set | 1 << slot);
            let absent = |slot: usize| {
                let hears = (0..self.at.health.len())
                    .any(|it| members & (1 << it) != 0 && self.at.severed[it] & (1 << slot) == 0);
                let is_heard = members & !self.at.severed[slot] != 0;
                self.at.health[slot] == Health::Absent || !hears || !is_heard
            };
            let alone = voters.iter().all(|&slot| members & (1 << slot) != 0 || absent(slot));
            alone.then_some((members, since))
        })
        .min_by_key(|(_, since)| *since)
    }

    /// All replicas, now and then; `None`: it does not run. So many requests wait for an answer.
    /// Returns whether a transfer of leadership has succeeded.
    ///
    /// # Errors
    /// [`Violation`]: something that is due has not come about.
    pub fn look(&mut self, now: u64, shown: &[Option<Shows>], waiting: usize) -> Result<bool, Violation> {
        let handed = self.handed_over(now)?;
        self.progress(now, shown)?;
        self.traffic(now, shown, waiting as u64)?;
        Ok(handed)
    }

    fn progress(&mut self, now: u64, shown: &[Option<Shows>]) -> Result<(), Violation> {
        for (slot, shows) in shown.iter().enumerate() {
            let progress = &mut self.applied[slot];
            let applied = shows.map_or(LogIndex::ZERO, |shows| shows.applied);
            if shows.is_none() || applied > progress.index {
                *progress = Progress { index: applied, at: now };
            }
        }
        if self.reign.is_some_and(|reign| shown[reign.slot].is_none()) {
            let leads = |shows: &Shows| shows.role == RoleName::Leader;
            let others =
                shown.iter().enumerate().filter_map(|(slot, it)| it.filter(leads).map(|it| (it.term, slot)));
            self.reign = others.max().map(|(term, slot)| Reign { slot, term, since: now });
        }
        let Some(reign) = self.reign else { return self.leaderless(now) };
        let Some(shows) = shown[reign.slot] else { return Ok(()) };
        let supported = self.supported_since(reign.slot);
        let Some(since) = supported else {
            self.past.clear();
            self.flowing_since = now;
            self.keeping_since.fill(now);
            self.committed = Progress { index: shows.commit, at: now };
            return self.leaderless(now);
        };
        if shows.commit > self.committed.index || shows.commit >= shows.last {
            self.committed = Progress { index: shows.commit, at: now };
        }
        let waits = now.saturating_sub(self.committed.at.max(since).max(reign.since));
        if waits > self.bounds.stall {
            let what = format!(
                "machine {} leads term {}, in touch with a majority, and has committed {} of {} for {waits} µs",
                reign.slot, reign.term, shows.commit, shows.last
            );
            return Err(Violation { check: "what is proposed is committed", what });
        }
        self.reigned_at = now;
        // What was due when this support began, or an answer's time ago.
        self.past.push_back((now, shows.last, shows.commit));
        while self.past.get(1).is_some_and(|past| past.0 + self.bounds.answer <= now) {
            self.past.pop_front();
        }
        let (_, last, commit) = self.past.front().copied().unwrap_or_default();
        if shows.commit < last || self.majority_is_behind(reign.slot, shown) {
            self.flowing_since = now;
        }
        for (slot, shows) in shown.iter().enumerate() {
            let linked = self.linked_since(reign.slot, slot).filter(|_| slot != reign.slot);
            let (Some(shows), Some(linked)) = (shows, linked) else {
                if slot != reign.slot {
                    self.keeping_since[slot] = now;
                }
                continue;
            };
            let follows = shows.leader == Some(reign.slot) && shows.term == reign.term;
            if !follows || shows.applied < commit {
                self.keeping_since[slot] = now;
            } else {
                self.kept_at[slot] = now;
            }
            let is_member = self.at.voters & (1 << slot) != 0 && !self.at.surgery;
            let from = linked.max(self.voters_since).max(reign.since).max(since);
            let from = from.max(self.left_alone_until[slot]);
            let from = from.max(self.kept_at[slot]).max(if follows { self.applied[slot].at } else { 0 });
            let stuck = now.saturating_sub(from);
            if is_member && stuck > self.bounds.stall && (!follows || shows.applied < commit) {
                let what = format!(
                    "machine {slot} is in touch with machine {}, the leader of term {}, and has term {}, leader {:?}, applied {} of {commit} for {stuck} µs",
                    reign.slot, reign.term, shows.term, shows.leader, shows.applied
                );
                return Err(Violation { check: "a connected member keeps up", what });
            }
        }
        Ok(())
    }

    /// Whether a new leader has to bring a majority up to date first. It serves no read, and
    /// commits nothing, before it has committed in its term.
    fn majority_is_behind(&self, leader: usize, shown: &[Option<Shows>]) -> bool {
        let linked = self.voters().filter(|voter| self.linked_since(leader, *voter).is_some());
        let up_to_date = linked.filter(|voter| shown[*voter].is_some_and(|shows| shows.behind == 0));
        up_to_date.count() < self.majority()
    }

    /// What is said while all voters are well and keep up.
    fn traffic(&mut self, now: u64, shown: &[Option<Shows>], waiting: u64) -> Result<(), Violation> {
        let stand = self.quiet_since().and_then(|(slot, since)| {
            let leader = shown[slot].filter(|_| since + self.bounds.answer + self.bounds.doubt <= now)?;
            let followers: Vec<usize> = self.voters().filter(|it| *it != slot).collect();
            let lacked =
                followers.iter().map(|&it| shown[it].map_or(0, |shows| leader.last.since(shows.last)));
            let lacked = lacked.sum();
            let followers = followers.len() as u64;
            Some(Stand { last: leader.last, commit: leader.commit, lacked, followers, waiting })
        });
        let quiet =
            stand.is_some() && (self.calm_at.is_some() || !self.bounds.lossy) && !self.bounds.overtakes;
        self.windows += u64::from(self.traffic.look(now, quiet, stand.unwrap_or_default())?);
        Ok(())
    }

    /// The leader, and since when all voters are well, in touch with it, and keep up.
    fn quiet_since(&self) -> Option<(usize, u64)> {
        let reign = self.reign?;
        let supported = self.supported_since(reign.slot)?;
        let handed = self.handing.map_or(0, |handing| handing.at + self.bounds.transfer);
        let calm = self.calm_at.unwrap_or_default();
        let mut since = supported.max(calm).max(reign.since).max(self.flowing_since).max(handed);
        for voter in self.voters().filter(|it| *it != reign.slot) {
            since = since.max(self.linked_since(reign.slot, voter)?).max(self.keeping_since[voter]);
        }
        Some((reign.slot, since))
    }
}
