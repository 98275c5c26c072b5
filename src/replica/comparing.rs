//! Do the states of the members agree? The log is the same everywhere, so the states are, unless
//! memory, a disk or the program failed. Nothing else would notice that. So the leader sends now
//! and then the hash of its state at an entry. Each member answers with its own hash there, and a
//! member that differs from a quorum withdraws. Where the voters differ and no quorum agrees,
//! nobody can say which state is right: that is told, and a person decides. It is told although a
//! voter is silent, which might have decided it: that one may never come back.

use crate::raft::{Input, LogIndex, NodeId, RoleName, Time, Withdrawal, quorum};
use crate::replica::agreement::{Asked, Checkpoint, Undecided};
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
/// If answers differ and voters are silent that could decide, the leader waits for them so long,
/// microseconds, and asks no new question meanwhile. Then it tells what it knows.
const WAIT_MICROS: u64 = 10_000_000;
/// It asks them again after this time, microseconds: a message may have been lost.
const ASK_AGAIN_MICROS: u64 = 2_000_000;
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

    /// This leader's question. One of an earlier term is none: nobody answers it any more.
    fn asked(&self) -> Option<&Asked> {
        let is_of_now = |asked: &&Asked| asked.term == self.raft.term();
        self.agreement.question.as_ref().filter(is_of_now).filter(|_| self.raft.role() == RoleName::Leader)
    }

    /// The voters that are silent are still waited for. No other question takes this one's place.
    fn waits_for_voters(&self) -> bool {
        self.asked().and_then(|asked| asked.undecided).is_some_and(|undecided| !undecided.is_told)
    }

    /// When the leader has something to do about the states by itself.
    pub(super) fn compare_at(&self) -> Option<Time> {
        let undecided = self.asked().and_then(|asked| asked.undecided);
        let next = |undecided: Undecided| {
            let tell_at = (!undecided.is_told).then_some(undecided.tell_at);
            tell_at.map_or(undecided.ask_at, |at| at.min(undecided.ask_at))
        };
        undecided.map(next).into_iter().chain(self.compare_quiet_at()).min()
    }

    /// When a leader that applies nothing more asks about its state as it is: once.
    fn compare_quiet_at(&self) -> Option<Time> {
        let (index, since) = self.agreement.quiet?;
        let asked = self.asked().map(|asked| asked.checkpoint.index);
        let is_new = asked < Some(index) && self.raft.role() == RoleName::Leader && !self.waits_for_voters();
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
        self.go_on_undecided();
        let Some(newest) = self.agreement.own.back().copied() else { return };
        let asked = self.asked().map(|asked| asked.checkpoint.index);
        let is_due = self.now >= self.agreement.next_at && asked < Some(newest.index);
        if !is_due || self.raft.role() != RoleName::Leader || self.waits_for_voters() {
            return;
        }
        self.agreement.next_at = self.now.plus(COMPARE_MICROS);
        let answers = BTreeMap::from([(self.raft.id(), newest.hash)]);
        let term = self.raft.term();
        self.agreement.question = Some(Asked { checkpoint: newest, term, answers, undecided: None });
        self.ask_the_silent();
    }

    /// Asks those that have not answered.
    fn ask_the_silent(&mut self) {
        let Some(Asked { checkpoint, answers, .. }) = self.asked() else { return };
        let checkpoint = *checkpoint;
        let members = self.raft.membership().members.keys();
        let silent: Vec<NodeId> = members.copied().filter(|id| !answers.contains_key(id)).collect();
        for to in silent {
            self.say_state(to, StateHashKind::Question, checkpoint);
        }
    }

    /// Answers differ, and voters are silent that could decide: they are asked again, and at last
    /// it is told.
    fn go_on_undecided(&mut self) {
        let Some(mut undecided) = self.asked().and_then(|asked| asked.undecided) else { return };
        let now = self.now;
        let (asks, tells) = (undecided.ask_at <= now, !undecided.is_told && undecided.tell_at <= now);
        if !asks && !tells {
            return;
        }
        if asks {
            undecided.ask_at = now.plus(ASK_AGAIN_MICROS);
            self.ask_the_silent();
        }
        undecided.is_told |= tells;
        if let Some(asked) = &mut self.agreement.question {
            asked.undecided = Some(undecided);
        }
        if tells {
            self.say_to_differing(StateHashKind::Undecided);
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
                if let Some(asked) = &mut self.agreement.question
                    && (asked.checkpoint.index, asked.term) == (said.index, said.term)
                {
                    asked.answers.insert(said.from, said.hash);
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
    /// leader itself. If no quorum agrees, nobody withdraws: the leader's state may be the one that
    /// is wrong, and the others may be needed to decide anything at all. That is told once all
    /// voters have answered, or those that are silent have been waited for.
    fn judge_states(&mut self) {
        let Some(Asked { checkpoint, answers, undecided, .. }) = self.asked().cloned() else { return };
        let membership = self.raft.membership();
        let is_quorum = |hash: u128| {
            let has = |id: NodeId| answers.get(&id) == Some(&hash);
            quorum::reached(&membership.voters, membership.outgoing.as_ref(), has)
        };
        if answers.values().all(|hash| *hash == checkpoint.hash) {
            return;
        }
        let mut verdict = StateHashKind::Verdict;
        let mut waits = None;
        if !is_quorum(checkpoint.hash) {
            if answers.values().any(|hash| *hash != checkpoint.hash && is_quorum(*hash)) {
                return self.input(Input::Withdraw(Withdrawal::Diverged { index: checkpoint.index }));
            }
            verdict = StateHashKind::Undecided;
            if !membership.members.keys().all(|id| answers.contains_key(id) || !membership.is_voter(*id)) {
                waits = Some(undecided.unwrap_or_else(|| Undecided {
                    ask_at: self.now.plus(ASK_AGAIN_MICROS),
                    tell_at: self.now.plus(WAIT_MICROS),
                    is_told: false,
                }));
            }
        }
        if let Some(asked) = &mut self.agreement.question {
            asked.undecided = waits;
        }
        if waits.is_none() {
            self.say_to_differing(verdict);
        }
    }

    /// Tells the members that differ from the leader, and itself, if nothing can be decided.
    fn say_to_differing(&mut self, kind: StateHashKind) {
        let Some(Asked { checkpoint, answers, .. }) = self.asked().cloned() else { return };
        if kind == StateHashKind::Undecided {
            self.tell_undecided(checkpoint.index);
        }
        for (id, _) in answers.iter().filter(|(_, hash)| **hash != checkpoint.hash) {
            self.say_state(*id, kind, checkpoint);
        }
    }

    fn say_state(&mut self, to: NodeId, kind: StateHashKind, checkpoint: Checkpoint) {
        let Checkpoint { index, hash } = checkpoint;
        let said = StateHash { from: self.raft.id(), to, term: self.raft.term(), kind, index, hash };
        self.actions.messages.push(PeerMessage::StateHash(said));
    }
}
