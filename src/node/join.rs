//! Joining, on the node that was asked. It finds the leader. The leader reserves the new node, adds
//! it, hands over its new identity, and waits until it is a voter, or the learner that it is to
//! stay.
//!
//! Nothing is changed before the new node has answered under its name and is *reserved*. If it does
//! not take up its place, the change is undone. So a dead or wrong address costs the cluster
//! nothing.

use crate::codec::check_name;
use crate::node::address::{check_address, is_link_local};
use crate::node::handle::{DriverOrder, NodeHandle};
use crate::node::initial_cluster::InitialCluster;
use crate::node::join_turns::{Turn, Turns};
use crate::node::options::JoinTimings;
use crate::peer::address_book::AddressBook;
use crate::peer::rpc::{
    Adoption, Description, JoinError, Question, Reply, ask, ask_member, ask_noting, ask_stranger,
};
use crate::peer::secured::Dialer;
use crate::raft::{Change, ClusterId, Member, Membership, NodeId, Promotion, RoleName, StoreId};
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::{Env, until};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, oneshot};
use tracing::{info, warn};

/// The pause between two attempts.
const RETRY_MICROS: u64 = 100_000;
/// Joins that are under way on one node at the same time, at most; others wait.
pub(super) const JOINS_MAX: usize = 4;
/// A join is passed on at most this many times: to the leader, and once more if leadership changed
/// meanwhile.
pub(super) const HOPS_MAX: u8 = 2;

/// What a join needs of the node it runs on.
#[derive(Clone, Debug)]
pub(super) struct Joiner<E> {
    /// Sockets and time.
    pub env: E,
    /// How other nodes are called.
    pub dialer: Dialer<E>,
    /// The node.
    pub handle: NodeHandle,
    /// This node's identity, and the addresses of the others.
    pub address_book: Arc<AddressBook>,
    /// How long the steps of a join may take.
    pub timings: JoinTimings,
    /// The names whose join is under way here, on the leader.
    pub turns: Turns,
    /// Places for joins that are under way here: [`JOINS_MAX`].
    pub places: Arc<Semaphore>,
    /// The cluster that this node is to make, or to be made a member of.
    pub initial_cluster: Option<Arc<InitialCluster>>,
    /// The cluster that this one was made of.
    pub predecessor: Option<ClusterId>,
}

impl<E: Env> Joiner<E> {
    /// Adds the node that listens on `raft_addr` under `name`, wherever the leader is; returns its
    /// id when it is a voter, or has the place of a learner that is to stay one.
    ///
    /// # Errors
    /// [`JoinError`].
    pub(super) async fn join(&self, name: &str, raft_addr: &str, hops: u8) -> Result<NodeId, JoinError> {
        check_name(name).map_err(|rule| JoinError::BadRequest(format!("nodeid {name:?}: {rule}")))?;
        check_address(raft_addr).map_err(JoinError::BadRequest)?;
        if is_link_local(raft_addr) {
            return Err(JoinError::BadRequest(format!(
                "{raft_addr} is an address of one link, where no node is called"
            )));
        }
        let give_up = self.env.now().plus(self.timings.patience_micros);
        // Anybody may ask for a join as long as the cluster is open, and have this node call
        // others.
        let Some(Ok(_place)) = until(&self.env, give_up, self.places.acquire()).await else {
            return Err(JoinError::Busy(
                "other nodes are being joined; try again in a few seconds".to_owned(),
            ));
        };
        let passed_on = AtomicBool::new(false);
        let mut attempt = 0;
        loop {
            let status = self.handle.status().await.replica;
            let leader = status.leader.filter(|_| !status.members.is_empty());
            match leader {
                Some(leader) if leader == status.id => {
                    let joined = self.join_as_leader(name, raft_addr).await;
                    if !matches!(joined, Err(JoinError::NoLeader)) {
                        return joined;
                    }
                }
                Some(leader) if hops > 0 => {
                    if let Some(addr) = self.address_at(leader, attempt) {
                        match self.pass_on(&addr, name, raft_addr, hops - 1, &passed_on).await {
                            Some(Err(JoinError::NoLeader)) | None => {}
                            Some(joined) => return joined,
                        }
                    }
                }
                Some(_) => return Err(JoinError::NoLeader),
                None => {}
            }
            if self.env.now() >= give_up {
                return Err(if passed_on.load(Ordering::Relaxed) {
                    JoinError::Failed(format!(
                        "the join was passed on to the leader, which has not answered yet: it may go on there; the members \
                         in /v1/status show whether {name} is among them, and the same join may be asked for again"
                    ))
                } else {
                    JoinError::NoLeader
                });
            }
            attempt += 1;
            self.pause().await;
        }
    }

