//! Do the states of the members agree? The log is the same everywhere, so the states are, unless
//! memory, a disk or the program failed. Nothing else would notice that. So the leader sends now
//! and then the hash of its state at an entry. Each member answers with its own hash there, and a
//! member that differs from a quorum withdraws. Where the voters differ and no quorum agrees,
//! nobody can say which state is right: that is told, and a person decides.

use crate::raft::{Input, LogIndex, NodeId, RoleName, Time, Withdrawal, quorum};
use crate::replica::agreement::Checkpoint;
use crate::replica::message::{PeerMessage, StateHash, StateHashKind};
use crate::replica::notice::Notice;
use crate::replica::replica::Replica;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// States are compared at entries whose index is a multiple of this.
const CHECKPOINT_ENTRIES: u64 = 256;
/// Checkpoints that are kept. A question about an older one is not answered.
const CHECKPOINTS_KEPT: usize = 64;
/// The leader asks at most once in this time, microseconds.
const COMPARE_MICROS: u64 = 1_000_000;
/// If nothing has been applied for this time, the leader asks about its state as it is. So a
/// cluster with few writes is compared, too.
const QUIET_MICROS: u64 = 10_000_000;
/// That nobody can say which state is right is told at most once in this time, microseconds.
const TELL_MICROS: u64 = 60_000_000;

impl Replica {
    /// An entry was applied: its checkpoint is kept, if it is one.
    pub(super) fn note_checkpoint(&mut self) {
        let index = self.last_applied.index;
        let is_asked = self.agreement.open_question.is_some_and(|asked| asked.index == index);
        if !is_asked && !index.get().is_multiple_of(CHECKPOINT_ENTRIES) {
            return;
        }
        self.keep_checkpoint();
        if let Some(asked) = self.agreement.open_question.take_if(|asked| asked.index <= index) {
            self.answer_state(&asked);
        }
    }

    /// Keeps the hash of the state as it is.
    fn keep_checkpoint(&mut self) {
        let index = self.last_applied.index;
        let own = &mut self.agreement.own;
        if own.back().is_some_and(|newest| newest.index == index) {
            return;
        }
        if own.len() >= CHECKPOINTS_KEPT {
            own.pop_front();
        }
        own.push_back(Checkpoint { index, hash: self.store.state_hash() });
    }

    /// When a leader that applies nothing more asks about its state as it is: once.
    pub(super) fn compare_quiet_at(&self) -> Option<Time> {
        let (index, since) = self.agreement.quiet?;
        let asked = self.agreement.question.as_ref().map(|(asked, _)| asked.index);
        let is_new = asked < Some(index) && self.raft.role() == RoleName::Leader;
        is_new.then(|| since.plus(QUIET_MICROS).max(self.agreement.next_at))
    }

    /// The leader asks all others about its newest checkpoint, unless it has just asked, or has
    /// none that is new.
    pub(super) fn maybe_compare_states(&mut self) {
        let applied = self.last_applied.index;
        if self.agreement.quiet.is_none_or(|(index, _)| index != applied) {
            self.agreement.quiet = Some((applied, self.now));
        }
        if self.compare_quiet_at().is_some_and(|at| at <= self.now) {
            self.keep_checkpoint();
        }
        let Some(newest) = self.agreement.own.back().copied() else { return };
        let asked = self.agreement.question.as_ref().map(|(asked, _)| asked.index);
        let is_due = self.now >= self.agreement.next_at && asked < Some(newest.index);
        if !is_due || self.raft.role() != RoleName::Leader {
            return;
        }
        self.agreement.next_at = self.now.plus(COMPARE_MICROS);
        let me = self.raft.id();
        self.agreement.question = Some((newest, BTreeMap::from([(me, newest.hash)])));
        let others: Vec<NodeId> =
            self.raft.membership().members.keys().copied().filter(|id| *id != me).collect();
        for to in others {
            self.say_state(to, StateHashKind::Question, newest);
        }
    }

    /// Another member sent the hash of its state.
    pub(super) fn handle_state_hash(&mut self, said: StateHash) {
        if said.to != self.raft.id() || said.term != self.raft.term() {
            return;
        }
        let is_leader = self.raft.leader_hint().leader == Some(said.from);
        match said.kind {
            StateHashKind::Question if is_leader && said.index > self.last_applied.index => {
                self.agreement.open_question = Some(said);
            }
            StateHashKind::Question if is_leader => {
                if said.index == self.last_applied.index {
                    self.keep_checkpoint();
                }
                self.answer_state(&said);
            }
            StateHashKind::Verdict if is_leader && self.differs_from(&said) => {
                self.input(Input::Withdraw(Withdrawal::Diverged { index: said.index }));
            }
            StateHashKind::Undecided if is_leader && self.differs_from(&said) => {
                self.tell_undecided(said.index);
            }
            StateHashKind::Answer => {
                if let Some((asked, answers)) = &mut self.agreement.question
                    && asked.index == said.index
                {
                    answers.insert(said.from, said.hash);
                    self.judge_states();
                }
            }
            StateHashKind::Question | StateHashKind::Verdict | StateHashKind::Undecided => {}
        }
    }

    fn differs_from(&self, said: &StateHash) -> bool {
        self.agreement.at(said.index).is_some_and(|own| own.hash != said.hash)
    }

    /// This state differs from another, and nobody can say which of them is right.
    fn tell_undecided(&mut self, index: LogIndex) {
        if self.now >= self.agreement.tell_at {
            self.agreement.tell_at = self.now.plus(TELL_MICROS);
            self.actions.notices.push(Notice::StatesDiffer(index));
        }
    }

    fn answer_state(&mut self, asked: &StateHash) {
        if let Some(own) = self.agreement.at(asked.index)
            && asked.term == self.raft.term()
        {
            self.say_state(asked.from, StateHashKind::Answer, own);
        }
    }

    /// The leader judges the answers. A member that differs from a quorum is told so, and so is the
    /// leader itself. If all voters have answered and no quorum agrees, nobody withdraws: the
    /// leader's state may be the one that is wrong, and the others may be needed to decide anything
    /// at all.
    fn judge_states(&mut self) {
        if self.raft.role() != RoleName::Leader {
            return;
        }
        let Some((asked, answers)) = self.agreement.question.clone() else { return };
        let membership = self.raft.membership();
        let is_quorum = |hash: u128| {
            let has = |id: NodeId| answers.get(&id) == Some(&hash);
            quorum::reached(&membership.voters, membership.outgoing.as_ref(), has)
        };
        if answers.values().all(|hash| *hash == asked.hash) {
            return;
        }
        let mut verdict = StateHashKind::Verdict;
        if !is_quorum(asked.hash) {
            if answers.values().any(|hash| *hash != asked.hash && is_quorum(*hash)) {
                return self.input(Input::Withdraw(Withdrawal::Diverged { index: asked.index }));
            }
            if !membership.members.keys().all(|id| answers.contains_key(id) || !membership.is_voter(*id)) {
                return;
            }
            verdict = StateHashKind::Undecided;
            self.tell_undecided(asked.index);
        }
        for (id, _) in answers.iter().filter(|(_, hash)| **hash != asked.hash) {
            self.say_state(*id, verdict, asked);
        }
    }

    fn say_state(&mut self, to: NodeId, kind: StateHashKind, checkpoint: Checkpoint) {
        let Checkpoint { index, hash } = checkpoint;
        let said = StateHash { from: self.raft.id(), to, term: self.raft.term(), kind, index, hash };
        self.actions.messages.push(PeerMessage::StateHash(said));
    }
}
