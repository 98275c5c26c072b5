//! One of the three: a real core, its disk, and the writes on their way there.

use crate::model::properties::{self, Breach};
use crate::model::{Bounds, Disk, Event, FIRST_TERM, NODES, hash_of};
use infinitystore::raft::{
    Body, Config, Durable, Entry, EntryKind, HardState, Incarnation, Input, LogId, LogIndex, LogWrite,
    Member, Membership, Message, NodeId, Raft, RaftEvent, Restored, RoleName, Setup, StoreId, Term, Time,
};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

/// A core and what is durable of it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(super) raft: Raft,
    /// The core's log, to look at. Derived.
    pub(super) log: Vec<Entry>,
    pub(super) durable: HardState,
    pub(super) durable_log: Vec<Entry>,
    /// Handed out and not durable, oldest first.
    pub(super) writes: VecDeque<LogWrite>,
}

/// What a node says and commits in a step.
#[derive(Default)]
pub(super) struct Said {
    pub(super) messages: Vec<Message>,
    pub(super) committed: Vec<Entry>,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.raft, self.durable, &self.durable_log, &self.writes).hash(hasher);
    }
}

impl Node {
    /// As the cluster was made.
    pub(super) fn new(position: usize, config: Config) -> Self {
        let ids = || (1..=NODES as u64).map(NodeId::new);
        let member = |id: NodeId| Member {
            name: id.to_string(),
            raft_addr: String::new(),
            http_addr: String::new(),
            store_id: StoreId(u128::from(id.get())),
        };
        let membership = Membership {
            voters: ids().collect(),
            outgoing: None,
            learners: BTreeMap::new(),
            members: ids().map(|id| (id, member(id))).collect(),
            next_member_id: NodeId::new(NODES as u64 + 1),
        };
        let id = LogId::new(Term::new(FIRST_TERM), LogIndex::new(1));
        let durable = HardState { term: id.term, voted_for: None };
        let durable_log = vec![Entry::new(id, EntryKind::Membership, &membership.encode())];
        let raft = start(position, config, durable, &durable_log);
        Self { raft, log: durable_log.clone(), durable, durable_log, writes: VecDeque::new() }
    }

    /// Steps the core, takes its output and carries it out. `Err` if it does what it must not do.
    pub(super) fn happen(
        &mut self,
        event: &Event,
        bounds: &Bounds,
        disk: Disk,
        said: &mut Said,
    ) -> Result<(), Breach> {
        let (mut at, config) = (now(), bounds.config());
        let (leads_before, before) = (self.term_led(), self.raft.commit_index());
        let log_before = self.log.clone();
        match event {
            Event::Campaign => {
                at = at.plus(config.election_timeout_micros);
                let stops_to_lead = self.raft.role() == RoleName::Leader;
                self.step(at, Input::Wake);
                if stops_to_lead {
                    self.settle(at, said)?;
                    self.step(at, Input::Wake);
                }
            }
            Event::Stand => self.step(at, Input::Message(pre_vote_granted(&self.raft))),
            Event::Heartbeat => {
                at = at.plus(config.heartbeat_interval_micros);
                self.step(at, Input::Wake);
            }
            Event::Propose(number) => {
                let command = vec![*number].into();
                self.raft.propose(at, &command).expect("only leaders are asked to propose");
            }
            Event::Deliver(message) => self.step(at, Input::Message(Message::clone(message))),
            Event::Persist(count) => {
                let receipt = self.write(*count)?.expect("one at least");
                self.step(at, Input::Durable(receipt));
            }
            Event::Crash(count) => {
                let _lost_with_the_core = self.write(*count)?;
                self.restart(config, disk);
            }
        }
        self.settle(at, said)?;
        if !bounds.pre_votes {
            said.messages.retain(|message| !matches!(message.body, Body::PreVote { .. }));
        }
        let commit = self.raft.commit_index();
        if commit < before && !matches!(event, Event::Crash(_)) {
            return Err(Breach::CommitWentBack);
        }
        if leads_before.is_some() && leads_before == self.term_led() {
            // Raft §5.3.
            if !self.log.starts_with(&log_before) {
                return Err(Breach::LeaderRewrote);
            }
            // What is before it is committed with it (Raft §5.4.2).
            if commit > before && self.raft.term_at(commit) != Some(self.raft.term()) {
                return Err(Breach::CommittedByCounting);
            }
        }
        Ok(())
    }

