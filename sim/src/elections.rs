//! Which members may stand for election, grant a vote, and lead on. Judged by the messages that
//! they took in, not by what the product remembers of them.

use crate::checks::{Violation, check};
use infinitystore::raft::{Body, Incarnation, Membership, Message, NodeId, RoleName, Term, Time};
use infinitystore::replica::{Forward, ForwardRefused, RefusedBecause};
use std::collections::{BTreeMap, BTreeSet};

/// What a member has taken in since it was started.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Its present term, and when it last heard from the leader of it.
    heard: Option<(Term, Time)>,
    /// The members that granted it a pre-vote, by the term that it wants to campaign in.
    pre_votes: BTreeMap<Term, BTreeSet<NodeId>>,
    /// Terms in which the leader told it to take over.
    told: BTreeSet<Term>,
    /// Candidates of which a request came while it neither led nor heard a leader: by term, and
    /// whether that was a pre-vote.
    allowed: BTreeSet<(NodeId, Term, bool)>,
    /// When it last heard from each other member.
    peers: BTreeMap<NodeId, Time>,
    /// The term that it leads, and since when.
    leads: Option<(Term, Time)>,
    /// The last term in which a member answered a forwarded write with "this node does not lead",
    /// and the start of the node that got this answer.
    leaderless: Option<(Term, Incarnation)>,
}

/// What every member has taken in.
#[derive(Clone, Debug, Default)]
pub struct Elections {
    known: BTreeMap<NodeId, Known>,
}

impl Elections {
    /// A member starts, and knows nothing.
    pub fn started(&mut self, id: NodeId) {
        self.known.insert(id, Known::default());
    }

    /// A member, which shows this term and role, takes a message in. `now` is its own time.
    pub fn taken_in(&mut self, message: &Message, now: Time, (term, role): (Term, RoleName), timeout: u64) {
        let known = self.known.entry(message.to).or_default();
        known.peers.insert(message.from, now);
        let hears = known.heard.is_some_and(|(heard, at)| heard == term && now.since(at) < timeout);
        let hears = hears && role == RoleName::Follower || role == RoleName::Leader;
        let mut candidate = |candidate: (NodeId, Term, bool), refuse: bool| {
            if !refuse {
                known.allowed.insert(candidate);
            }
        };
        match &message.body {
            Body::PreVote { campaign_term, .. } => {
                candidate((message.from, *campaign_term, true), hears || *campaign_term <= term);
            }
            Body::RequestVote { transfer, .. } => {
                candidate((message.from, message.term, false), hears && !transfer && message.term > term);
            }
            Body::AppendEntries { .. } | Body::InstallSnapshot { .. } if message.term >= term => {
                known.heard = Some((message.term, now));
            }
            Body::PreVoteGranted { campaign_term } => {
                known.pre_votes.entry(*campaign_term).or_default().insert(message.from);
            }
            Body::TimeoutNow => {
                known.told.insert(message.term.next());
            }
            _ => {}
        }
    }