    /// Where to ask a member at an attempt, from 0: one of its addresses after the other. The
    /// likeliest may be one that does not lead there from here.
    pub(super) fn address_at(&self, member: NodeId, attempt: usize) -> Option<String> {
        let mut addresses = self.address_book.addresses(member);
        let turn = attempt.checked_rem(addresses.len())?;
        Some(addresses.swap_remove(turn))
    }

    /// `None` when the leader could not be asked.
    async fn pass_on(
        &self,
        leader: &str,
        name: &str,
        raft_addr: &str,
        hops: u8,
        passed_on: &AtomicBool,
    ) -> Option<Result<NodeId, JoinError>> {
        let question = Question::Join { name: name.to_owned(), raft_addr: raft_addr.to_owned(), hops };
        match ask_noting(&self.dialer, leader, &question, self.timings.whole_micros, passed_on).await {
            Ok(Reply::Joined(joined)) => Some(joined),
            Ok(other) => Some(Err(JoinError::Failed(format!("the leader answered {other:?}")))),
            Err(reason) => {
                warn!(%reason, "a join could not be passed on to the leader");
                None
            }
        }
    }

    async fn join_as_leader(&self, name: &str, raft_addr: &str) -> Result<NodeId, JoinError> {
        let _turn = self.wait_for_turn(name).await?;
        // While this node adds another one, it cannot be absorbed itself: two nodes that join each
        // other would both be lost.
        let _ = self.handle.orders.send(DriverOrder::Joining(true)).await;
        let joined = self.add(name, raft_addr).await;
        let _ = self.handle.orders.send(DriverOrder::Joining(false)).await;
        match &joined {
            Ok(id) => info!(%name, %raft_addr, id = id.get(), "joined"),
            Err(error) => warn!(%name, %raft_addr, %error, "join failed"),
        }
        joined
    }

    /// Waits until no other join under that name is under way: two at once would give one node two
    /// places, and the later place would replace the one that it takes up.
    pub(super) async fn wait_for_turn(&self, name: &str) -> Result<Turn, JoinError> {
        let give_up = self.env.now().plus(self.timings.patience_micros);
        until(&self.env, give_up, self.turns.wait_for(name)).await.ok_or_else(|| {
            JoinError::Busy(format!(
                "{name} is being joined already, by another request; try again in a few seconds"
            ))
        })
    }

    async fn add(&self, name: &str, raft_addr: &str) -> Result<NodeId, JoinError> {
        let target = self.describe_stranger(raft_addr).await?;
        if target.name != name {
            return Err(JoinError::BadRequest(format!(
                "the node at {raft_addr} is called {:?}, not {name:?}; join it under its own --node-id",
                target.name
            )));
        }
        let me = self.address_book.me();
        if target.cluster == me.cluster {
            return self.add_again(&target, raft_addr).await;
        }
        if target.members > 1 {
            return Err(JoinError::Conflict(format!(
                "{name} is a member of another cluster with {} members; remove it there and wipe its data directory \
                 before it joins this one",
                target.members
            )));
        }
        self.check_release(name, &target).map_err(JoinError::Conflict)?;
        self.check_name_is_free(name).await?;
        let question = Question::Reserve { cluster: me.cluster, micros: self.timings.reservation_micros };
        // By its name: what it calls itself is not what its certificate says.
        let called = (Some(name), raft_addr);
        let store = match ask_member(&self.dialer, called, &question, self.timings.answer_micros).await {
            Ok(Reply::Reserved(store)) => store,
            Ok(Reply::Refused(reason)) => return Err(JoinError::Conflict(reason)),
            Ok(other) => return Err(JoinError::Failed(format!("{raft_addr} answered {other:?}"))),
            Err(reason) => return Err(JoinError::Failed(reason)),
        };
        let member = Member {
            name: name.to_owned(),
            raft_addr: raft_addr.to_owned(),
            http_addr: target.http_addr.clone(),
            store_id: store,
        };
        let id = match self.place_of(store).await {
            // An earlier attempt did not come to hand it over.
            Some(place) => place?,
            None => match self.propose(member).await {
                Ok(id) => id,
                Err(error) => {
                    let question = Question::Release(me.cluster);
                    let _ = ask(&self.dialer, raft_addr, &question, self.timings.answer_micros).await;
                    return Err(error);
                }
            },
        };
        self.hand_over(id, store, raft_addr).await?;
        self.wait_until_settled(id).await
    }