    /// All but the messages that wait for a write.
    pub(super) fn essence(&self) -> u64 {
        let mut node = self.clone();
        node.raft.forget_held();
        hash_of(&node)
    }

    /// The term that it leads.
    fn term_led(&self) -> Option<Term> {
        (self.raft.role() == RoleName::Leader).then(|| self.raft.term())
    }

    fn step(&mut self, at: Time, input: Input) {
        self.raft.step(at, input).expect("only leaders are asked to lead");
    }

    /// Takes its output until there is none, and applies what is committed.
    fn settle(&mut self, at: Time, said: &mut Said) -> Result<(), Breach> {
        loop {
            let mut output = self.raft.take_output();
            for message in &mut output.messages {
                message.forget_time();
                properties::said(message, self)?;
            }
            said.messages.extend(output.messages);
            self.writes.extend(output.write);
            if output.events.iter().any(|event| matches!(event, RaftEvent::BadMessage { .. })) {
                return Err(Breach::BadMessage);
            }
            let mut expected = self.raft.last_applied().next();
            for entry in &output.committed {
                if entry.index() != expected {
                    return Err(Breach::AppliedOutOfOrder);
                }
                expected = expected.next();
            }
            let Some(last) = output.committed.last().map(Entry::index) else { break };
            said.committed.extend(output.committed);
            self.step(at, Input::Applied(last));
        }
        self.raft.forget_time(now(), self.writes.iter_mut());
        self.log = self.raft.log_after(LogIndex::ZERO);
        Ok(())
    }

    /// Makes the oldest writes durable; the receipt of the newest of them.
    fn write(&mut self, count: usize) -> Result<Option<Durable>, Breach> {
        let mut receipt = None;
        for write in self.writes.drain(..count) {
            let records = write.records();
            if let Some(hard_state) = records.hard_state {
                let before = std::mem::replace(&mut self.durable, hard_state);
                let revoted = before.term == hard_state.term
                    && before.voted_for.is_some()
                    && before.voted_for != hard_state.voted_for;
                if hard_state.term < before.term || revoted {
                    return Err(Breach::DurableWentBack);
                }
            }
            if let Some(from) = records.truncate_from {
                self.durable_log.retain(|entry| entry.index() < from);
            }
            for entry in &records.entries {
                if entry.index().get() != self.durable_log.len() as u64 + 1 {
                    return Err(Breach::WrittenOutOfOrder);
                }
                self.durable_log.push(entry.clone());
            }
            receipt = Some(write.into_durable());
        }
        Ok(receipt)
    }

    /// Starts from what is durable.
    fn restart(&mut self, config: Config, disk: Disk) {
        match disk {
            Disk::Sound => {}
            Disk::ForgetsVotes => self.durable.voted_for = None,
            Disk::ForgetsAnEntry => {
                if self.durable_log.len() > 1 {
                    self.durable_log.pop();
                }
            }
        }
        self.writes.clear();
        self.raft = start(position_of(self.raft.id()), config, self.durable, &self.durable_log);
    }
}

/// When everything happens.
fn now() -> Time {
    Time::new(Config::default().election_timeout_micros)
}

/// A core from this durable state. A receipt of an earlier life cannot come, so that lives need no
/// numbers.
fn start(position: usize, config: Config, hard_state: HardState, entries: &[Entry]) -> Raft {
    let restored = Restored { hard_state, entries: entries.to_vec(), ..Restored::default() };
    let id = NodeId::new(position as u64 + 1);
    let raft =
        Raft::new(Setup { id, incarnation: Incarnation::new(1), seed: 0, config, restored, now: now() });
    let mut raft = raft.expect("what was durable can be restored");
    raft.forget_time(now(), std::iter::empty());
    raft
}

/// What lets a node that asks for pre-votes stand for election.
fn pre_vote_granted(asks: &Raft) -> Message {
    let (from, to) = (NodeId::new(asks.id().get() % NODES as u64 + 1), asks.id());
    let campaign_term = Term::new(asks.term().get() + 1);
    Message { from, to, term: asks.term(), body: Body::PreVoteGranted { campaign_term } }
}

pub(super) fn position_of(id: NodeId) -> usize {
    usize::try_from(id.get()).expect("ids are small") - 1
}
