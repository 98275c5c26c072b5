//! Adding nodes by an order, on the leader: each is reserved, all get their places in one change,
//! and then each takes up its own. An order that was carried out in part is gone on with.

use crate::node::handle::DriverOrder;
use crate::node::join::Joiner;
use crate::node::named_members::{check_repeated, is_member, resolve_all};
use crate::peer::orders::{NewNode, OrderCode, OrderConditions, OrderDone, OrderError};
use crate::peer::rpc::{Description, Question, Reply, ask, ask_member};
use crate::raft::{Change, Member, NodeId, StoreId};
use crate::runtime::Env;
use std::collections::BTreeSet;
use tracing::warn;

/// A node that has been reserved for this cluster.
struct Reserved {
    name: String,
    raft_addr: String,
    store: StoreId,
    http_addr: String,
}

impl<E: Env> Joiner<E> {
    pub(super) async fn add_nodes(
        &self,
        nodes: &[NewNode],
        replaces: &[String],
        learners: bool,
        conditions: OrderConditions,
    ) -> Result<OrderDone, OrderError> {
        let mut turns = Vec::new();
        let names: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        for name in names {
            turns.push(self.wait_for_turn(name).await?);
        }
        let _ = self.handle.orders.send(DriverOrder::Joining(true)).await;
        let added = self.add_in_turn(nodes, replaces, learners, conditions).await;
        let _ = self.handle.orders.send(DriverOrder::Joining(false)).await;
        drop(turns);
        added
    }

    async fn add_in_turn(
        &self,
        nodes: &[NewNode],
        named: &[String],
        learners: bool,
        conditions: OrderConditions,
    ) -> Result<OrderDone, OrderError> {
        let membership = self.membership();
        let mut targets = Vec::new();
        for node in nodes {
            targets.push(self.describe_new(node).await?);
        }
        let known: Vec<_> = targets.iter().map(|target| is_member(&membership, target)).collect();
        if known.iter().any(Option::is_some) {
            // The order is repeated: it may have been carried out before, or in part.
            return self.go_on_adding(nodes, (&targets, &known), named, learners, conditions).await;
        }
        let mut replaces = resolve_all(&membership, named)?;
        for (node, target) in nodes.iter().zip(&targets) {
            self.check_joins(node, target)?;
            let same_name = membership.members.iter().filter(|(_, member)| member.name == node.name);
            let same_name: Vec<NodeId> =
                same_name.map(|(&id, _)| id).filter(|id| !replaces.contains(id)).collect();
            if !same_name.is_empty() {
                let free = self.check_name_is_free(&node.name).await;
                free.map_err(|error| OrderError::new(OrderCode::NameTaken, error.to_string()))?;
                replaces.extend(same_name);
            }
        }
        let mut reserved = Vec::new();
        for (node, target) in nodes.iter().zip(targets) {
            match self.reserve_node(node, target).await {
                Ok(node) => reserved.push(node),
                Err(error) => return Err(self.release(&reserved, error).await),
            }
        }
        let ids = match self.places_of(&reserved).await? {
            // The leader that was ordered this before has not come to hand them over.
            Some(ids) => {
                self.expect(conditions).await?;
                check_repeated(&self.membership(), &ids, named, learners)?;
                ids
            }
            None => self.give_places(&reserved, replaces, learners, conditions).await?,
        };
        self.hand_all_over(&[], &ids, &reserved).await?;
        Ok(self.when_settled(&ids, learners).await)
    }

    /// Has the replica add nodes that are reserved; their ids.
    async fn give_places(
        &self,
        reserved: &[Reserved],
        replaces: BTreeSet<NodeId>,
        learners: bool,
        conditions: OrderConditions,
    ) -> Result<Vec<NodeId>, OrderError> {
        let members = reserved.iter().map(Reserved::member).collect();
        let change = Change::AddMembers { members, replaces, promote: !learners };
        match self.change(change, conditions).await {
            Ok(ids) => Ok(ids),
            // It may have been committed all the same.
            Err(error) if error.code == OrderCode::Unknown => {
                let mut found = Vec::new();
                for node in reserved {
                    found.push(self.find(node.store).await.ok_or_else(|| error.clone())?);
                }
                Ok(found)
            }
            Err(error) => Err(self.release(reserved, error).await),
        }
    }

    /// The places that all of these nodes have already, once they are committed; `None` if one of
    /// them has none.
    async fn places_of(&self, nodes: &[Reserved]) -> Result<Option<Vec<NodeId>>, OrderError> {
        let mut places = Vec::new();
        for node in nodes {
            match self.place_of(node.store).await {
                Some(place) => places.push(place.map_err(OrderError::from)?),
                None => return Ok(None),
            }
        }
        Ok(Some(places))
    }

    /// An order of which some nodes have taken up their places already. The others get theirs, if
    /// the leader that was ordered this before has given them one and not come to hand it over.
    async fn go_on_adding(
        &self,
        nodes: &[NewNode],
        (targets, known): (&[Description], &[Option<NodeId>]),
        named: &[String],
        learners: bool,
        conditions: OrderConditions,
    ) -> Result<OrderDone, OrderError> {
        let missing = || nodes.iter().zip(targets).zip(known).filter(|(_, known)| known.is_none());
        for ((node, target), _) in missing() {
            self.check_joins(node, target)?;
        }
        let mut reserved = Vec::new();
        for ((node, target), _) in missing() {
            // What is reserved stays so for a while: it may have a place here.
            reserved.push(self.reserve_node(node, target.clone()).await?);
        }
        let taken: Vec<(NodeId, &str)> =
            nodes.iter().zip(known).filter_map(|(node, id)| Some(((*id)?, node.name.as_str()))).collect();
        let Some(places) = self.places_of(&reserved).await? else {
            let names: Vec<&str> = taken.iter().map(|(_, name)| *name).collect();
            let text = format!("{} is a member already; leave it out", names.join(" and "));
            return Err(OrderError::new(OrderCode::NodeHasData, text));
        };
        let ids: Vec<NodeId> = known.iter().flatten().chain(&places).copied().collect();
        self.expect(conditions).await?;
        check_repeated(&self.membership(), &ids, named, learners)?;
        self.hand_all_over(&taken, &places, &reserved).await?;
        Ok(self.when_settled(&ids, learners).await)
    }

