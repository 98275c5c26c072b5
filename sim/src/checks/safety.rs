//! The safety properties that are checked at every step, over all machines at once.

#[cfg(test)]
mod tests;

use crate::checks::durable::DurableModel;
use crate::checks::hashing::QuickSet;
use crate::checks::keyspace::leases::Leases;
use crate::checks::keyspace::watching::Watching;
use crate::checks::ledger::Ledger;
use crate::checks::levels::LevelChecks;
use crate::checks::observed::Observed;
use crate::checks::orders::Orders;
use crate::checks::quorums::{LeaseBounds, Quorums};
use crate::checks::shown::{Known, figures_are_right};
use crate::record::marks::Marks;
use crate::record::violation::{Violation, check};
use crate::schedule::{PROMOTE_LAG_ENTRIES, Settings};
use bytes::Bytes;
use infinitystore::kv::{Op, Put, Store};
use infinitystore::raft::{
    Body, Entry, EntryKind, LogId, LogIndex, Membership, Message, NodeId, PeerProgress, Raft, RoleName, Term,
};
use infinitystore::replica::{Notice, PeerMessage, ProposalId, Replica, Status, decode_proposal};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of an entry that some machine has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    term: Term,
    hash: u64,
}

/// What has been seen of the cluster so far.
#[derive(Debug, Default)]
pub struct Checks {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// By index, from 1.
    committed: Vec<Committed>,
    /// The highest term in which any machine applied one of them. A leader of that term or an
    /// earlier one need not have them.
    committed_in: Term,
    /// State hash after each applied index.
    states: BTreeMap<LogIndex, u128>,
    /// The committed entries themselves, for the end of the run.
    entries: Vec<Entry>,
    /// Where the committed memberships stand.
    memberships: Vec<LogId>,
    /// Every proposal that was committed.
    proposals: BTreeSet<ProposalId>,
    /// The values that clients set, each of which is set once.
    values: QuickSet<Bytes>,
    /// The term and commit index that each leader showed last.
    led: BTreeMap<NodeId, (Term, LogIndex)>,
    /// The configuration by which each leader decides what comes next.
    decides_by: BTreeMap<NodeId, (LogId, Membership)>,
    /// Votes and confirmed rounds (queue engine).
    pub quorums: Quorums,
    /// The last joint state that each leader appended.
    joint: BTreeMap<NodeId, LogId>,
    /// What commands have to return.
    pub ledger: Ledger,
    /// What operators asked for.
    pub orders: Orders,
    /// Clients that wait for a change (queue engine).
    pub watching: Watching,
    /// What leases were promised (queue engine).
    pub leases: Leases,
    /// The level of the cluster (queue engine).
    pub levels: LevelChecks,
}

impl Checks {
    /// For a run in which what a replica does is carried out at most so much later.
    #[must_use]
    pub fn for_run(settle_max_micros: u64, settings: &Settings) -> Self {
        let mut checks = Self::default();
        let bounds = LeaseBounds { drift_ppm: settings.drift_ppm, slack_micros: settle_max_micros };
        checks.quorums.leases = settings.lease_reads.then_some(bounds);
        // By the quickest clock that reads it.
        let quick = (settle_max_micros * u64::from(settings.drift_ppm)).div_ceil(1_000_000);
        checks.leases.slack_micros = settle_max_micros + quick;
        checks
    }

    /// The committed entries, in order, as far as any machine has applied them one by one.
    #[must_use]
    pub fn committed_entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The hash of the state at an applied index, if any machine has shown it.
    #[must_use]
    pub fn state_at(&self, index: LogIndex) -> Option<u128> {
        self.states.get(&index).copied()
    }

    /// The last index that is known to be committed.
    #[must_use]
    pub fn committed_through(&self) -> LogIndex {
        LogIndex::new(self.committed.len() as u64)
    }

