//! What clients may expect while faults last.
//!
//! While a majority of voters is well and connected, one of them leads, what it appends is
//! committed, connected members keep up, and clients are answered. The bounds follow from the
//! settings of the run. Leadership does not change without a cause. The engine tells the
//! surroundings ([`Service::surroundings`]); it knows them from its own faults, never from the
//! product.

use crate::checks::Violation;
use crate::pace::{Kind, Promptness, Stand, Traffic};
use crate::schedule::{MILLI, SECOND, Settings};
use infinitystore::raft::{LogIndex, NodeId, RoleName, Term};
use infinitystore::replica::{ClientError, ClientReply, PeerMessage, RequestId};
use std::collections::{BTreeMap, VecDeque};

/// A read that was refused for want of a leader is asked again after this time.
const READ_RETRY_MICROS: u64 = 50 * MILLI;
/// Elections that come to nothing, in a row, before a majority that hears itself has a leader.
const ELECTIONS_LOST: u64 = 5;
/// And in runs in which messages are lost.
const ELECTIONS_LOST_LOSSY: u64 = 9;
/// Messages in a row that may be lost by chance in any run.
const LOSSES: u64 = 12;
/// A member whose disk refused a snapshot is left alone for this time, and twice as long with each
/// further refusal …
const LEFT_ALONE_MICROS: u64 = SECOND;
/// … up to this.
const LEFT_ALONE_MAX_MICROS: u64 = 60 * SECOND;
/// What is improbable enough to be called impossible, for one heartbeat.
const IMPOSSIBLE: f64 = 1e-11;

/// How long things may take in a run, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// A message takes at most this long if it is not late.
    pub hop: u64,
    /// Until a client of a member that has caught up is answered, while a leader serves.
    pub answer: u64,
    /// Until a member that lacks entries has some more of them.
    pub stall: u64,
    /// Until a majority that hears itself has elected a leader.
    pub elect: u64,
    /// How long after a disturbance a leader may still be doubted: what began then may still lead
    /// to an election.
    pub doubt: u64,
    /// Until a transfer has succeeded, or been given up.
    pub transfer: u64,
    /// Whether messages are lost, damaged, late or out of order by themselves.
    pub lossy: bool,
    /// Whether nothing is lost, and a transfer takes a small part of an election timeout.
    is_brisk: bool,
    /// The share of messages that are lost, damaged or late.
    loss: f64,
    /// A batch of the log takes at most this long, with the one before it.
    sync: u64,
    /// Whether messages overtake each other.
    overtakes: bool,
    /// Heartbeats in an election timeout.
    beats: u32,
}

