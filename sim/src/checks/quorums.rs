//! A majority of the voters decides, of each set of voters in a joint state (Raft §6).
//!
//! This reads all messages, and compares what a node does with what it can know. A node that wins
//! an election was sent the votes of a majority of each set. A leader that confirms a read index
//! has been confirmed by a majority of each set since it was asked. The index is not below what was
//! committed then.

use crate::record::violation::{Violation, check};
use infinitystore::raft::{
    Body, Incarnation, LogIndex, Membership, Message, NodeId, Raft, ReadRound, RoleName, Term,
};
use std::collections::{BTreeMap, BTreeSet};

const MILLION: u64 = 1_000_000;

/// A question for a read index: the node that asks, its incarnation, and the number of the
/// question.
type Question = (NodeId, Incarnation, u64);

/// What is known of a node as the leader of a term.
#[derive(Debug, Default)]
struct Leading {
    term: Term,
    /// The newest round that it has begun.
    begun: ReadRound,
    /// By peer: the newest round that reached it as confirmed.
    confirmed: BTreeMap<NodeId, ReadRound>,
    /// By question: the newest round begun when it first came, and what was committed then.
    asked: BTreeMap<Question, (ReadRound, LogIndex)>,
    /// By peer: until when its promise to vote for nobody lasts, if its clock is as fast as it may
    /// be.
    promised: BTreeMap<NodeId, u64>,
    /// It has told a node to campaign: nobody's promise counts any more.
    has_told_successor: bool,
}

/// What leases of a run rest on.
#[derive(Clone, Copy, Debug)]
pub struct LeaseBounds {
    /// Clocks are off in rate by at most so many millionths.
    pub drift_ppm: u32,
    /// What a node does is carried out at most so much later, microseconds.
    pub slack_micros: u64,
}

/// Votes and confirmations, as they were sent and arrived.
#[derive(Debug, Default)]
pub struct Quorums {
    /// By term and candidate: the nodes that have sent it a vote.
    votes: BTreeMap<(Term, NodeId), BTreeSet<NodeId>>,
    leading: BTreeMap<NodeId, Leading>,
    /// Set where leaders may answer by promises of a quorum, too.
    pub leases: Option<LeaseBounds>,
}

/// Whether those that `has` names are a majority of each set of voters.
fn is_majority(membership: &Membership, has: impl Fn(&NodeId) -> bool) -> bool {
    std::iter::once(&membership.voters)
        .chain(&membership.outgoing)
        .all(|voters| 2 * voters.iter().filter(|id| has(id)).count() > voters.len())
}

impl Quorums {
    fn leading(&mut self, id: NodeId, term: Term) -> &mut Leading {
        let leading = self.leading.entry(id).or_default();
        if leading.term != term {
            *leading = Leading { term, ..Leading::default() };
        }
        leading
    }