    /// A machine sends a message: what it says must be durable (Raft figure 2: "updated on stable
    /// storage before responding").
    ///
    /// # Errors
    /// [`Violation`].
    pub fn sent(&mut self, message: &Message, durable: &DurableModel) -> Result<(), Violation> {
        let (from, to, term) = (message.from, message.to, message.term);
        match &message.body {
            Body::RequestVote { .. } => {
                check!(
                    "persist before send",
                    durable.hard_state.term == term && durable.hard_state.voted_for == Some(from),
                    "{from} asks for votes in term {term}; durable is {:?}",
                    durable.hard_state
                );
                self.voted(from, term, from)?;
            }
            Body::VoteGranted => {
                check!(
                    "persist before send",
                    durable.hard_state.term == term && durable.hard_state.voted_for == Some(to),
                    "{from} grants {to} its vote in term {term}; durable is {:?}",
                    durable.hard_state
                );
                self.voted(from, term, to)?;
            }
            Body::AppendAccepted { match_index, .. } | Body::SnapshotInstalled { match_index, .. } => {
                check!(
                    "persist before send",
                    durable.last().index >= *match_index && durable.hard_state.term == term,
                    "{from} acknowledges {match_index} to {to} in term {term}; durable is the log to {} in {:?}",
                    durable.last(),
                    durable.hard_state
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId) -> Result<(), Violation> {
        let earlier = *self.votes.entry((voter, term)).or_insert(candidate);
        check!(
            "one vote a term",
            earlier == candidate,
            "{voter} voted for {earlier} and for {candidate} in term {term}"
        );
        Ok(())
    }

    /// A machine was stepped: what it tells, and what it has applied since it was last looked at.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn stepped(
        &mut self,
        slot: usize,
        replica: &Replica,
        notices: &[Notice],
        shown: &mut Observed,
        marks: &mut Marks,
    ) -> Result<(), Violation> {
        for notice in notices {
            match notice {
                Notice::RoleChanged { role, term, .. } => self.role_changed(replica, *role, *term)?,
                Notice::SnapshotTaken(_) => *marks.entry("snapshot taken").or_default() += 1,
                Notice::SnapshotInstalled(_) => {
                    *marks.entry("snapshot installed").or_default() += 1;
                    self.same_membership(replica)?;
                }
                Notice::BadMessage { from, reason } => {
                    let what = format!("machine {slot} about member {from}: {reason}");
                    return Err(Violation { check: "no correct peer says that", what });
                }
                // `orders` knows whether it was.
                Notice::Withdrawn(_) if replica.is_removed() && self.orders.has_left(replica.raft().id()) => {
                }
                Notice::Withdrawn(why) => {
                    let what = format!("machine {slot}: {why}");
                    return Err(Violation { check: "no sound member withdraws", what });
                }
                Notice::StatesDiffer(index) => {
                    let what = format!("machine {slot}, at {index}, and no quorum agrees");
                    return Err(Violation { check: "the states of sound members agree", what });
                }
                // No connection carries an entry that the other end does not understand.
                Notice::LevelAbove { level, told_by } => {
                    let what = format!("machine {slot}: level {level}, said by member {told_by}");
                    return Err(Violation { check: "nobody hears of a level that it does not speak", what });
                }
                Notice::LevelRaised(_) => *marks.entry("level applied").or_default() += 1,
                Notice::DiskSlow { is_slow: true, .. } => *marks.entry("disk called slow").or_default() += 1,
                Notice::LeftLeadToQuicker { .. } => {
                    *marks.entry("lead left to a quicker disk").or_default() += 1;
                }
                Notice::DiskSlow { .. }
                | Notice::LeaseCallsRefused { .. }
                | Notice::MembershipChanged { .. }
                | Notice::MembershipCommitted(_)
                | Notice::PeerWithdrew { .. }
                | Notice::SnapshotFailed(_)
                | Notice::SnapshotRepeated { .. }
                | Notice::SnapshotNotTaken { .. } => {}
            }
        }
        shown.mark(replica, notices, marks);
        let applied = replica.last_applied().index;
        let before = std::mem::replace(&mut shown.applied, applied);
        check!(
            "applied never goes back",
            before <= applied,
            "machine {slot} had applied {before}, now {applied}"
        );
        if before < applied {
            let installed = |notice: &Notice| matches!(notice, Notice::SnapshotInstalled(_));
            let ahead = std::mem::take(&mut shown.ahead);
            if !notices.iter().any(installed) {
                let base = replica.raft().log_base().min(applied);
                let gone = ahead.iter().filter(|entry| entry.index() > before && entry.index() <= base);
                gone.into_iter().try_for_each(|entry| self.applied(replica, entry))?;
            }
            // A snapshot may have replaced some of them.
            for entry in replica.raft().log_range(before, applied) {
                self.applied(replica, entry)?;
            }
            self.same_state(replica)?;
            self.ledger.check_store(replica.raft().id(), applied, replica.store())?;
        }
        Ok(())
    }

    /// A machine has a new role.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn role_changed(&mut self, replica: &Replica, role: RoleName, term: Term) -> Result<(), Violation> {
        if role != RoleName::Leader {
            return Ok(());
        }
        let id = replica.raft().id();
        let leader = *self.leaders.entry(term).or_insert(id);
        check!("election safety", leader == id, "{leader} and {id} both lead term {term}");
        // Leader completeness (Raft §5.4) speaks of leaders of higher terms than the one in which
        // an entry was committed: a late vote may still make a leader of a term that has passed.
        // With log matching, its copy of the last committed entry vouches for the others.
        let through = self.committed_through();
        if let Some(last) = self.committed.last()
            && replica.raft().term() == term
            && term > self.committed_in
        {
            let raft = replica.raft();
            let has = raft.term_at(through).map_or(raft.last_log().index > through, |term| term == last.term);
            check!(
                "leader completeness",
                has,
                "{id} leads term {term} with a log to {} and lacks committed entry {through} of term {}",
                raft.last_log(),
                last.term
            );
        }
        Ok(())
    }

    /// A machine applied an entry.
    fn applied(&mut self, replica: &Replica, entry: &Entry) -> Result<(), Violation> {
        let (id, index, found) = (replica.raft().id(), entry.index(), committed(entry));
        let position = usize::try_from(index.get() - 1).unwrap_or(usize::MAX);
        if let Some(&known) = self.committed.get(position) {
            check!(
                "committed never changes",
                known == found,
                "{id} applied {} at {index}; somebody applied another entry of term {}",
                entry.id(),
                known.term
            );
            return Ok(());
        }
        check!("no gap", position == self.committed.len(), "{id} applied {index} first, beyond everybody");
        let term = self.committed.last().map_or(Term::ZERO, |last| last.term);
        check!("terms grow along the log", found.term >= term, "{index} is of term {}", found.term);
        self.committed.push(found);
        self.once(entry)?;
        self.ledger.commit(entry)?;
        self.committed_in = self.committed_in.max(replica.raft().term());
        self.entries.push(entry.clone());
        self.orders.reached(index)
    }

    /// An entry was committed: what a client asked for once is not in the log twice.
    fn once(&mut self, entry: &Entry) -> Result<(), Violation> {
        if entry.kind() == EntryKind::Membership {
            self.memberships.push(entry.id());
            let membership = Membership::decode(&entry.data()).map_err(|error| Violation {
                check: "a configuration follows from the one before",
                what: format!("at {}: {error}", entry.id()),
            })?;
            self.orders.commit(entry.id(), membership)?;
        }
        if entry.kind() != EntryKind::Command {
            return Ok(());
        }
        let Ok((id, command)) = decode_proposal(entry.data()) else { return Ok(()) };
        if matches!(command.op, Op::Expire { .. }) {
            // Leaders propose them, all under one name.
            return Ok(());
        }
        check!("proposed once", self.proposals.insert(id), "{id:?} is committed again at {}", entry.id());
        if let Op::Put(Put { key, value, .. }) = command.op
            && key.starts_with(b"key")
        {
            let text = String::from_utf8_lossy(&value[..value.len().min(12)]).into_owned();
            let is_new = self.values.insert(value);
            check!("applied once", is_new, "a client's value {text:?} is set again at {}", entry.id());
        }
        Ok(())
    }

    /// A machine starts from a snapshot or installed one: the membership that came with it is the
    /// one that was committed there.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn same_membership(&self, replica: &Replica) -> Result<(), Violation> {
        let (id, through) = (replica.raft().id(), replica.last_applied().index);
        let (_, found) = replica.raft().membership_at(through);
        let count = self.memberships.partition_point(|at| at.index <= through);
        let known = self.memberships[..count].last().copied().unwrap_or(LogId::ZERO);
        check!(
            "same membership at the same index",
            known == found || through > self.committed_through(),
            "{id} has at {through} the membership of {found}; committed is that of {known}"
        );
        Ok(())
    }

