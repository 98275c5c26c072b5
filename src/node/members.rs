//! What operators order of the members, on the node that was asked. It finds the leader; the leader
//! carries the order out.
//!
//! A leader that is to be removed hands over first ([`Replica`](crate::replica::Replica) sees to
//! that), and passes the order on to the one that leads then. So the client gets its answer over
//! the connection that it has, whichever node it asked.

use crate::codec::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, check_name};
use crate::node::address::check_address;
use crate::node::handle::{Joined, MembershipView, OperatorCall};
use crate::node::join::{HOPS_MAX, Joiner};
use crate::node::named_members::{name_of, resolve, resolve_all};
use crate::peer::orders::{
    Health, MemberDone, MemberOrder, MemberView, MembersView, NewNode, OrderCode, OrderConditions, OrderDone,
    OrderError,
};
use crate::peer::rpc::{JoinError, Question, Reply, ask, ask_noting};
use crate::raft::{Change, ChangeOrder, LogIndex, Membership, NodeId, Promotion, ReplicationState};
use crate::replica::{ClientError, ClientReply, ClientRequest, MemberStatus, Standing, Status};
use crate::runtime::{Env, until};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::{info, warn};

/// A leader that is new has not heard from all members yet: it is asked again for so long before it
/// is believed that they do not answer.
const SILENCE_MICROS: u64 = 1_500_000;
/// Nodes and members that one order names, at most.
const NAMED_MAX: usize = 16;
/// An order is passed on once more than a join: a leader that is to be removed hands over.
const ORDER_HOPS_MAX: u8 = HOPS_MAX + 1;

impl<E: Env> Joiner<E> {
    /// Does what an operator asked of this process.
    pub(super) async fn serve(&self, call: OperatorCall) {
        // The caller may have gone; what it asked for is done all the same.
        match call {
            OperatorCall::Join { name, raft_addr, reply } => {
                let joined = self.join(&name, &raft_addr, HOPS_MAX).await;
                let _ = reply.send(joined.map(|id| Joined { id }));
            }
            OperatorCall::Manage { order, conditions, reply } => {
                let _ = reply.send(self.manage(&order, conditions, ORDER_HOPS_MAX).await);
            }
            OperatorCall::Members { of_leader, reply } => {
                let _ = reply.send(self.members(of_leader).await);
            }
        }
    }

    /// Carries an order out, wherever the leader is.
    ///
    /// # Errors
    /// [`OrderError`].
    pub(super) async fn manage(
        &self,
        order: &MemberOrder,
        conditions: OrderConditions,
        hops: u8,
    ) -> Result<OrderDone, OrderError> {
        check(order)?;
        let give_up = self.env.now().plus(self.timings.patience_micros);
        let passed_on = AtomicBool::new(false);
        // An earlier attempt was sent, and not answered: it may have been carried out.
        let mut is_open = false;
        let mut attempt = 0;
        loop {
            is_open |= passed_on.swap(false, Ordering::Relaxed);
            let status = self.handle.status().await.replica;
            let leader = status.leader.filter(|_| !status.members.is_empty());
            let done = match leader {
                Some(leader) if leader == status.id => Some(self.manage_as_leader(order, conditions).await),
                Some(leader) if hops > 0 => match self.address_at(leader, attempt) {
                    Some(addr) => self.pass_order_on(&addr, order, conditions, hops - 1, &passed_on).await,
                    None => None,
                },
                Some(_) => return Err(no_leader()),
                None => None,
            };
            match done {
                Some(Err(error)) if error.code == OrderCode::NoLeader => {}
                // What forbids it now may be what that attempt brought about.
                Some(Err(error)) if is_open && error.code.depends_on_members() => return Err(unknown()),
                Some(done) => return done,
                None => {}
            }
            if self.env.now() >= give_up {
                let was_sent = is_open || passed_on.load(Ordering::Relaxed);
                return Err(if was_sent { unknown() } else { no_leader() });
            }
            attempt += 1;
            self.pause().await;
        }
    }

    /// `None` when the leader could not be asked.
    async fn pass_order_on(
        &self,
        leader: &str,
        order: &MemberOrder,
        conditions: OrderConditions,
        hops: u8,
        passed_on: &AtomicBool,
    ) -> Option<Result<OrderDone, OrderError>> {
        let question = Question::Manage { order: order.clone(), conditions, hops };
        match ask_noting(&self.dialer, leader, &question, self.timings.whole_micros, passed_on).await {
            Ok(Reply::Managed(done)) => {
                // It has answered for this attempt.
                passed_on.store(false, Ordering::Relaxed);
                Some(done)
            }
            Ok(other) => {
                Some(Err(OrderError::new(OrderCode::Unknown, format!("the leader answered {other:?}"))))
            }
            Err(reason) => {
                warn!(%reason, "an order could not be passed on to the leader");
                None
            }
        }
    }