impl Bounds {
    /// Those of a run.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let hop =
            settings.delay_max_micros * u64::from(settings.link_spread.max(1)) + settings.settle_max_micros;
        // A write waits for the one under way.
        let sync = 2 * settings.sync_max_micros + settings.settle_max_micros;
        let (beat, timeout) = (settings.heartbeat_interval_micros, settings.election_timeout_micros);
        let lost = settings.loss_ppm + settings.corrupt_ppm + settings.straggler_ppm;
        let lossy = lost > 0 || settings.delay_max_micros >= 5 * settings.delay_min_micros;
        let again = if lossy { LOSSES * (beat + 2 * hop + sync) } else { 0 };
        let answer = 2 * (6 * hop + 4 * sync) + 3 * beat + READ_RETRY_MICROS + again;
        let entry_bytes = settings.value_bytes as u64 + 100;
        let per_append = if lossy { 1 } else { (settings.append_bytes_max / entry_bytes).clamp(1, 64) };
        let pace = (2 * hop + 2 * sync).div_ceil(per_append);
        let snapshot_bytes = u64::from(settings.keys) * entry_bytes + 1_000;
        let chunks = snapshot_bytes.div_ceil(settings.snapshot_chunk_bytes.max(1)) + 4;
        let again = if lossy { beat } else { 0 };
        let snapshot = chunks * (2 * hop + 2 * sync + again);
        let drifted = |micros: u64| micros + micros / 1_000_000 * u64::from(settings.drift_ppm) + micros / 16;
        let lost_elections = if lossy { ELECTIONS_LOST_LOSSY } else { ELECTIONS_LOST };
        let late = if settings.straggler_ppm > 0 || settings.duplicate_ppm > 0 {
            settings.straggler_max_micros.max(10 * settings.delay_max_micros)
        } else {
            0
        };
        Self {
            hop,
            answer,
            stall: 2 * answer + 2 * timeout + snapshot + 64 * pace,
            elect: lost_elections * (drifted(2 * timeout) + 4 * hop + 2 * sync),
            doubt: drifted(5 * timeout / 2) + late + 4 * hop + 2 * sync + beat,
            transfer: drifted(2 * timeout) + 4 * hop + 4 * sync,
            lossy,
            is_brisk: !lossy && settings.duplicate_ppm == 0 && timeout > 20 * hop + 10 * sync,
            loss: f64::from(lost.min(1_000_000)) / 1e6,
            sync: sync + settings.settle_max_micros,
            overtakes: settings.delay_max_micros >= 5 * settings.delay_min_micros,
            beats: u32::try_from(timeout / beat).unwrap_or(u32::MAX),
        }
    }

    /// Whether nothing is lost or late, and several questions and answers fit into this time.
    #[must_use]
    pub fn is_told_within(&self, micros: u64) -> bool {
        self.loss == 0.0 && micros > 8 * self.hop + 4 * self.sync
    }

    /// Whether it may happen by bad luck alone that `members` members hear nothing, or are not
    /// heard, for an election timeout.
    fn may_be_silent(&self, members: usize, both_ways: bool) -> bool {
        let lost = if both_ways { 1.0 - (1.0 - self.loss).powi(2) } else { self.loss };
        let beats = self.beats.saturating_sub(1) as usize * members;
        lost.powi(i32::try_from(beats).unwrap_or(i32::MAX)) > IMPOSSIBLE
    }
}

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
}

/// The leader of the highest term.
#[derive(Clone, Copy, Debug)]
struct Reign {
    slot: usize,
    term: Term,
    since: u64,
}

/// Where a machine stood when it was last seen to get on.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    index: LogIndex,
    at: u64,
}

/// A client that waits.
#[derive(Clone, Copy, Debug)]
struct Asked {
    slot: usize,
    at: u64,
    write: bool,
    /// The term of the leader when it was asked.
    reign: Option<Term>,
    /// How many others waited, anywhere.
    others: u64,
    /// Bytes of writes that may wait at that machine, with this one, at most.
    bytes: u64,
}

/// A transfer of leadership that was asked for.
#[derive(Clone, Copy, Debug)]
struct Handing {
    at: u64,
    from: usize,
    /// The machine that is to lead, and by when, if nothing strikes meanwhile.
    owed: Option<(usize, u64)>,
}

/// Judges what is done for clients.
#[derive(Clone, Debug)]
pub struct Service {
    /// How long things may take.
    pub bounds: Bounds,
    at: Surroundings,
    health_since: Vec<u64>,
    link_since: Vec<Vec<u64>>,
    /// Since when these are the voters, and no member comes or goes.
    voters_since: u64,
    reign: Option<Reign>,
    handing: Option<Handing>,
    /// When a machine that stood still while a transfer was under way went on. It may find an order
    /// to take over among what it was sent, and it obeys.
    woke_at: Vec<u64>,
    /// The last index and the commit index of the leader, one look after the other.
    past: VecDeque<(u64, LogIndex, LogIndex)>,
    committed: Progress,
    applied: Vec<Progress>,
    /// Since when what is proposed is committed in time, and applied by each machine.
    flowing_since: u64,
    keeping_since: Vec<u64>,
    /// When each machine was last seen to keep up.
    kept_at: Vec<u64>,
    /// When a leader that a majority heard last led.
    reigned_at: u64,
    asked: BTreeMap<RequestId, Asked>,
    /// Since when a forwarded write or its refusal was last lost on the way from or to a machine.
    lost_at: Vec<Option<u64>>,
    installed_at: Vec<Option<u64>>,
    /// Whether a machine's disk has refused a snapshot, and until when a leader leaves it alone for
    /// that.
    refused: Vec<bool>,
    left_alone_until: Vec<u64>,
    full_at: Option<u64>,
    /// When a leader last had so much to commit or to sync that it had to refuse more.
    loaded_at: Option<u64>,
    /// Bytes of writes that a machine holds, at most; 0: more than any run has.
    held_bytes_max: u64,
    promptness: Promptness,
    traffic: Traffic,
    /// Windows in which what was said was judged.
    windows: u64,
    /// Since when messages are lost, late, or come twice no more.
    calm_at: Option<u64>,
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
            full_at: None,
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