    /// The status that a machine shows is true.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn shows(&self, replica: &Replica, status: &Status, known: Known<'_>) -> Result<(), Violation> {
        let (raft, store) = (replica.raft(), replica.store());
        let shown = (status.id, status.role, status.term, status.last_log, status.commit_index);
        let is = (raft.id(), raft.role(), raft.term(), raft.last_log(), raft.commit_index());
        check!("the status says what is", shown == is, "{shown:?} is {is:?}");
        let shown = (status.last_applied, status.keys, status.store_bytes, status.revision);
        let is = (replica.last_applied().index, store.len(), store.bytes(), store.revision().0);
        check!("the status says what is", shown == is, "{} shows {shown:?} of {is:?}", raft.id());
        let members: Vec<_> = status.members.iter().map(|member| (member.id, &member.member)).collect();
        let right: Vec<_> = raft.membership().members.iter().map(|(id, member)| (*id, member)).collect();
        check!("the status says what is", members == right, "{} shows {members:?}", raft.id());
        let here = status.state_hash == store.state_hash() && status.joint == raft.membership().is_joint();
        check!("the status says what is", here, "{} shows {status:?}", raft.id());
        figures_are_right(replica, status, known)?;
        self.ledger.check_store(raft.id(), status.last_applied, store)
    }

    /// A process begins with the state that its snapshot holds.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn starts_from(&self, replica: &Replica) -> Result<(), Violation> {
        let (raft, last) = (replica.raft(), replica.last_applied());
        let (membership, at) = raft.membership_at(last.index);
        if last == LogId::ZERO {
            return self.ledger.check_store(raft.id(), last.index, replica.store());
        }
        self.snapshot(raft.id(), last, (at, membership), replica.store())
    }

    /// A snapshot that ends at `last` holds what was committed: the state there, and the
    /// membership.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn snapshot(
        &self,
        who: NodeId,
        last: LogId,
        (at, membership): (LogId, &Membership),
        store: &Store,
    ) -> Result<(), Violation> {
        let position = usize::try_from(last.index.get()).unwrap_or(usize::MAX);
        if let Some(known) = position.checked_sub(1).and_then(|position| self.entries.get(position)) {
            check!("a snapshot holds the state", known.id() == last, "{who}: {last} is {}", known.id());
            let right = self.orders.at(last.index);
            check!(
                "a snapshot holds the membership",
                right.is_some_and(|(known, right)| *known == at && right == membership),
                "{who} has for {last} the membership {membership:?} of {at}; committed is {right:?}"
            );
        }
        self.ledger.check_snapshot(who, last.index, store)
    }

    /// A machine was stepped and may lead. Every index that a leader commits is durable on a
    /// majority of each set of voters, and every match index is durable on that member. `durable`
    /// is what a member's disk holds, or held when it was lost; `None`: it never had one.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn replicated<'a>(
        &mut self,
        replica: &Replica,
        durable: impl Fn(NodeId) -> Option<&'a DurableModel>,
    ) -> Result<(), Violation> {
        let raft = replica.raft();
        let (id, term, commit) = (raft.id(), raft.term(), raft.commit_index());
        if raft.role() != RoleName::Leader {
            return Ok(());
        }
        let before = self.led.insert(id, (term, commit));
        let decided_by = self.decides_next(raft);
        self.promoted(raft)?;
        for PeerProgress { id: peer, match_index, .. } in raft.progress() {
            let (Some(durable), Some(known)) = (durable(peer), raft.term_at(match_index)) else { continue };
            let matched = LogId::new(known, match_index);
            // In a later term it may have lost what was not committed.
            let may_be_gone = durable.hard_state.term > term && !self.is_committed(matched);
            check!(
                "acknowledged is durable",
                durable.has(matched) || may_be_gone,
                "{id} leads term {term} and takes {peer} to have {matched}; durable there is the log to {}",
                durable.last()
            );
        }
        if before == Some((term, commit)) || commit == LogIndex::ZERO {
            return Ok(());
        }
        let Some(commit_term) = raft.term_at(commit) else {
            return Ok(());
        };
        let committed = LogId::new(commit_term, commit);
        // Entries of earlier terms are committed with one of the leader's own, never by counting
        // (Raft §5.4.2).
        check!(
            "a leader commits its own entries",
            commit_term == term || before.is_none_or(|(before, _)| before != term),
            "{id} leads term {term} and has committed {committed}"
        );
        let (membership, _) = raft.membership_at(commit);
        // Once a joint state is committed, the next configuration may decide alone as soon as it is
        // in force: on this leader, or on the leader before it, whose commit index this one began
        // with.
        let decided_here = before.is_some_and(|(before, _)| before == term);
        let outgoing = membership.outgoing.as_ref().filter(|_| decided_here && raft.membership().is_joint());
        for voters in std::iter::once(&membership.voters).chain(outgoing) {
            has_majority(id, term, committed, voters, &durable)?;
        }
        // A joint state that was in force when this was decided needs both its sets, at least for
        // its own entry. If the next configuration has been appended since, that one may have
        // decided the rest.
        let Some((at, joint, is_over)) = decided_by.filter(|(at, ..)| decided_here && at.index <= commit)
        else {
            return Ok(());
        };
        let through = if is_over { at } else { committed };
        for voters in std::iter::once(&joint.voters).chain(&joint.outgoing) {
            has_majority(id, term, through, voters, &durable)?;
        }
        Ok(())
    }

    /// Whether any machine has applied this entry.
    fn is_committed(&self, id: LogId) -> bool {
        let position = id.index.get().checked_sub(1).and_then(|it| usize::try_from(it).ok());
        position.and_then(|it| self.committed.get(it)).is_some_and(|it| it.term == id.term)
    }

    /// Notes the configuration by which a leader decides from now on. Returns the joint state by
    /// which it decided until now, and whether another configuration has followed it.
    fn decides_next(&mut self, raft: &Raft) -> Option<(LogId, Membership, bool)> {
        let (in_force, at) = raft.membership_at(raft.last_log().index);
        let before = match self.decides_by.get(&raft.id()) {
            Some((known, before)) if *known == at => before.is_joint().then(|| (at, before.clone(), false)),
            _ => {
                let before = self.decides_by.insert(raft.id(), (at, in_force.clone()));
                before.map(|(at, before)| (at, before, true))
            }
        };
        before.filter(|(_, before, _)| before.is_joint())
    }

    /// A leader promotes a learner only once it has caught up, so that no commit waits for it
    /// (Raft §6).
    fn promoted(&mut self, raft: &Raft) -> Result<(), Violation> {
        let membership = raft.membership();
        let Some(outgoing) = &membership.outgoing else { return Ok(()) };
        let (_, at) = raft.membership_at(raft.last_log().index);
        if at.term != raft.term() || self.joint.insert(raft.id(), at) == Some(at) {
            return Ok(());
        }
        for peer in raft.progress().filter(|peer| membership.voters.contains(&peer.id)) {
            check!(
                "a learner is promoted once it has caught up",
                outgoing.contains(&peer.id)
                    || peer.match_index > LogIndex::ZERO
                        && at.index.previous().since(peer.match_index) <= PROMOTE_LAG_ENTRIES,
                "{} makes {} a voter at {at}, which has acknowledged {}",
                raft.id(),
                peer.id,
                peer.match_index
            );
        }
        Ok(())
    }

    /// The state at an applied index is the same everywhere.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn same_state(&mut self, replica: &Replica) -> Result<(), Violation> {
        let (index, hash) = (replica.last_applied().index, replica.store().state_hash());
        let known = *self.states.entry(index).or_insert(hash);
        check!(
            "same state at the same index",
            known == hash,
            "{} has state {hash:032x} at {index}, another machine had {known:032x}",
            replica.raft().id()
        );
        Ok(())
    }
}