    /// A node sends a message at `now`, microseconds of the simulation; `raft` is that node.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn sent(&mut self, message: &Message, raft: &Raft, now: u64) -> Result<(), Violation> {
        let (from, to, term) = (message.from, message.to, message.term);
        match &message.body {
            Body::VoteGranted => {
                self.votes.entry((term, to)).or_default().insert(from);
            }
            Body::AppendEntries { round, .. } if raft.term() == term => {
                let leading = self.leading(from, term);
                leading.begun = leading.begun.max(*round);
            }
            Body::TimeoutNow if raft.term() == term => {
                check!(
                    "leadership goes to voters alone",
                    raft.membership().is_voter(to),
                    "{from} names {to} to lead after term {term}, in {:?}",
                    raft.membership()
                );
                self.leading(from, term).has_told_successor = true;
            }
            // A node that has not heard of a later term yet may still answer a message of an
            // earlier one. What is known of the later one stays.
            Body::Heard { promised_micros, .. } => {
                let is_of_the_past = self.leading.get(&to).is_some_and(|leading| leading.term > term);
                if let Some(bounds) = self.leases.filter(|_| !is_of_the_past) {
                    let until = now + promised_micros * MILLION / (MILLION + u64::from(bounds.drift_ppm));
                    let promised = self.leading(to, term).promised.entry(from).or_default();
                    *promised = (*promised).max(until);
                }
            }
            // A snapshot shows that the logs agree up to where it ends, and what is committed
            // agrees with every leader's. Of what comes after, nothing is known.
            Body::SnapshotInstalled { match_index, .. } => {
                check!(
                    "an acknowledgement claims what is known to agree",
                    *match_index <= raft.commit_index(),
                    "{from} tells {to} that its log agrees up to {match_index}; it has committed {}",
                    raft.commit_index()
                );
            }
            Body::ReadIndexReady { incarnation, sequence, index } => {
                self.confirms(raft, (term, now), (to, *incarnation, *sequence), *index)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A message reaches a process; `committed` is the highest index that any machine has committed
    /// so far.
    pub fn arrived(&mut self, message: &Message, raft: &Raft, committed: LogIndex) {
        if raft.role() != RoleName::Leader {
            return;
        }
        let (from, term) = (message.from, message.term);
        match &message.body {
            Body::AppendAccepted { round, .. }
            | Body::AppendRejected { round, .. }
            | Body::Heard { round, .. }
                if term == raft.term() =>
            {
                let confirmed = self.leading(raft.id(), term).confirmed.entry(from).or_default();
                *confirmed = (*confirmed).max(*round);
            }
            Body::ReadIndex { incarnation, sequence } => {
                let leading = self.leading(raft.id(), raft.term());
                let begun = leading.begun;
                leading.asked.entry((from, *incarnation, *sequence)).or_insert((begun, committed));
            }
            _ => {}
        }
    }

    /// A process ends: what it knew as a leader is gone.
    pub fn ended(&mut self, id: NodeId) {
        self.leading.remove(&id);
    }

    fn confirms(
        &self,
        raft: &Raft,
        (term, now): (Term, u64),
        question: Question,
        index: LogIndex,
    ) -> Result<(), Violation> {
        let id = raft.id();
        let Some(leading) = self.leading.get(&id).filter(|leading| leading.term == term) else {
            return Ok(());
        };
        let Some((begun, committed)) = leading.asked.get(&question) else {
            let what = format!("{id} answers {question:?} in term {term}, in which it was not asked");
            return Err(Violation { check: "a read index is confirmed", what });
        };
        check!(
            "a read index is confirmed",
            index >= *committed,
            "{id} answers {question:?} with {index}; {committed} was committed when it was asked"
        );
        if let Some(bounds) = self.leases.filter(|_| !leading.has_told_successor) {
            let lasts = |until: &u64| now < until + bounds.slack_micros;
            if is_majority(raft.membership(), |peer| {
                *peer == id || leading.promised.get(peer).is_some_and(lasts)
            }) {
                return Ok(());
            }
        }
        let since =
            |peer: &NodeId| *peer == id || leading.confirmed.get(peer).is_some_and(|round| round > begun);
        check!(
            "a read index is confirmed",
            is_majority(raft.membership(), since),
            "{id} answers {question:?} at {now}, asked after round {begun}; confirmed are {:?}, and promised {:?}, of {:?}",
            leading.confirmed,
            leading.promised,
            raft.membership()
        );
        Ok(())
    }

    /// A node leads now.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn elected(&mut self, raft: &Raft) -> Result<(), Violation> {
        let (id, term, membership) = (raft.id(), raft.term(), raft.membership());
        let none = BTreeSet::new();
        let votes = self.votes.get(&(term, id)).unwrap_or(&none);
        check!(
            "a winner has a majority of each set",
            is_majority(membership, |voter| *voter == id || votes.contains(voter)),
            "{id} leads term {term} with the votes of {votes:?}, in {membership:?}"
        );
        // Its removal may be in no other log than its own (D §4.2.2).
        let (_, at) = raft.membership_at(raft.last_log().index);
        let is_leaving = at.index > raft.commit_index();
        let was_voter = is_leaving && raft.membership_at(at.index.previous()).0.is_voter(id);
        check!(
            "a leader is a voter",
            membership.is_voter(id) || was_voter,
            "{id} leads term {term}, in {membership:?}"
        );
        // Old votes elect no leader any more.
        if self.votes.len() > 256 {
            let newest = self.votes.keys().next_back().map_or(Term::ZERO, |(term, _)| *term);
            self.votes.retain(|(term, _), _| term.get() + 64 > newest.get());
        }
        Ok(())
    }
}