    /// Some disk has no room.
    pub const fn full(&mut self, now: u64) {
        self.full_at = Some(now);
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
    pub fn heard(&mut self, message: &PeerMessage) {
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
    fn linked_since(&self, one: usize, other: usize) -> Option<u64> {
        let cut = self.at.severed[one] & (1 << other) != 0 || self.at.severed[other] & (1 << one) != 0;
        let well = [one, other].iter().all(|&slot| self.at.health[slot] == Health::Well);
        let since = self.health_since[one].max(self.health_since[other]);
        (well && !cut).then(|| since.max(self.link_since[one][other]).max(self.link_since[other][one]))
    }

    fn voters(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.at.health.len()).filter(|slot| self.at.voters & (1 << slot) != 0)
    }

    fn majority(&self) -> usize {
        self.at.voters.count_ones() as usize / 2 + 1
    }

    /// Since when a machine is well and in touch with a majority that has not changed.
    fn supported_since(&self, leader: usize) -> Option<u64> {
        if self.at.surgery || self.at.voters & (1 << leader) == 0 {
            return None;
        }
        let mut since: Vec<u64> =
            self.voters().filter_map(|voter| self.linked_since(leader, voter)).collect();
        since.sort_unstable();
        since.get(self.majority().checked_sub(1)?).map(|since| (*since).max(self.voters_since))
    }

    /// Since when one majority of voters is well and connected, and no other voter hinders it.
    fn majority_since(&self) -> Option<(u32, u64)> {
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

    /// A replica was stepped.
    ///
    /// # Errors
    /// [`Violation`]: leadership changed without a cause.
    pub fn stepped(&mut self, now: u64, slot: usize, role: RoleName, term: Term) -> Result<(), Violation> {
        if let Some(reign) = self.reign {
            let votes = self.at.voters & (1 << slot) != 0;
            let deposes = votes && role == RoleName::Candidate && term == reign.term.next();
            if deposes && !self.bounds.may_be_silent(2, false) {
                self.undoubted(now, reign, slot, "an election has a cause", || {
                    format!("machine {slot} stands for election in term {term}")
                })?;
            }
            if reign.slot == slot && role != RoleName::Leader {
                let others = (self.at.voters.count_ones() as usize).saturating_sub(self.majority()) + 1;
                if term == reign.term && !self.bounds.may_be_silent(others, true) {
                    self.undoubted(now, reign, slot, "a leader that is heard leads on", || {
                        format!("machine {slot} steps down in term {term}")
                    })?;
                }
                self.reign = None;
            }
        }
        if role == RoleName::Leader && self.reign.is_none_or(|reign| term > reign.term) {
            self.reign = Some(Reign { slot, term, since: now });
            self.past.clear();
            self.committed.at = now;
            self.flowing_since = now;
        }
        Ok(())
    }

    /// `Err`: no member had a reason to doubt the leader when the machine `by` stood or stepped
    /// down.
    fn undoubted(
        &self,
        now: u64,
        reign: Reign,
        by: usize,
        check: &'static str,
        what: impl Fn() -> String,
    ) -> Result<(), Violation> {
        let Some(since) = self.supported_since(reign.slot) else { return Ok(()) };
        let handed = self.handing.map_or(0, |handing| handing.at.max(self.woke_at[by]));
        let quiet = now.saturating_sub(since.max(handed).max(reign.since));
        if quiet > self.bounds.doubt {
            let Reign { slot, term, .. } = reign;
            let what = what();
            let what = format!(
                "{what}; machine {slot} leads term {term}, in touch with a majority for {quiet} µs, and nothing has struck"
            );
            return Err(Violation { check, what });
        }
        Ok(())
    }

    /// All replicas, now and then; `None`: it does not run. Whether a transfer of leadership has
    /// succeeded.
    ///
    /// # Errors
    /// [`Violation`]: something that is due has not come about.
    pub fn look(&mut self, now: u64, shown: &[Option<Shows>]) -> Result<bool, Violation> {
        let handed = self.handed_over(now)?;
        self.progress(now, shown)?;
        self.traffic(now, shown)?;
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
        self.past.push_back((now, shows.last, shows.commit));
        let (mut last, mut commit) = (LogIndex::ZERO, LogIndex::ZERO);
        while self.past.front().is_some_and(|past| past.0 + self.bounds.answer <= now) {
            (_, last, commit) = self.past.pop_front().unwrap_or_default();
        }
        if let Some(first) = self.past.front_mut()
            && last > LogIndex::ZERO
        {
            // What is older than that stays due.
            first.1 = first.1.max(last);
            first.2 = first.2.max(commit);
        }
        if shows.commit < last {
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

    /// What is said while all voters are well and keep up.
    fn traffic(&mut self, now: u64, shown: &[Option<Shows>]) -> Result<(), Violation> {
        let stand = self.quiet_since().and_then(|(slot, since)| {
            let leader = shown[slot].filter(|_| since + self.bounds.answer + self.bounds.doubt <= now)?;
            let followers: Vec<usize> = self.voters().filter(|it| *it != slot).collect();
            let lacked =
                followers.iter().map(|&it| shown[it].map_or(0, |shows| leader.last.since(shows.last)));
            let lacked = lacked.sum();
            let probes = if self.calm_at.is_some() { 2 * self.at.health.len() } else { 0 };
            let (followers, waiting) = (followers.len() as u64, (self.asked.len() + probes) as u64);
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

    /// No leader is heard by a majority: for how long may that last?
    fn leaderless(&self, now: u64) -> Result<(), Violation> {
        let Some((members, since)) = self.majority_since() else { return Ok(()) };
        if self.reign.is_some_and(|reign| members & (1 << reign.slot) != 0) {
            return Ok(());
        }
        let handed = self.handing.map_or(0, |handing| handing.at);
        let vain = now.saturating_sub(since.max(self.reigned_at).max(handed));
        if vain > self.bounds.elect {
            let what = format!(
                "machines {members:#b} are well and connected for {vain} µs, and none of them leads (last known: {:?})",
                self.reign
            );
            return Err(Violation { check: "a majority elects a leader", what });
        }
        Ok(())
    }

    /// A transfer that nothing hinders has to succeed. Whether it has.
    fn handed_over(&mut self, now: u64) -> Result<bool, Violation> {
        let Some(Handing { at, from, owed: Some((slot, due)) }) = self.handing else { return Ok(false) };
        let linked = self.linked_since(from, slot).unwrap_or(u64::MAX);
        let disturbed = self.supported_since(slot).unwrap_or(u64::MAX).max(linked) >= at;
        let leads = self.reign.is_some_and(|reign| reign.slot == slot && reign.since >= at);
        if !leads && !disturbed && now <= due {
            return Ok(false);
        }
        self.handing = Some(Handing { at, from, owed: None });
        if !leads && !disturbed {
            let what = format!("machine {slot} was to lead from {at} on, and does not at {now}");
            return Err(Violation { check: "a transfer succeeds", what });
        }
        Ok(leads)
    }

    /// A client asks a machine, which may then hold at most `bytes` of writes.
    pub fn asked(&mut self, now: u64, request: RequestId, slot: usize, write: bool, bytes: u64) {
        let (reign, others) = (self.reign.map(|reign| reign.term), self.asked.len() as u64);
        self.asked.insert(request, Asked { slot, at: now, write, reign, others, bytes });
    }

    /// A client is answered, or waits no longer (`None`). Whether a write was answered that began
    /// before another leader did.
    ///
    /// # Errors
    /// [`Violation`]: the refusal has no reason, or it should have been answered.
    pub fn answered(
        &mut self,
        now: u64,
        request: RequestId,
        reply: Option<&ClientReply>,
        within: u64,
    ) -> Result<bool, Violation> {
        let Some(asked) = self.asked.remove(&request) else { return Ok(false) };
        let error = match reply {
            Some(ClientReply::Failed(error)) => Some(error),
            None => None,
            Some(_) => {
                self.prompt(now, asked)?;
                let reigns = self.reign.map(|reign| reign.term);
                return Ok(asked.write && asked.reign.is_some() && reigns > asked.reign);
            }
        };
        self.reasonable(now, asked, error, within)?;
        let since = self.serves_since(asked);
        let due = since.map_or(0, |since| now.saturating_sub(since.max(asked.at)));
        // What was lost in the network after the leader was known is not sent again.
        let reigns = self.reign.map_or(0, |reign| reign.since);
        let lost = asked.write && self.lost_at[asked.slot].is_some_and(|lost| lost >= asked.at.max(reigns));
        let installed = self.installed_at[asked.slot].is_some_and(|at| at >= asked.at);
        if due > self.bounds.answer && !lost && !installed {
            let what = format!(
                "machine {} was asked at {}, could be served for {due} µs, and says {error:?}",
                asked.slot, asked.at
            );
            return Err(Violation { check: "a client that can be served is served", what });
        }
        Ok(false)
    }

    /// A machine answered: in time, if it could serve all the while?
    fn prompt(&mut self, now: u64, asked: Asked) -> Result<(), Violation> {
        let served = self.serves_since(asked).is_some_and(|since| since + self.bounds.answer <= asked.at);
        let lost = self.lost_at[asked.slot].is_some_and(|lost| lost + self.bounds.answer >= asked.at);
        let (Some(reign), true) = (self.reign, served && !lost && !self.bounds.overtakes) else {
            return Ok(());
        };
        let kind = Kind { leader: reign.slot == asked.slot, write: asked.write };
        self.promptness.answered(kind, now - asked.at, asked.others)
    }

    /// Since when a machine could serve: a leader that commits in time is in touch with a majority,
    /// and with it, and it keeps up.
    fn serves_since(&self, asked: Asked) -> Option<u64> {
        let reign = self.reign?;
        let since = self.supported_since(reign.slot)?;
        let linked = self.linked_since(reign.slot, asked.slot)?;
        if self.at.voters & (1 << asked.slot) == 0 {
            return None;
        }
        let handed = self.handing.map_or(0, |handing| handing.at + self.bounds.transfer);
        let times = [
            since,
            linked,
            reign.since,
            self.flowing_since,
            if asked.slot == reign.slot { 0 } else { self.keeping_since[asked.slot] },
            handed,
        ];
        times.into_iter().max()
    }

    /// Every refusal needs a state that justifies it.
    fn reasonable(
        &self,
        now: u64,
        asked: Asked,
        error: Option<&ClientError>,
        within: u64,
    ) -> Result<(), Violation> {
        let early = now - asked.at < within * 9 / 10 && self.health_since[asked.slot] < asked.at;
        let recently = |at: Option<u64>, micros: u64| at.is_some_and(|at| at + micros >= asked.at);
        let reason = match error {
            // Its time was up long ago, and it was not told so.
            None => self.health_since[asked.slot] >= asked.at || self.at.health[asked.slot] == Health::Absent,
            Some(ClientError::NoLeader | ClientError::NoQuorum) => !early,
            Some(ClientError::Unknown) => !early || recently(self.installed_at[asked.slot], 0),
            Some(ClientError::DiskFull) => recently(self.full_at, 2_000 * MILLI),
            Some(ClientError::Overloaded) => {
                let holds = self.held_bytes_max > 0 && asked.write && asked.bytes > self.held_bytes_max;
                holds || asked.write && recently(self.loaded_at, self.bounds.answer)
            }
            Some(ClientError::Removed) => {
                self.at.voters & (1 << asked.slot) == 0 || self.at.surgery || self.voters_since >= asked.at
            }
            Some(_) => false,
        };
        if reason {
            return Ok(());
        }
        let what = format!(
            "machine {}, asked at {}, answers {error:?} after {} µs",
            asked.slot,
            asked.at,
            now - asked.at
        );
        Err(Violation { check: "a refusal has a reason", what })
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Service, Shows, Surroundings};
    use crate::checks::Violation;
    use crate::schedule::{MILLI, SECOND, Schedule, Settings};
    use infinitystore::kv::{Outcome, Revision};
    use infinitystore::raft::{LogIndex, RoleName, Term};
    use infinitystore::replica::{ClientError, ClientReply, RequestId};

    const TERM: Term = Term::new(3);

    fn settings() -> Settings {
        Settings {
            delay_min_micros: 100,
            delay_max_micros: 200,
            loss_ppm: 0,
            duplicate_ppm: 0,
            corrupt_ppm: 0,
            straggler_ppm: 0,
            link_spread: 1,
            sync_min_micros: 100,
            sync_max_micros: 200,
            settle_max_micros: 0,
            drift_ppm: 0,
            election_timeout_micros: 200 * MILLI,
            heartbeat_interval_micros: 50 * MILLI,
            ..Schedule::generate(0).settings
        }
    }

    fn well() -> Surroundings {
        Surroundings { health: vec![Health::Well; 3], severed: vec![0; 3], voters: 0b111, surgery: false }
    }

    fn shows(slot: usize, last: u64, commit: u64) -> Option<Shows> {
        let role = if slot == 0 { RoleName::Leader } else { RoleName::Follower };
        let (last, commit) = (LogIndex::new(last), LogIndex::new(commit));
        Some(Shows { role, term: TERM, leader: Some(0), last, commit, applied: commit })
    }

    /// Machine 0 leads three machines, all well, from the start on.
    fn service() -> Service {
        let mut service = Service::new(&settings(), 3);
        service.surroundings(0, &well());
        service.stepped(0, 0, RoleName::Leader, TERM).unwrap();
        service
    }

    /// Looks again and again at what does not change.
    fn look(service: &mut Service, micros: u64, shown: &[Option<Shows>; 3]) -> Result<(), Violation> {
        (0..=micros / (10 * MILLI)).try_for_each(|step| service.look(step * 10 * MILLI, shown).map(|_| ()))
    }

    #[track_caller]
    fn refuses<T: std::fmt::Debug + PartialEq>(check: &str, result: Result<T, Violation>) {
        assert_eq!(result.map_err(|violation| violation.check), Err(check));
    }

    #[test]
    fn a_majority_that_elects_nobody_is_refused_and_one_that_is_cut_is_not() {
        let none = shows(1, 1, 1).map(|shows| Shows { leader: None, ..shows });
        let mut service = Service::new(&settings(), 3);
        service.surroundings(0, &well());
        let long = 2 * service.bounds.elect;
        refuses("a majority elects a leader", look(&mut service, long, &[none; 3]));
        for surroundings in [
            Surroundings { severed: vec![0b110, 0b001, 0b001], ..well() },
            Surroundings { health: vec![Health::Absent, Health::Well, Health::Well], ..well() },
        ] {
            let mut service = Service::new(&settings(), 3);
            service.surroundings(0, &surroundings);
            refuses("a majority elects a leader", look(&mut service, long, &[none; 3]));
        }
        for surroundings in [
            Surroundings { severed: vec![0b110, 0b101, 0b011], ..well() },
            Surroundings { health: vec![Health::Absent, Health::Absent, Health::Well], ..well() },
            Surroundings { severed: vec![0b010, 0, 0], ..well() },
            Surroundings { surgery: true, ..well() },
        ] {
            let mut service = Service::new(&settings(), 3);
            service.surroundings(0, &surroundings);
            assert_eq!(look(&mut service, long, &[none; 3]), Ok(()), "{surroundings:?}");
        }
    }

    #[test]
    fn entries_that_are_not_committed_are_refused_while_a_majority_is_in_touch() {
        let stands = [shows(0, 5, 4), shows(1, 5, 4), shows(2, 5, 4)];
        let long = 2 * service().bounds.stall;
        refuses("what is proposed is committed", look(&mut service(), long, &stands));
        let mut one_off = service();
        one_off.surroundings(0, &Surroundings { severed: vec![0b100, 0b100, 0b011], ..well() });
        refuses("what is proposed is committed", look(&mut one_off, long, &stands));
        let mut two_off = service();
        two_off.surroundings(0, &Surroundings { severed: vec![0b110, 0b001, 0b001], ..well() });
        assert_eq!(look(&mut two_off, service().bounds.elect / 2, &stands), Ok(()));
    }

    #[test]
    fn who_is_connected_and_does_not_keep_up_is_refused() {
        let behind = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 4)];
        let elsewhere =
            [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 5).map(|it| Shows { leader: None, ..it })];
        let long = 2 * service().bounds.stall;
        for shown in [behind, elsewhere] {
            refuses("a connected member keeps up", look(&mut service(), long, &shown));
            let mut off = service();
            off.surroundings(0, &Surroundings { severed: vec![0b100, 0, 0], ..well() });
            assert_eq!(look(&mut off, long, &shown), Ok(()));
        }
    }

    #[test]
    fn who_is_left_alone_with_a_snapshot_for_longer_than_its_disk_justifies_is_refused() {
        let behind = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 4)];
        let stall = service().bounds.stall;
        let told_at = |refused: bool, times: u32| {
            let mut service = service();
            if refused {
                service.snapshot_refused(2);
            }
            service.snapshot_not_taken(0, 2, times);
            service
        };
        refuses("a connected member keeps up", look(&mut told_at(false, 1), 2 * stall, &behind));
        for (times, pause) in [(1, SECOND), (3, 4 * SECOND), (40, 60 * SECOND)] {
            assert_eq!(look(&mut told_at(true, times), pause, &behind), Ok(()), "{times}");
            let long = 2 * (pause + stall);
            refuses("a connected member keeps up", look(&mut told_at(true, times), long, &behind));
        }
    }

    #[test]
    fn leadership_that_changes_without_a_cause_is_refused() {
        let doubt = service().bounds.doubt;
        let stand = |service: &mut Service, now| service.stepped(now, 1, RoleName::Candidate, TERM.next());
        let step_down = |service: &mut Service, now| service.stepped(now, 0, RoleName::Follower, TERM);
        refuses("an election has a cause", stand(&mut service(), doubt + 1));
        refuses("a leader that is heard leads on", step_down(&mut service(), doubt + 1));
        let strike: [fn(&mut Service, u64); 3] = [
            |service, now| service.struck(0, now),
            |service, now| service.transfer_asked(now, 0, None),
            |service, now| {
                service.surroundings(now, &Surroundings { severed: vec![0b110, 0, 0], ..well() });
                service.surroundings(now, &well());
            },
        ];
        for strike in strike {
            let (mut one, mut other) = (service(), service());
            strike(&mut one, 2);
            strike(&mut other, 2);
            assert_eq!(stand(&mut one, doubt + 1), Ok(()));
            assert_eq!(step_down(&mut other, doubt + 1), Ok(()));
        }
    }

    #[test]
    fn an_order_to_take_over_may_be_found_by_a_machine_that_stood_still() {
        let doubt = service().bounds.doubt;
        let asleep = Surroundings { health: vec![Health::Well, Health::Absent, Health::Well], ..well() };
        let stands = |ordered: bool| {
            let mut service = service();
            service.surroundings(1, &asleep);
            if ordered {
                service.transfer_asked(2, 0, Some(1));
            }
            service.surroundings(2 * doubt, &well());
            service.stepped(2 * doubt, 1, RoleName::Candidate, TERM.next())
        };
        assert_eq!(stands(true), Ok(()));
        refuses("an election has a cause", stands(false));
    }

    #[test]
    fn a_transfer_that_does_not_succeed_is_refused() {
        let stands = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 5)];
        let mut waits = service();
        waits.transfer_asked(1, 0, Some(1));
        let long = 2 * waits.bounds.transfer;
        refuses("a transfer succeeds", look(&mut waits, long, &stands));
        let mut struck = service();
        struck.transfer_asked(1, 0, Some(1));
        struck.struck(1, 2);
        assert_eq!(look(&mut struck, long, &stands), Ok(()));
        let mut done = service();
        done.transfer_asked(1, 0, Some(1));
        done.stepped(2, 1, RoleName::Leader, TERM.next()).unwrap();
        assert_eq!(done.look(3, &stands), Ok(true));
    }