    /// A member sends a message.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn sent(&self, message: &Message, membership: &Membership) -> Result<(), Violation> {
        let Message { from, to, term, body } = message;
        let Some(known) = self.known.get(from) else { return Ok(()) };
        match body {
            Body::RequestVote { transfer: true, .. } => {
                check!(
                    "a node that takes over was told to",
                    known.told.contains(term),
                    "{from} asks for votes in term {term} as if it had been told to take over"
                );
            }
            Body::RequestVote { transfer: false, .. } => {
                let granted = known.pre_votes.get(term);
                let wins = |voters: &BTreeSet<NodeId>| {
                    let votes =
                        |id: &&NodeId| *id == from || granted.is_some_and(|granted| granted.contains(id));
                    2 * voters.iter().filter(votes).count() > voters.len()
                };
                check!(
                    "no campaign without a majority of pre-votes",
                    wins(&membership.voters) && membership.outgoing.as_ref().is_none_or(wins),
                    "{from} asks for votes in term {term} and was granted pre-votes by {granted:?}"
                );
            }
            Body::PreVoteGranted { campaign_term } => {
                check!(
                    "a node that hears a leader helps none to depose it",
                    known.allowed.contains(&(*to, *campaign_term, true)),
                    "{from} grants {to} a pre-vote for term {campaign_term}"
                );
            }
            Body::VoteGranted => {
                check!(
                    "a node that hears a leader helps none to depose it",
                    known.allowed.contains(&(*to, *term, false)),
                    "{from} grants {to} its vote in term {term}"
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// A member takes in that writes which it forwarded were refused.
    pub fn refused(&mut self, refused: &ForwardRefused) {
        if matches!(refused.why, RefusedBecause::NotLeading) {
            let known = self.known.entry(refused.to).or_default();
            let told = (refused.term, refused.incarnation);
            known.leaderless =
                known.leaderless.filter(|(term, it)| *it == told.1 && *term > told.0).or(Some(told));
        }
    }

    /// A member forwards writes.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn forwards(&self, forward: &Forward) -> Result<(), Violation> {
        let told = self.known.get(&forward.from).and_then(|known| known.leaderless);
        check!(
            "writes are not forwarded to who leads no longer",
            told.is_none_or(|(term, it)| it != forward.incarnation || term < forward.term),
            "{} forwards writes to {} in term {}, and was told that nobody leads {told:?}",
            forward.from,
            forward.to,
            forward.term
        );
        Ok(())
    }

    /// A leader begins a change after which `voters` decide, too: it hears a majority of them,
    /// since they have to end the change (Dissertation §4.4).
    ///
    /// # Errors
    /// [`Violation`].
    pub fn begins_change(
        &self,
        id: NodeId,
        voters: &BTreeSet<NodeId>,
        now: Time,
        within: u64,
    ) -> Result<(), Violation> {
        let Some(known) = self.known.get(&id) else { return Ok(()) };
        let hears = |peer: &&NodeId| {
            **peer == id || known.peers.get(peer).is_some_and(|heard| now.since(*heard) <= within)
        };
        let heard = voters.iter().filter(hears).count();
        check!(
            "those who are left can decide",
            2 * heard > voters.len(),
            "{id} begins a change to {voters:?}, and has heard of {heard} of them within {within} µs"
        );
        Ok(())
    }

    /// A member was stepped, and shows this role and term.
    pub fn stepped(&mut self, id: NodeId, role: RoleName, term: Term, now: Time) {
        let known = self.known.entry(id).or_default();
        if role != RoleName::Leader {
            known.leads = None;
        } else if known.leads.is_none_or(|(led, _)| led != term) {
            known.leads = Some((term, now));
        }
    }

    /// A member has looked at its clock, and leads on. Unless it has only begun to lead, it must
    /// have heard a majority of each set of voters lately (Dissertation §6.2). `now` is its own
    /// time.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn leads_on(
        &self,
        id: NodeId,
        membership: &Membership,
        now: Time,
        within: u64,
    ) -> Result<(), Violation> {
        let Some(known) = self.known.get(&id) else { return Ok(()) };
        let Some((term, since)) = known.leads else { return Ok(()) };
        if now.since(since) <= within {
            return Ok(());
        }
        let hears = |peer: &&NodeId| {
            **peer == id || known.peers.get(peer).is_some_and(|heard| now.since(*heard) <= within)
        };
        for voters in std::iter::once(&membership.voters).chain(&membership.outgoing) {
            let heard = voters.iter().filter(hears).count();
            check!(
                "a leader hears a quorum",
                2 * heard > voters.len(),
                "{id} leads term {term} on and has heard of {heard} of {voters:?} within {within} µs"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Elections;
    use infinitystore::raft::{
        Body, LogId, LogIndex, Membership, Message, NodeId, ReadRound, RoleName, Session, Term, Time,
    };
    use std::collections::BTreeMap;

    const TIMEOUT: u64 = 100;
    const TERM: Term = Term::new(3);
    const NEXT: Term = Term::new(4);

    fn message(from: u64, to: u64, term: Term, body: Body) -> Message {
        Message { from: NodeId::new(from), to: NodeId::new(to), term, body }
    }

    fn three() -> Membership {
        Membership {
            voters: (1..=3).map(NodeId::new).collect(),
            outgoing: None,
            learners: BTreeMap::new(),
            next_member_id: NodeId::new(4),
            members: BTreeMap::new(),
        }
    }

    fn follower(elections: &mut Elections, message: &Message, at: u64) {
        elections.taken_in(message, Time::new(at), (TERM, RoleName::Follower), TIMEOUT);
    }

    #[test]
    fn a_campaign_without_pre_votes_is_refused_and_one_with_a_majority_is_not() {
        let mut elections = Elections::default();
        elections.started(NodeId::new(1));
        let campaign = message(1, 2, NEXT, Body::RequestVote { last_log: LogId::ZERO, transfer: false });
        assert!(elections.sent(&campaign, &three()).is_err());
        let other = Body::PreVoteGranted { campaign_term: TERM };
        follower(&mut elections, &message(2, 1, TERM, other), 1);
        assert!(elections.sent(&campaign, &three()).is_err(), "a grant for another term");
        let granted = Body::PreVoteGranted { campaign_term: NEXT };
        follower(&mut elections, &message(2, 1, TERM, granted), 2);
        assert!(elections.sent(&campaign, &three()).is_ok());
        let joint = Membership { outgoing: Some([1, 4, 5].map(NodeId::new).into()), ..three() };
        assert!(elections.sent(&campaign, &joint).is_err(), "of one set of voters alone");
    }

    #[test]
    fn who_takes_over_without_being_told_is_refused() {
        let mut elections = Elections::default();
        elections.started(NodeId::new(1));
        let campaign = message(1, 2, NEXT, Body::RequestVote { last_log: LogId::ZERO, transfer: true });
        assert!(elections.sent(&campaign, &three()).is_err());
        follower(&mut elections, &message(3, 1, TERM, Body::TimeoutNow), 1);
        assert!(elections.sent(&campaign, &three()).is_ok());
    }

    #[test]
    fn a_grant_by_who_hears_a_leader_is_refused() {
        let mut elections = Elections::default();
        elections.started(NodeId::new(1));
        let heartbeat = Body::AppendEntries {
            session: Session::new(1),
            prev: LogId::ZERO,
            acknowledged: LogId::ZERO,
            entries: Vec::new(),
            commit: LogIndex::ZERO,
            round: ReadRound::ZERO,
        };
        follower(&mut elections, &message(3, 1, TERM, heartbeat), 1_000);
        let (pre, vote) = (
            Body::PreVote { campaign_term: NEXT, last_log: LogId::ZERO },
            Body::RequestVote { last_log: LogId::ZERO, transfer: false },
        );
        let grants = [
            message(1, 2, TERM, Body::PreVoteGranted { campaign_term: NEXT }),
            message(1, 2, NEXT, Body::VoteGranted),
        ];
        follower(&mut elections, &message(2, 1, TERM, pre.clone()), 1_000 + TIMEOUT - 1);
        follower(&mut elections, &message(2, 1, NEXT, vote.clone()), 1_000 + TIMEOUT - 1);
        assert!(grants.iter().all(|grant| elections.sent(grant, &three()).is_err()));
        follower(&mut elections, &message(2, 1, TERM, pre), 1_000 + TIMEOUT);
        follower(&mut elections, &message(2, 1, NEXT, vote), 1_000 + TIMEOUT);
        assert!(grants.iter().all(|grant| elections.sent(grant, &three()).is_ok()));
    }

    #[test]
    fn a_leader_that_never_heard_anybody_is_refused_once_its_time_is_up() {
        let mut elections = Elections::default();
        let (id, at) = (NodeId::new(1), Time::new);
        elections.started(id);
        elections.stepped(id, RoleName::Leader, TERM, at(1_000));
        assert!(elections.leads_on(id, &three(), at(1_000 + TIMEOUT), TIMEOUT).is_ok());
        assert!(elections.leads_on(id, &three(), at(1_001 + TIMEOUT), TIMEOUT).is_err());
        follower(&mut elections, &message(2, 1, TERM, Body::VoteGranted), 1_050);
        assert!(elections.leads_on(id, &three(), at(1_001 + TIMEOUT), TIMEOUT).is_ok());
        assert!(elections.leads_on(id, &three(), at(1_051 + TIMEOUT), TIMEOUT).is_err());
    }
}