    /// Whether a node speaks what this cluster is at.
    pub(super) fn check_release(&self, name: &str, target: &Description) -> Result<(), String> {
        let (level, speaks) = (self.address_book.level(), target.speaks);
        if speaks.contains(level) {
            return Ok(());
        }
        let remedy = if speaks.highest() < level {
            "start this node's release there"
        } else {
            "upgrade this cluster first"
        };
        Err(format!("{name} speaks feature level {speaks}, and this cluster is at level {level}: {remedy}"))
    }

    /// The place that a store has already, once it is committed; `None` if it has none.
    pub(super) async fn place_of(&self, store: StoreId) -> Option<Result<NodeId, JoinError>> {
        member_with(&self.membership(), store)?;
        let unknown = || JoinError::Failed("its place is not committed yet; try again".to_owned());
        Some(self.find(store).await.ok_or_else(unknown))
    }

    /// Waits until the member is what it is to be: a learner that stays one is that at once.
    async fn wait_until_settled(&self, id: NodeId) -> Result<NodeId, JoinError> {
        if self.membership().learners.get(&id) == Some(&Promotion::Never) {
            return Ok(id);
        }
        self.wait_until_voter(id).await
    }

    /// A node replaces the member of its name only if that member is gone, or has lost its data:
    /// not while it answers.
    pub(super) async fn check_name_is_free(&self, name: &str) -> Result<(), JoinError> {
        let membership = self.membership();
        // There are two while one waits to replace the other.
        for (id, member) in membership.members.iter().filter(|(_, member)| member.name == name) {
            if let Some(addr) = self.where_it_answers(*id, member).await {
                return Err(JoinError::Conflict(format!(
                    "there is a member {name} already, and it answers at {addr}: give the new node another --node-id, or stop \
                     that one first if this node is to take its place"
                )));
            }
        }
        Ok(())
    }

    /// The address at which a member answers as itself, with the data that it is known to have;
    /// `None` if there is none.
    async fn where_it_answers(&self, id: NodeId, member: &Member) -> Option<String> {
        if id == self.address_book.me().id {
            return Some(member.raft_addr.clone());
        }
        let mut addrs = self.address_book.addresses(id);
        if !addrs.contains(&member.raft_addr) {
            addrs.push(member.raft_addr.clone());
        }
        for addr in addrs {
            let found = self.describe(&addr).await;
            if found.is_ok_and(|found| found.id == id && found.store == member.store_id) {
                return Some(addr);
            }
        }
        None
    }

    /// Asks the node that a caller wants to join. If there is none, the answer takes as long
    /// whatever was found: it does not tell whether a port is open.
    pub(super) async fn describe_stranger(&self, raft_addr: &str) -> Result<Description, JoinError> {
        let latest = self.env.now().plus(self.timings.answer_micros);
        let micros = self.timings.answer_micros;
        let answer = ask_stranger(&self.dialer, (None, raft_addr), &Question::Describe, micros).await;
        let described = described(raft_addr, answer);
        if described.is_err() {
            self.env.sleep_until(latest).await;
        }
        described
    }

    async fn describe(&self, raft_addr: &str) -> Result<Description, JoinError> {
        let micros = self.timings.answer_micros;
        described(raft_addr, ask(&self.dialer, raft_addr, &Question::Describe, micros).await)
    }

    /// The target is of this cluster already: a join that is repeated succeeds.
    async fn add_again(&self, target: &Description, raft_addr: &str) -> Result<NodeId, JoinError> {
        let membership = self.membership();
        match membership.members.get(&target.id) {
            Some(member) if member.store_id == target.store => {
                if member.raft_addr != raft_addr {
                    info!(name = %target.name, known = %member.raft_addr, asked = %raft_addr, "is a member under another address");
                }
                self.wait_until_settled(target.id).await
            }
            _ => Err(JoinError::Conflict(format!(
                "{} was a member of this cluster and has been removed; wipe its data directory, start it, and join it again",
                target.name
            ))),
        }
    }

