//! What operators order, and what became of it: changes of membership and transfers of leadership.
//!
//! Done means done: the change is committed, after it was asked for and before it is answered.
//! Refused means not done: a node becomes a member, or a member leaves, only if that was asked for
//! and not refused. Beside that each committed configuration has to follow from the one before it
//! (D §4.3).

#[cfg(test)]
mod tests;

use crate::record::violation::{Violation, check};
use infinitystore::raft::{Change, LogId, LogIndex, Membership, NodeId, Promotion, RoleName, StoreId, Term};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Replica, RequestId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How often something was asked for, and certainly refused.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    asked: u64,
    refused: u64,
}

/// A question that has not been answered.
#[derive(Clone, Debug)]
struct Order {
    request: ClientRequest,
    /// The commit index when it was asked.
    committed: LogIndex,
    /// The term of the leader that was asked.
    term: Term,
}

/// A change that was answered as done by a replica that had committed more than any machine had
/// applied.
#[derive(Clone, Debug)]
struct AnsweredChange {
    /// The member that answered.
    by: NodeId,
    change: Change,
    /// The configuration that it was for.
    expected: Option<LogIndex>,
    /// The members that the change added, by that answer.
    added: Vec<NodeId>,
    /// The commit index when it was asked for.
    after: LogIndex,
    /// The commit index when it was answered.
    through: LogIndex,
}

/// The orders, and the configurations that were committed.
#[derive(Debug, Default)]
pub struct Orders {
    waiting: HashMap<RequestId, Order>,
    /// Removals of a leader that can hand over.
    hand_overs: BTreeSet<RequestId>,
    /// Answers that are judged once everything that was committed when they came is known.
    promised: Vec<AnsweredChange>,
    joins: BTreeMap<StoreId, Tally>,
    removals: BTreeMap<NodeId, Tally>,
    /// Every configuration that was committed, in order.
    configurations: Vec<(LogId, Membership)>,
    /// Ids that are no members any more.
    left: BTreeSet<NodeId>,
}

impl Orders {
    /// The configuration that was in force at `index`, by what was committed.
    #[must_use]
    pub fn at(&self, index: LogIndex) -> Option<&(LogId, Membership)> {
        let count = self.configurations.partition_point(|(at, _)| at.index <= index);
        self.configurations.get(count.checked_sub(1)?)
    }

    /// The operator asks a leader of `term`, when everything up to `committed` was committed.
    pub fn asked(&mut self, id: RequestId, request: &ClientRequest, committed: LogIndex, term: Term) {
        if !matches!(request, ClientRequest::ChangeMembership(_) | ClientRequest::TransferLeadership(_)) {
            return;
        }
        self.tally(request, |tally| tally.asked += 1);
        self.waiting.insert(id, Order { request: request.clone(), committed, term });
    }

    /// The leader that was asked is to be removed, and another one could lead.
    pub fn must_hand_over(&mut self, id: RequestId) {
        self.hand_overs.insert(id);
    }

    fn tally(&mut self, request: &ClientRequest, count: impl Fn(&mut Tally)) {
        let ClientRequest::ChangeMembership(order) = request else { return };
        let (joins, leaves) = match &order.change {
            Change::AddMembers { members, replaces, .. } => {
                (members.iter().map(|member| member.store_id).collect(), replaces.clone())
            }
            Change::Remove { members } => (Vec::new(), members.clone()),
            Change::Promote { .. } | Change::Update { .. } => (Vec::new(), BTreeSet::new()),
        };
        joins.iter().for_each(|store| count(self.joins.entry(*store).or_default()));
        leaves.iter().for_each(|id| count(self.removals.entry(*id).or_default()));
    }