    #[test]
    fn a_refusal_without_a_reason_and_a_client_that_is_not_served_are_refused() {
        let answer = |error: Option<ClientError>, after: u64, strike: fn(&mut Service)| {
            let mut service = service();
            service.asked(10, RequestId(1), 1, true, 0);
            strike(&mut service);
            let reply = error.map(ClientReply::Failed);
            service.answered(after, RequestId(1), reply.as_ref(), 1_000_000)
        };
        let early = 20;
        for error in
            [ClientError::NotLeader(None), ClientError::Reserved, ClientError::Refused(String::new())]
        {
            refuses("a refusal has a reason", answer(Some(error), early, |_| ()));
        }
        for error in
            [ClientError::NoLeader, ClientError::NoQuorum, ClientError::Unknown, ClientError::Overloaded]
        {
            refuses("a refusal has a reason", answer(Some(error), early, |_| ()));
        }
        refuses("a refusal has a reason", answer(Some(ClientError::DiskFull), early, |_| ()));
        assert_eq!(answer(Some(ClientError::DiskFull), early, |service| service.full(5)), Ok(false));
        assert_eq!(answer(Some(ClientError::Overloaded), early, |service| service.loaded(15)), Ok(false));
        assert_eq!(answer(Some(ClientError::Unknown), early, |service| service.installed(1, 15)), Ok(false));
        let late = 1_000_000;
        refuses("a client that can be served is served", answer(Some(ClientError::NoLeader), late, |_| ()));
        refuses("a client that can be served is served", answer(Some(ClientError::Unknown), late, |_| ()));
        assert_eq!(
            answer(Some(ClientError::Unknown), late, |service| service.write_lost(1, 0, 15)),
            Ok(false)
        );
        refuses(
            "a client that can be served is served",
            answer(Some(ClientError::Unknown), late, |it| it.struck(2, 15)),
        );
        assert_eq!(
            answer(Some(ClientError::Unknown), late, |service| service.struck(1, 1_000_000)),
            Ok(false)
        );
        refuses("a refusal has a reason", answer(None, late, |_| ()));
    }

    #[test]
    fn a_write_that_is_answered_by_another_leader_has_survived_the_first() {
        let mut service = service();
        service.asked(10, RequestId(1), 1, true, 0);
        service.stepped(20, 2, RoleName::Leader, TERM.next()).unwrap();
        let reply = ClientReply::Written(Outcome::Set { revision: Revision(1), version: 1 });
        assert_eq!(service.answered(30, RequestId(1), Some(&reply), 1_000_000), Ok(true));
    }
}