    /// Adds the member as a learner that is promoted when it has caught up. It replaces the members
    /// of the same name. If those were to stay learners, so is this one: nobody has asked for
    /// another voter.
    async fn propose(&self, member: Member) -> Result<NodeId, JoinError> {
        let give_up = self.env.now().plus(self.timings.patience_micros);
        loop {
            let membership = self.membership();
            let same_name = membership.members.iter().filter(|(_, known)| known.name == member.name);
            let replaces: BTreeSet<NodeId> = same_name.map(|(&id, _)| id).collect();
            let stays_learner = |id: &NodeId| membership.learners.get(id) == Some(&Promotion::Never);
            let promote = replaces.is_empty() || !replaces.iter().all(stays_learner);
            let change = Change::AddMembers { members: vec![member.clone()], replaces, promote };
            let reason = match self.handle.request(ClientRequest::ChangeMembership(change.into())).await {
                ClientReply::MembershipChanged(ids) if ids.len() == 1 => return Ok(ids[0]),
                ClientReply::Failed(ClientError::NotLeader(_) | ClientError::NoLeader) => {
                    return Err(JoinError::NoLeader);
                }
                ClientReply::Failed(ClientError::Reserved) => {
                    return Err(JoinError::Conflict(
                        "this node is joining another cluster itself".to_owned(),
                    ));
                }
                ClientReply::Failed(ClientError::Unknown) => match self.find(member.store_id).await {
                    Some(id) => return Ok(id),
                    None => "whether the change was committed is not known; try again".to_owned(),
                },
                ClientReply::Failed(error) => error.to_string(),
                other => format!("unexpected answer {other:?}"),
            };
            // Another change may be under way, or the leader may not have committed in its term
            // yet: both pass.
            if self.env.now() >= give_up {
                return Err(JoinError::Failed(reason));
            }
            self.pause().await;
        }
    }

    /// Waits for a committed membership with a member of that store.
    pub(super) async fn find(&self, store: StoreId) -> Option<NodeId> {
        let views = self.handle.membership.clone();
        let found = views.wait_for(|view| view.committed && member_with(&view.membership, store).is_some());
        let deadline = self.env.now().plus(self.timings.answer_micros);
        let found = until(&self.env, deadline, found).await?.ok()?;
        member_with(&found.membership, store)
    }

    /// Gives the new member its identity; undoes the change if it does not take it.
    pub(super) async fn hand_over(
        &self,
        id: NodeId,
        store: StoreId,
        raft_addr: &str,
    ) -> Result<(), JoinError> {
        let me = self.address_book.me();
        let members = self.membership().members;
        let addresses = members.into_iter().map(|(id, member)| (id, member.raft_addr)).collect();
        let adoption =
            Adoption { cluster: me.cluster, id, store, raft_addr: raft_addr.to_owned(), addresses };
        let give_up = self.env.now().plus(self.timings.reservation_micros / 2);
        let refusal = loop {
            match ask(&self.dialer, raft_addr, &Question::Adopt(adoption.clone()), self.timings.answer_micros)
                .await
            {
                Ok(Reply::Done) => return Ok(()),
                Ok(Reply::Refused(reason)) => break reason,
                Ok(other) => break format!("{raft_addr} answered {other:?}"),
                // The node may have taken up its place, and answers the same when it is asked
                // again. If it does not come back, the learner stays. It counts in no quorum. It is
                // the node's place if the node had taken it, and otherwise makes room for the next
                // node that joins under its name.
                Err(reason) if self.env.now() >= give_up => {
                    return Err(JoinError::Failed(format!(
                        "{reason}; if it took up its place it goes on when it is back, otherwise join it again"
                    )));
                }
                Err(_) => self.pause().await,
            }
        };
        let change = Change::Remove { members: [id].into() };
        let undone = self.handle.request(ClientRequest::ChangeMembership(change.into())).await;
        if !matches!(undone, ClientReply::MembershipChanged(_)) {
            warn!(
                id = id.get(),
                ?undone,
                "a learner that did not take up its place could not be removed; join it again to replace it"
            );
        }
        Err(JoinError::Failed(format!("the node did not take up its place: {refusal}")))
    }

    pub(super) async fn wait_until_voter(&self, id: NodeId) -> Result<NodeId, JoinError> {
        let views = self.handle.membership.clone();
        let voter = views.wait_for(|view| {
            let membership = &view.membership;
            view.committed && membership.outgoing.is_none() && membership.voters.contains(&id)
        });
        let deadline = self.env.now().plus(self.timings.voter_micros);
        match until(&self.env, deadline, voter).await {
            Some(Ok(_)) => Ok(id),
            _ => Err(JoinError::Failed(format!(
                "member {id} is still catching up; it goes on in the background and becomes a voter by itself"
            ))),
        }
    }