    async fn manage_as_leader(
        &self,
        order: &MemberOrder,
        conditions: OrderConditions,
    ) -> Result<OrderDone, OrderError> {
        let done = match order {
            MemberOrder::Add { nodes, replaces, learners } => {
                self.add_nodes(nodes, replaces, *learners, conditions).await
            }
            MemberOrder::Promote(member) => self.promote(member, conditions).await,
            MemberOrder::Remove(members) => self.remove(members, conditions).await,
            MemberOrder::Transfer(to) => self.transfer(to.as_deref(), conditions).await,
        };
        match &done {
            Ok(_) => info!(?order, "an order about the members was carried out"),
            Err(error) => warn!(?order, %error, "an order about the members was not carried out"),
        }
        done
    }

    async fn remove(&self, named: &[String], conditions: OrderConditions) -> Result<OrderDone, OrderError> {
        let membership = self.membership();
        let members = resolve_all(&membership, named)?;
        let removed = members.iter().map(|id| described(&membership, *id, Standing::Removed)).collect();
        self.change(Change::Remove { members: members.clone() }, conditions).await?;
        let is_done = move |membership: &Membership| members.iter().all(|id| !membership.contains(*id));
        self.settled(is_done).await.ok_or_else(|| {
            let text = "the removal has begun and is not finished yet: it goes on by itself; see the members";
            OrderError::new(OrderCode::Unknown, text)
        })?;
        Ok(OrderDone { configuration: self.configuration().await, removed, ..OrderDone::default() })
    }

    async fn promote(&self, named: &str, conditions: OrderConditions) -> Result<OrderDone, OrderError> {
        let membership = self.membership();
        let id = resolve(&membership, named)?;
        match membership.learners.get(&id) {
            Some(Promotion::Never) => {
                self.change(Change::Promote { members: [id].into() }, conditions).await?;
            }
            // A voter, or one that is promoted as soon as it can be.
            Some(Promotion::WhenCaughtUp { .. }) | None => self.expect(conditions).await?,
        }
        Ok(self.when_voters(&[id]).await)
    }

    async fn transfer(&self, to: Option<&str>, conditions: OrderConditions) -> Result<OrderDone, OrderError> {
        self.expect(conditions).await?;
        let membership = self.membership();
        let to = to.map(|named| resolve(&membership, named)).transpose()?;
        if to != Some(self.address_book.me().id) {
            self.hand_over_to(to, &membership).await?;
        }
        let status = self.handle.status().await.replica;
        let leader = status.leader.map(|id| described(&membership, id, Standing::Voter));
        Ok(OrderDone { configuration: status.configuration.get(), leader, ..OrderDone::default() })
    }

    async fn hand_over_to(&self, to: Option<NodeId>, membership: &Membership) -> Result<(), OrderError> {
        let give_up = self.env.now().plus(SILENCE_MICROS);
        loop {
            match self.handle.request(ClientRequest::TransferLeadership(to)).await {
                ClientReply::Transferred => return Ok(()),
                ClientReply::Failed(ClientError::CannotLead) if self.env.now() < give_up => {}
                other => return Err(failed(&other, membership)),
            }
            self.pause().await;
        }
    }

    /// Has the replica change the membership. The ids of members that are new.
    pub(super) async fn change(
        &self,
        change: Change,
        conditions: OrderConditions,
    ) -> Result<Vec<NodeId>, OrderError> {
        let order = ChangeOrder {
            expected: conditions.expected.map(LogIndex::new),
            force: conditions.force,
            ..change.into()
        };
        let begun = self.env.now();
        let give_up = begun.plus(self.timings.patience_micros);
        loop {
            let reply = self.handle.request(ClientRequest::ChangeMembership(order.clone())).await;
            let now = self.env.now();
            match reply {
                ClientReply::MembershipChanged(added) => return Ok(added),
                ClientReply::Failed(ClientError::ChangePending) if now < give_up => {}
                ClientReply::Failed(ClientError::QuorumAtRisk(_)) if now < begun.plus(SILENCE_MICROS) => {}
                other => return Err(failed(&other, &self.membership())),
            }
            self.pause().await;
        }
    }

    /// Compares the configuration in force with the one that is expected.
    pub(super) async fn expect(&self, conditions: OrderConditions) -> Result<(), OrderError> {
        let Some(expected) = conditions.expected else { return Ok(()) };
        let found = self.handle.status().await.replica.configuration;
        if found.get() == expected {
            return Ok(());
        }
        Err(OrderError::of_client(&ClientError::OtherMembership(found), |id| id.to_string()))
    }

    /// Waits until these members are voters, for a while; what they are then.
    pub(super) async fn when_voters(&self, ids: &[NodeId]) -> OrderDone {
        for id in ids {
            if self.wait_until_voter(*id).await.is_err() {
                break;
            }
        }
        self.as_they_are(ids).await
    }

    pub(super) async fn as_they_are(&self, ids: &[NodeId]) -> OrderDone {
        let membership = self.membership();
        let is_voter = |id: &NodeId| membership.voters.contains(id);
        let standing = |id: &NodeId| if is_voter(id) { Standing::Voter } else { Standing::Learner };
        let members = ids.iter().map(|id| described(&membership, *id, standing(id))).collect();
        OrderDone { configuration: self.configuration().await, members, ..OrderDone::default() }
    }

    async fn configuration(&self) -> u64 {
        self.handle.status().await.replica.configuration.get()
    }