    /// An answer to the operator. Some machine has applied everything up to `committed`. The
    /// replica that answers may know of more that is committed, and may answer a change before any
    /// machine applies it.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn answered(
        &mut self,
        id: RequestId,
        reply: &ClientReply,
        replica: &Replica,
        committed: LogIndex,
    ) -> Result<(), Violation> {
        let Some(order) = self.waiting.remove(&id) else { return Ok(()) };
        check!(
            "a leader that is removed hands over first",
            !self.hand_overs.remove(&id) || !matches!(reply, ClientReply::MembershipChanged(_)),
            "{} was asked to remove itself, and another one could lead: {reply:?}",
            replica.raft().id()
        );
        let raft = replica.raft();
        match (&order.request, reply) {
            (_, ClientReply::Failed(ClientError::Unknown)) => Ok(()),
            (request, ClientReply::Failed(_)) => {
                self.tally(request, |tally| tally.refused += 1);
                self.refused(request)
            }
            (ClientRequest::ChangeMembership(asked), ClientReply::MembershipChanged(added)) => {
                let (change, added) = (asked.change.clone(), added.clone());
                let through = raft.commit_index();
                let expected = asked.expected;
                let promise = AnsweredChange {
                    by: raft.id(),
                    change,
                    expected,
                    added,
                    after: order.committed,
                    through,
                };
                if committed < through {
                    self.promised.push(promise);
                    return Ok(());
                }
                self.kept(&promise)
            }
            (ClientRequest::TransferLeadership(_), ClientReply::Transferred) => {
                let hint = raft.leader_hint();
                check!(
                    "done means done",
                    raft.role() != RoleName::Leader && (hint.leader.is_some() || hint.term > order.term),
                    "{} says that it has handed over, as {:?} in {hint:?}",
                    raft.id(),
                    raft.role()
                );
                Ok(())
            }
            (request, reply) => {
                let what = format!("{request:?} was answered with {reply:?}");
                Err(Violation { check: "an answer answers the question", what })
            }
        }
    }

    /// Everything up to `committed` is known: what was promised by then is done.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn reached(&mut self, committed: LogIndex) -> Result<(), Violation> {
        let due: Vec<AnsweredChange> = self.promised.extract_if(.., |one| one.through <= committed).collect();
        due.iter().try_for_each(|promise| self.kept(promise))
    }

    /// Whether what was answered as done was committed between question and answer.
    fn kept(&self, promise: &AnsweredChange) -> Result<(), Violation> {
        let AnsweredChange { by, change, expected, added, after, through } = promise;
        let meanwhile = |at: &LogId| at.index > *after && at.index <= *through;
        let is_done = |membership: &Membership| match change {
            Change::AddMembers { members, .. } => {
                let stores = added.iter().map(|id| membership.members.get(id).map(|it| it.store_id));
                stores.eq(members.iter().map(|member| Some(member.store_id)))
            }
            Change::Promote { members } => {
                let waits = |id: &NodeId| {
                    let promotion = membership.learners.get(id);
                    matches!(promotion, Some(Promotion::WhenCaughtUp { .. }))
                };
                added.is_empty() && members.iter().all(waits)
            }
            Change::Remove { members } => {
                let stays = |id| membership.voters.contains(id) || membership.learners.contains_key(id);
                added.is_empty() && !members.iter().any(stays)
            }
            Change::Update { id, member } => added.is_empty() && membership.members.get(id) == Some(member),
        };
        let follows = |before: &LogId| expected.is_none_or(|expected| before.index == expected);
        let pairs = || self.configurations.iter().zip(self.configurations.iter().skip(1));
        check!(
            "a change follows the configuration that it is for",
            expected.is_none()
                || pairs().any(|((before, _), (at, next))| follows(before) && meanwhile(at) && is_done(next)),
            "{by} answered {change:?} for {expected:?}; no configuration that follows that one says so"
        );
        check!(
            "done means done",
            self.configurations.iter().any(|(at, membership)| meanwhile(at) && is_done(membership)),
            "{by} answered {change:?} with {added:?}; no configuration that was committed after {after}, up to {through}, says so"
        );
        Ok(())
    }

    /// An order was refused: if its effect is committed, another order has to explain it.
    fn refused(&self, request: &ClientRequest) -> Result<(), Violation> {
        let ClientRequest::ChangeMembership(order) = request else { return Ok(()) };
        let change = &order.change;
        let joining = if let Change::AddMembers { members, .. } = change { &members[..] } else { &[] };
        for store in joining.iter().map(|member| member.store_id) {
            let known = |(_, membership): &(LogId, Membership)| {
                membership.members.values().any(|member| member.store_id == store)
            };
            check!(
                "refused means not done",
                self.joins.get(&store).is_none_or(|tally| tally.asked > tally.refused)
                    || !self.configurations.iter().any(known),
                "{change:?} was refused whenever it was asked for, and is committed"
            );
        }
        if let Change::Remove { members } = change {
            let gone = members.iter().find(|id| self.left.contains(id) && !self.may_leave(**id));
            check!(
                "refused means not done",
                gone.is_none(),
                "{change:?} was refused whenever it was asked for, and {gone:?} has left"
            );
        }
        Ok(())
    }

    /// Whether a member was removed, by what was committed.
    #[must_use]
    pub fn has_left(&self, id: NodeId) -> bool {
        self.left.contains(&id)
    }

    fn may_leave(&self, id: NodeId) -> bool {
        self.removals.get(&id).is_some_and(|tally| tally.asked > tally.refused)
    }

    /// A configuration was committed, the next one.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn commit(&mut self, at: LogId, next: Membership) -> Result<(), Violation> {
        if let Some((_, before)) = self.configurations.last() {
            follows(before, &next).map_err(|why| Violation {
                check: "a configuration follows from the one before",
                what: format!("{why}: {next:?} at {at} after {before:?}"),
            })?;
            let left: Vec<NodeId> =
                before.members.keys().filter(|id| !next.members.contains_key(id)).copied().collect();
            // If the orders are not recorded there is nothing to compare.
            if !self.joins.is_empty() || !self.removals.is_empty() {
                for (id, member) in next.members.iter().filter(|(id, _)| !before.members.contains_key(id)) {
                    let tally = self.joins.get(&member.store_id).copied().unwrap_or_default();
                    check!(
                        "refused means not done",
                        tally.asked > tally.refused,
                        "{id} becomes a member at {at} ({tally:?})"
                    );
                }
                let strange = left.iter().find(|id| !self.may_leave(**id));
                check!(
                    "refused means not done",
                    strange.is_none(),
                    "{strange:?} leaves at {at}, which nobody asked for, or was refused"
                );
            }
            self.left.extend(left);
            let again = next.members.keys().find(|id| self.left.contains(id));
            check!("a member's id is not used again", again.is_none(), "{again:?} is back at {at}");
        }
        self.configurations.push((at, next));
        Ok(())
    }
}