/// Whether an entry is durable on a majority of `voters`, as far as their disks are known.
fn has_majority<'a>(
    leader: NodeId,
    term: Term,
    entry: LogId,
    voters: &BTreeSet<NodeId>,
    durable: impl Fn(NodeId) -> Option<&'a DurableModel>,
) -> Result<(), Violation> {
    let has = |voter: &&NodeId| durable(**voter).is_some_and(|durable| durable.has(entry));
    let count = voters.iter().filter(has).count();
    check!(
        "committed is durable on a majority",
        2 * count > voters.len(),
        "{leader} leads term {term} and has committed {entry}, which is durable on {count} of {voters:?}"
    );
    Ok(())
}

/// A member that had withdrawn before says that, and nothing else: its log is no witness any more.
///
/// # Errors
/// [`Violation`].
pub fn is_silent(slot: usize, had_withdrawn: bool, messages: &[PeerMessage]) -> Result<(), Violation> {
    let speaks = |message: &&PeerMessage| matches!(message, PeerMessage::Raft(message) if !matches!(message.body, Body::Withdrawn(_)));
    let said = messages.iter().find(speaks).filter(|_| had_withdrawn);
    check!("a member that has withdrawn is silent", said.is_none(), "machine {slot} says {said:?}");
    Ok(())
}

fn committed(entry: &Entry) -> Committed {
    Committed { term: entry.term(), hash: xxhash_rust::xxh3::xxh3_64(entry.encoded()) }
}