    /// Waits for a committed membership that is no joint state, and of which that is so.
    async fn settled(&self, is_so: impl Fn(&Membership) -> bool) -> Option<()> {
        let views = self.handle.membership.clone();
        let is_settled = |view: &MembershipView| {
            view.committed && view.membership.outgoing.is_none() && is_so(&view.membership)
        };
        let deadline = self.env.now().plus(self.timings.voter_micros);
        let settled = until(&self.env, deadline, views.wait_for(is_settled)).await;
        settled.and_then(Result::ok).map(drop)
    }

    /// The members, as the leader sees them, or this node.
    async fn members(&self, of_leader: bool) -> MembersView {
        let own = self.own_view().await;
        let leader = own.leader.filter(|leader| of_leader && *leader != self.address_book.me().id);
        for addr in leader.map(|leader| self.address_book.addresses(leader)).unwrap_or_default() {
            let answer = ask(&self.dialer, &addr, &Question::Members, self.timings.answer_micros).await;
            if let Ok(Reply::Members(view)) = answer
                && view.leader == leader
            {
                return view;
            }
        }
        own
    }

    /// The members, as this node sees them.
    pub(super) async fn own_view(&self) -> MembersView {
        let status = self.handle.status().await;
        let replica = &status.replica;
        MembersView {
            told_by: status.name.clone(),
            configuration: replica.configuration.get(),
            committed: replica.configuration_committed,
            joint: replica.joint,
            leader: replica.leader,
            members: replica.members.iter().map(|member| member_view(member, replica)).collect(),
        }
    }
}

fn member_view(member: &MemberStatus, replica: &Status) -> MemberView {
    let is_leader = replica.leader == Some(replica.id) && member.id == replica.id;
    let health = match (&member.withdrawn, member.answers) {
        (Some(_), _) => Health::Withdrawn,
        (None, Some(false)) => Health::Silent,
        (None, Some(true)) if member.replication == Some(ReplicationState::Replicate) => Health::Ok,
        (None, Some(true)) => Health::CatchingUp,
        (None, None) if is_leader => Health::Ok,
        (None, None) => Health::Unknown,
    };
    let own = |index| is_leader.then_some(index);
    MemberView {
        id: member.id,
        name: member.member.name.clone(),
        raft_addr: member.member.raft_addr.clone(),
        http_addr: member.member.http_addr.clone(),
        standing: member.standing,
        health,
        match_index: member.match_index.map(LogIndex::get).or(own(replica.last_log.index.get())),
        lag: member.lag.or(own(0)),
        replication: member.replication,
        silent_micros: member.silent_micros.or(own(0)),
        withdrawn: member.withdrawn.clone(),
    }
}

/// What is wrong with an order whatever the members are.
fn check(order: &MemberOrder) -> Result<(), OrderError> {
    let bad = |text: String| OrderError::new(OrderCode::BadRequest, text);
    let named: &[String] = match order {
        MemberOrder::Add { nodes, replaces, .. } => {
            if nodes.is_empty() || nodes.len() > NAMED_MAX {
                return Err(bad(format!("an order adds from 1 to {NAMED_MAX} nodes")));
            }
            for NewNode { name, raft_addr } in nodes {
                check_name(name).map_err(|rule| bad(format!("name {name:?}: {rule}")))?;
                if raft_addr.len() > ADDRESS_BYTES_MAX {
                    return Err(bad(format!("raft_addr is longer than {ADDRESS_BYTES_MAX} bytes")));
                }
                check_address(raft_addr).map_err(bad)?;
            }
            let names: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            let addrs: BTreeSet<&str> = nodes.iter().map(|node| node.raft_addr.as_str()).collect();
            if names.len() < nodes.len() || addrs.len() < nodes.len() {
                return Err(bad("a node is named twice; leave one out".to_owned()));
            }
            replaces
        }
        MemberOrder::Remove(members) => {
            if members.is_empty() {
                return Err(bad("no member is named: name the members that leave".to_owned()));
            }
            members
        }
        MemberOrder::Promote(member) => std::slice::from_ref(member),
        MemberOrder::Transfer(to) => to.as_slice(),
    };
    if named.len() > NAMED_MAX || named.iter().any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX + 5)
    {
        return Err(bad(format!("an order names at most {NAMED_MAX} members, each by its name or its id")));
    }
    Ok(())
}

fn unknown() -> OrderError {
    let text = "the order was passed on to the leader, which has not answered: see the members before you order it again";
    OrderError::new(OrderCode::Unknown, text)
}

fn described(membership: &Membership, id: NodeId, standing: Standing) -> MemberDone {
    MemberDone { id, name: name_of(membership, id), standing }
}

fn no_leader() -> OrderError {
    OrderError::from(JoinError::NoLeader)
}

/// An answer of the replica that is not what was asked for.
fn failed(reply: &ClientReply, membership: &Membership) -> OrderError {
    match reply {
        ClientReply::Failed(error) => OrderError::of_client(error, |id| name_of(membership, id)),
        other => OrderError::new(OrderCode::Unknown, format!("unexpected answer {other:?}")),
    }
}