    /// A member is reached at other addresses than the membership says: corrects it. Only the
    /// leader can.
    ///
    /// # Errors
    /// Text that says why not.
    pub(super) async fn announce(
        &self,
        id: NodeId,
        store: StoreId,
        raft_addr: String,
        http_addr: String,
    ) -> Result<(), String> {
        check_address(&raft_addr)?;
        let view = self.handle.membership.borrow().clone();
        let known = view.membership.members.get(&id).filter(|member| member.store_id == store);
        let known = known.ok_or_else(|| format!("member {id} with that store is not known"))?;
        // Only the leader knows that nothing else was noted since; and what is not committed may
        // still get lost.
        let is_noted = view.committed && known.raft_addr == raft_addr && known.http_addr == http_addr;
        if is_noted && self.handle.status().await.replica.role == RoleName::Leader {
            return Ok(());
        }
        // An address that leads to nobody, or to another, would take the place of one that may
        // still be right. This node knows its own.
        if known.raft_addr != raft_addr && id != self.address_book.me().id {
            let (called, micros) = ((Some(known.name.as_str()), &*raft_addr), self.timings.answer_micros);
            let found = ask_stranger(&self.dialer, called, &Question::Describe, micros).await;
            if !matches!(found, Ok(Reply::Described(found)) if found.store == store) {
                return Err(format!("member {id} is not found at {raft_addr}, as seen from its leader"));
            }
        }
        let member = Member { raft_addr, http_addr, ..known.clone() };
        let change = Change::Update { id, member };
        match self.handle.request(ClientRequest::ChangeMembership(change.into())).await {
            ClientReply::MembershipChanged(_) => Ok(()),
            ClientReply::Failed(error) => Err(error.to_string()),
            other => Err(format!("unexpected answer {other:?}")),
        }
    }

    /// Describes this node.
    pub(super) async fn describe_me(&self) -> Description {
        let me = self.address_book.me();
        let status = self.handle.status().await;
        let leader = status.replica.leader;
        Description {
            has_data: status.has_data,
            initial_cluster: self.initial_cluster.as_ref().map(|list| list.words()),
            predecessor: self.predecessor,
            speaks: self.dialer.speaks,
            members: self.membership().members.len(),
            leader_addr: leader.and_then(|leader| self.address_book.address(leader)),
            name: me.name,
            cluster: me.cluster,
            id: me.id,
            store: me.store,
            http_addr: me.http_addr,
        }
    }

    /// Asks the driver to reserve this node for another cluster.
    ///
    /// # Errors
    /// Text that says why it cannot be.
    pub(super) async fn reserve(&self, cluster: ClusterId, micros: u64) -> Result<StoreId, String> {
        let (reply, answer) = oneshot::channel();
        let _ = self.handle.orders.send(DriverOrder::Reserve { cluster, micros, reply }).await;
        answer.await.unwrap_or_else(|_| Err("the node has stopped".to_owned()))
    }

    /// Asks the driver to move this node into another cluster. `None` when it ended meanwhile:
    /// whether the move is durable is not known then.
    ///
    /// # Errors
    /// Text that says why it certainly has not moved.
    pub(super) async fn adopt(&self, adoption: Adoption) -> Option<Result<(), String>> {
        let (reply, answer) = oneshot::channel();
        self.handle.orders.send(DriverOrder::Adopt(adoption, reply)).await.ok()?;
        answer.await.ok()
    }

    pub(super) fn membership(&self) -> Membership {
        self.handle.membership.borrow().membership.clone()
    }

    pub(super) async fn pause(&self) {
        self.env.sleep_until(self.env.now().plus(RETRY_MICROS)).await;
    }
}

/// What a node says of itself.
fn described(raft_addr: &str, answer: Result<Reply, String>) -> Result<Description, JoinError> {
    match answer {
        Ok(Reply::Described(target)) => Ok(target),
        Ok(other) => Err(JoinError::Failed(format!("{raft_addr} answered {other:?}"))),
        Err(reason) => {
            // A caller could use joins to look around in the network. So only the log says what was
            // found at an address where no node is, or whether anything was.
            warn!(%raft_addr, %reason, "the address of a join could not be asked");
            Err(JoinError::Failed(format!(
                "no node of InfinityStore answers at {raft_addr}; the log of the node that asked says more"
            )))
        }
    }
}

fn member_with(membership: &Membership, store: StoreId) -> Option<NodeId> {
    membership.members.iter().find(|(_, member)| member.store_id == store).map(|(&id, _)| id)
}
