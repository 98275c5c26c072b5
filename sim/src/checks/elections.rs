//! Which members may stand for election, grant a vote, and lead on. Judged by the messages that
//! they took in, not by what the product remembers of them.

#[cfg(test)]
mod tests;

use crate::record::violation::{Violation, check};
use infinitystore::raft::{Body, Incarnation, Membership, Message, NodeId, RoleName, Session, Term, Time};
use infinitystore::replica::{Forward, ForwardRefused, RefusedBecause};
use std::collections::{BTreeMap, BTreeSet};

/// What a member has taken in since it was started.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Its present term, and when it last heard from the leader of it.
    last_heard: Option<(Term, Time)>,
    /// The members that granted it a pre-vote, by the term that it wants to campaign in.
    pre_votes: BTreeMap<Term, BTreeSet<NodeId>>,
    /// Terms in which the leader told it to take over.
    told_in_terms: BTreeSet<Term>,
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
    /// When each candidate first asked for its vote in a term, and when the last of those asked
    /// that was granted it.
    first_asked_at: BTreeMap<(NodeId, Term), Time>,
    last_granted_at: Option<Time>,
    /// While it leads: when each member last answered it in its term.
    last_answer_at: BTreeMap<NodeId, Time>,
    /// The last term in which it became a candidate, and the voters that it knew of then.
    campaign: Option<(Term, Voters)>,
}

/// The voters, and those of the old set in a joint state.
type Voters = (BTreeSet<NodeId>, Option<BTreeSet<NodeId>>);

fn voters_of(membership: &Membership) -> Voters {
    (membership.voters.clone(), membership.outgoing.clone())
}

/// Whether a follower says this to the leader of its term. An answer that names no session is one
/// to a message of an earlier term: its sender may know nothing of the leader of this one.
fn is_answer(body: &Body) -> bool {
    match body {
        Body::Heard { .. } | Body::AppendAccepted { .. } => true,
        Body::AppendRejected { session, .. } | Body::SnapshotProgress { session, .. } => {
            *session != Session::ZERO
        }
        _ => false,
    }
}

/// What every member has taken in.
#[derive(Clone, Debug, Default)]
pub struct Elections {
    known: BTreeMap<NodeId, Known>,
    /// Leaders that gave up although they were heard.
    gave_up: Vec<String>,
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
        if role == RoleName::Leader && message.term == term && is_answer(&message.body) {
            known.last_answer_at.insert(message.from, now);
        }
        if matches!(message.body, Body::RequestVote { .. }) {
            known.first_asked_at.entry((message.from, message.term)).or_insert(now);
        }
        let hears = known.last_heard.is_some_and(|(heard, at)| heard == term && now.since(at) < timeout);
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
                known.last_heard = Some((message.term, now));
            }
            Body::PreVoteGranted { campaign_term } => {
                known.pre_votes.entry(*campaign_term).or_default().insert(message.from);
            }
            Body::TimeoutNow => {
                known.told_in_terms.insert(message.term.next());
            }
            _ => {}
        }
    }

    /// A member, which has this membership, sends a message at `now` of its own time.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn sent(
        &mut self,
        message: &Message,
        membership: &Membership,
        now: Time,
        timeout: u64,
    ) -> Result<(), Violation> {
        let Message { from, to, term, body } = message;
        let Some(known) = self.known.get_mut(from) else { return Ok(()) };
        match body {
            Body::PreVote { campaign_term, .. } if known.last_granted_at.is_some() => {
                let since = known.last_granted_at.map_or(u64::MAX, |granted| now.since(granted));
                check!(
                    "a granted vote puts the own candidacy off",
                    since >= timeout,
                    "{from} asks for pre-votes for term {campaign_term}, {since} µs after it was asked for the vote that it granted; {timeout} are an election timeout"
                );
            }
            Body::RequestVote { transfer: true, .. } => {
                check!(
                    "a node that takes over was told to",
                    known.told_in_terms.contains(term),
                    "{from} asks for votes in term {term} as if it had been told to take over"
                );
            }
            Body::RequestVote { transfer: false, .. } => {
                let granted = known.pre_votes.get(term);
                // The question leaves once term and vote are durable. Meanwhile it may have taken
                // in another membership, of another leader.
                let campaign = known.campaign.as_ref().filter(|(of, _)| of == term);
                let voters = campaign.map_or_else(|| voters_of(membership), |(_, voters)| voters.clone());
                let wins = |voters: &BTreeSet<NodeId>| {
                    let votes =
                        |id: &&NodeId| *id == from || granted.is_some_and(|granted| granted.contains(id));
                    2 * voters.iter().filter(votes).count() > voters.len()
                };
                check!(
                    "no campaign without a majority of pre-votes",
                    wins(&voters.0) && voters.1.as_ref().is_none_or(wins),
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
                known.last_granted_at =
                    known.last_granted_at.max(known.first_asked_at.get(&(*to, *term)).copied());
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
            "writes are not forwarded to a node that leads no longer",
            told.is_none_or(|(term, it)| it != forward.incarnation || term < forward.term),
            "{} forwards writes to {} in term {}, and was told that nobody leads {told:?}",
            forward.from,
            forward.to,
            forward.term
        );
        Ok(())
    }

    /// A leader begins a change after which `voters` decide, too: it hears a majority of them,
    /// since they have to end the change (D §4.4).
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

    /// A member was stepped, and shows this membership, role and term.
    pub fn stepped(
        &mut self,
        id: NodeId,
        membership: &Membership,
        (role, term): (RoleName, Term),
        now: Time,
    ) {
        let known = self.known.entry(id).or_default();
        if role == RoleName::Candidate && known.campaign.as_ref().is_none_or(|(of, _)| *of != term) {
            known.campaign = Some((term, voters_of(membership)));
        }
        if role != RoleName::Leader {
            known.leads = None;
        } else if known.leads.is_none_or(|(led, _)| led != term) {
            known.leads = Some((term, now));
            known.last_answer_at.clear();
        }
    }

    /// A leader that a majority of each set of voters has answered lately does not give up its term
    /// by itself. To be told after a step, before [`Self::stepped`], and not of a leader that has
    /// another reason: its disk, or its place in the membership.
    pub fn led_on(
        &mut self,
        id: NodeId,
        membership: &Membership,
        shows: (RoleName, Term),
        now: Time,
        within: u64,
    ) {
        let Some(known) = self.known.get(&id) else { return };
        if shows.0 == RoleName::Leader || known.leads.is_none_or(|(led, _)| led != shows.1) {
            return;
        }
        let answers = |peer: &&NodeId| {
            **peer == id || known.last_answer_at.get(peer).is_some_and(|heard| now.since(*heard) < within)
        };
        let hears = |voters: &BTreeSet<NodeId>| 2 * voters.iter().filter(answers).count() > voters.len();
        if hears(&membership.voters) && membership.outgoing.as_ref().is_none_or(hears) {
            let answered = &known.last_answer_at;
            self.gave_up
                .push(format!("{id} gives up term {} at {now:?}, and was answered at {answered:?}", shows.1));
        }
    }

    /// What was seen of leaders since.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn judge_leaders(&mut self) -> Result<(), Violation> {
        match self.gave_up.pop() {
            Some(what) => Err(Violation { check: "a leader that is answered leads on", what }),
            None => Ok(()),
        }
    }

    /// A member has looked at its clock, and leads on. Unless it has only begun to lead, it must
    /// have heard a majority of each set of voters lately (D §6.2). `now` is its own
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