    async fn when_settled(&self, ids: &[NodeId], learners: bool) -> OrderDone {
        if learners { self.as_they_are(ids).await } else { self.when_voters(ids).await }
    }

    /// Gives all the nodes of an order their places. One that does not take its own leaves again;
    /// then those that have none yet do not get one. (If they were to replace members, those that
    /// have one leave, too: the order as a whole has failed.) `taken`: those of the order that had
    /// theirs before.
    async fn hand_all_over(
        &self,
        taken: &[(NodeId, &str)],
        ids: &[NodeId],
        nodes: &[Reserved],
    ) -> Result<(), OrderError> {
        let mut handed_over = Ok(());
        for (at, (id, node)) in ids.iter().zip(nodes).enumerate() {
            let Err(error) = self.hand_over(*id, node.store, &node.raft_addr).await else { continue };
            if self.membership().contains(*id) {
                // It may take up its place later.
                handed_over = handed_over.and(Err(OrderError::from(error)));
                continue;
            }
            let given_up = |id: &&NodeId| self.membership().contains(**id);
            let members: BTreeSet<NodeId> = ids[at + 1..].iter().filter(given_up).copied().collect();
            if !members.is_empty() {
                let undone = self.change(Change::Remove { members }, OrderConditions::default()).await;
                if let Err(error) = undone {
                    warn!(%error, "learners that have no place could not be removed; remove them");
                }
            }
            let error = self.release(&nodes[at + 1..], OrderError::from(error)).await;
            let given = ids[..at].iter().zip(nodes).map(|(id, node)| (*id, node.name.as_str()));
            let gone = taken.iter().copied().chain(given).filter(|(id, _)| !self.membership().contains(*id));
            let gone: Vec<&str> = gone.map(|(_, name)| name).collect();
            if gone.is_empty() {
                return Err(error);
            }
            let text = format!(
                "{}: {}; the order as a whole has failed, and {} left again: wipe its data directory, and start it, before \
                 you order it again",
                node.name,
                error.detail,
                gone.join(" and ")
            );
            return Err(OrderError::new(error.code, text));
        }
        handed_over
    }

    /// What listens at a new node's address, if it has the new node's name.
    async fn describe_new(&self, node: &NewNode) -> Result<Description, OrderError> {
        let target = self.describe_stranger(&node.raft_addr).await;
        let target =
            target.map_err(|error| OrderError::new(OrderCode::NodeUnreachable, error.to_string()))?;
        if target.name == node.name {
            return Ok(target);
        }
        let text = format!(
            "the node at {} is called {:?}, not {:?}; add it under its own --node-id",
            node.raft_addr, target.name, node.name
        );
        Err(OrderError::new(OrderCode::WrongName, text))
    }

    /// Whether a node may become a member.
    fn check_joins(&self, node: &NewNode, target: &Description) -> Result<(), OrderError> {
        let name = &node.name;
        let text = if target.cluster == self.address_book.me().cluster {
            if self.membership().contains(target.id) {
                format!("{name} is a member already; leave it out")
            } else {
                format!(
                    "{name} was a member of this cluster and has been removed; wipe its data directory, start it, and add it again"
                )
            }
        } else if target.members > 1 {
            format!(
                "{name} is a member of another cluster with {} members; remove it there and wipe its data directory before \
                 it is added here",
                target.members
            )
        } else {
            let checked = self.check_release(name, target);
            return checked.map_err(|text| OrderError::new(OrderCode::BadRequest, text));
        };
        Err(OrderError::new(OrderCode::NodeHasData, text))
    }

    async fn reserve_node(&self, node: &NewNode, target: Description) -> Result<Reserved, OrderError> {
        let (cluster, micros) = (self.address_book.me().cluster, self.timings.reservation_micros);
        let question = Question::Reserve { cluster, micros };
        // By its name: what it calls itself is not what its certificate says.
        let called = (Some(node.name.as_str()), node.raft_addr.as_str());
        let answer = ask_member(&self.dialer, called, &question, self.timings.answer_micros).await;
        let (code, text) = match answer {
            Ok(Reply::Reserved(store)) => {
                let NewNode { name, raft_addr } = node.clone();
                return Ok(Reserved { name, raft_addr, store, http_addr: target.http_addr });
            }
            Ok(Reply::Refused(reason)) => (OrderCode::NodeHasData, reason),
            Ok(other) => (OrderCode::NodeUnreachable, format!("{} answered {other:?}", node.raft_addr)),
            Err(reason) => (OrderCode::NodeUnreachable, reason),
        };
        Err(OrderError::new(code, text))
    }

    /// Lets nodes go that were reserved in vain.
    async fn release(&self, reserved: &[Reserved], error: OrderError) -> OrderError {
        let question = Question::Release(self.address_book.me().cluster);
        for node in reserved {
            let _ = ask(&self.dialer, &node.raft_addr, &question, self.timings.answer_micros).await;
        }
        error
    }
}

impl Reserved {
    fn member(&self) -> Member {
        Member {
            name: self.name.clone(),
            raft_addr: self.raft_addr.clone(),
            http_addr: self.http_addr.clone(),
            store_id: self.store,
        }
    }
}