/// Whether a configuration may follow another.
fn follows(before: &Membership, next: &Membership) -> Result<(), &'static str> {
    let voters_of = |membership: &Membership| membership.voters.clone();
    let new_members: Vec<&NodeId> =
        next.members.keys().filter(|id| !before.members.contains_key(id)).collect();
    if next.next_member_id < before.next_member_id
        || new_members.iter().any(|id| **id < before.next_member_id)
    {
        return Err("a member id was used before");
    }
    if let Some(outgoing) = &before.outgoing {
        let ends = next.outgoing.is_none()
            && next.voters == before.voters
            && next.learners.keys().eq(before.learners.keys())
            && next.members.keys().all(|id| before.members.contains_key(id));
        let gone: BTreeSet<NodeId> = outgoing.difference(&before.voters).copied().collect();
        return match ends && gone.iter().all(|id| !next.members.contains_key(id)) {
            true => Ok(()),
            false => Err("a joint state is followed by its incoming configuration alone"),
        };
    }
    if voters_of(next) != before.voters {
        if next.outgoing.as_ref() != Some(&before.voters) {
            return Err("voters change by way of a joint state");
        }
        let added: Vec<NodeId> = next.voters.difference(&before.voters).copied().collect();
        let promised = |id: &NodeId| matches!(before.learners.get(id), Some(Promotion::WhenCaughtUp { .. }));
        if !added.iter().all(promised) {
            return Err("a voter was a learner that was to be promoted");
        }
    } else if next.outgoing.is_some() {
        return Err("a joint state changes the voters");
    }
    if new_members.iter().any(|id| !next.learners.contains_key(id)) {
        return Err("a member begins as a learner");
    }
    Ok(())
}
