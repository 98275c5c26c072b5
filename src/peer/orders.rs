//! What operators order of the members, and what becomes of it, as one node tells it to another.

use crate::codec::FeatureLevel;
use crate::peer::by_name::{self, Named};
use crate::raft::{NodeId, ReplicationState};
use crate::replica::{ClientError, Standing};
use serde::{Deserialize, Serialize};

/// What an operator orders of the members. A member is named by its `--node-id` or by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberOrder {
    /// Add nodes that are no members yet.
    Add {
        /// The nodes. They become voters in one change.
        nodes: Vec<NewNode>,
        /// Members that leave in the change that makes the new ones voters.
        replaces: Vec<String>,
        /// Whether they stay learners.
        learners: bool,
    },
    /// Make a learner a voter, once it has caught up.
    Promote(String),
    /// Remove members, in one change.
    Remove(Vec<String>),
    /// Hand leadership to this member, or to the one that is ready best.
    Transfer(Option<String>),
}

/// A node that is to become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its `--node-id`.
    pub name: String,
    /// Where the others reach it: `host:port`.
    pub raft_addr: String,
}

/// Under which conditions an order is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderConditions {
    /// Only if the membership is that of the entry at this index.
    pub expected: Option<u64>,
    /// Even if too few of the voters that would remain answer.
    pub force: bool,
}

/// An order that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDone {
    /// The index of the membership now.
    pub configuration: u64,
    /// The members that were added or promoted, and what they are now: `voter`, or `learner` if
    /// they still catch up.
    pub members: Vec<MemberDone>,
    /// The members that were removed.
    pub removed: Vec<MemberDone>,
    /// The leader, after a transfer.
    pub leader: Option<MemberDone>,
}

/// A member that an order was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDone {
    /// Its id.
    pub id: NodeId,
    /// Its `--node-id`.
    pub name: String,
    /// What it is now: voter, learner, or removed.
    #[serde(with = "by_name")]
    pub standing: Standing,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{detail}")]
pub struct OrderError {
    /// Names the kind of error, for programs.
    pub code: OrderCode,
    /// What is wrong and what to do, in words.
    pub detail: String,
    /// The index of the membership, where another one was expected.
    pub configuration: Option<u64>,
}

/// What is wrong with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderCode {
    /// No leader can be reached.
    NoLeader,
    /// It makes no sense, whatever the members are.
    BadRequest,
    /// The node at that address has another name.
    WrongName,
    /// A member that answers has that name.
    NameTaken,
    /// The node has data of its own, or is a member of another cluster.
    NodeHasData,
    /// Nothing answers at that address.
    NodeUnreachable,
    /// There is no such member.
    NoMember,
    /// It is the id of one member and the name of another.
    Ambiguous,
    /// The change makes no sense for these members.
    BadChange,
    /// Another change is under way.
    ChangePending,
    /// The membership is another one than was expected.
    OtherMembership,
    /// Those that answer would be no quorum.
    WouldLoseQuorum,
    /// The member cannot lead now.
    CannotLead,
    /// This node cannot do it now.
    Unavailable,
    /// Nobody knows whether it was, or will be, carried out.
    Unknown,
    /// The leader has too much to do. From level 8 on.
    Overloaded,
    /// The leader's disk is full. From level 8 on.
    DiskFull,
}

impl OrderCode {
    /// This code, or what a node of that level has for it: it decodes no other.
    pub(crate) fn at(self, level: FeatureLevel) -> Self {
        match self {
            Self::Overloaded | Self::DiskFull if level < FeatureLevel::NEGOTIATES => Self::Unavailable,
            code => code,
        }
    }

    /// Whether it says something about the members as they are now.
    pub(crate) const fn depends_on_members(self) -> bool {
        !matches!(
            self,
            Self::NoLeader | Self::BadRequest | Self::WrongName | Self::NodeUnreachable | Self::Unknown
        )
    }
}

impl OrderError {
    pub(crate) fn new(code: OrderCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), configuration: None }
    }

    /// Of a request that the leader's replica did not carry out. `name` says what a member is
    /// called.
    pub(crate) fn of_client(error: &ClientError, name: impl Fn(NodeId) -> String) -> Self {
        let code = match error {
            ClientError::NoLeader | ClientError::NotLeader(_) => OrderCode::NoLeader,
            ClientError::ChangePending => OrderCode::ChangePending,
            ClientError::OtherMembership(_) => OrderCode::OtherMembership,
            ClientError::QuorumAtRisk(_) => OrderCode::WouldLoseQuorum,
            ClientError::BadChange(_) => OrderCode::BadChange,
            ClientError::CannotLead | ClientError::AnotherLeads(_) => OrderCode::CannotLead,
            ClientError::Unknown | ClientError::NotHandedOver => OrderCode::Unknown,
            ClientError::Overloaded => OrderCode::Overloaded,
            ClientError::DiskFull => OrderCode::DiskFull,
            _ => OrderCode::Unavailable,
        };
        let mut detail = error.to_string();
        if let ClientError::QuorumAtRisk(silent) = error {
            let names: Vec<String> = silent.iter().map(|id| name(*id)).collect();
            detail = format!(
                "the members that answer would be no quorum of those that remain: {} do not answer; start them again, or \
                 remove them first; force=true does it all the same, and then nothing is committed until enough of them \
                 are back",
                names.join(", ")
            );
        }
        if let ClientError::AnotherLeads(leader) = error {
            detail = format!(
                "{} leads now, and not the member that was named; see the members, and order it again there",
                name(*leader)
            );
        }
        let configuration = match error {
            ClientError::OtherMembership(index) => Some(index.get()),
            _ => None,
        };
        Self { configuration, ..Self::new(code, detail) }
    }
}

/// The members, as one node sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersView {
    /// The name of the node whose view this is.
    pub told_by: String,
    /// The index of the membership in force.
    pub configuration: u64,
    /// Whether it is known to be committed.
    pub committed: bool,
    /// Whether it is a joint state.
    pub joint: bool,
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// All members.
    pub members: Vec<MemberView>,
}

/// How a member is, as far as one node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers, and has what it needs, or it leads.
    Ok,
    /// It has not answered its leader within the election timeout.
    Silent,
    /// It answers, and its leader still looks for what it lacks, or sends a snapshot.
    CatchingUp,
    /// It takes no part any more.
    Withdrawn,
    /// This node does not lead, and cannot tell.
    Unknown,
}

impl Health {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Silent => "silent",
            Self::CatchingUp => "catching-up",
            Self::Withdrawn => "withdrawn",
            Self::Unknown => "unknown",
        }
    }
}

impl Named for Health {
    const ALL: &'static [Self] = &[Self::Ok, Self::Silent, Self::CatchingUp, Self::Withdrawn, Self::Unknown];

    fn name(self) -> &'static str {
        self.name()
    }
}

impl Named for Standing {
    const ALL: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

impl Named for ReplicationState {
    const ALL: &'static [Self] = &[Self::Probe, Self::Replicate, Self::Snapshot];

    fn name(self) -> &'static str {
        self.name()
    }
}

/// A member, as one node sees it. What only a leader knows is `None` elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its id.
    pub id: NodeId,
    /// Its `--node-id`.
    pub name: String,
    /// Where the other nodes reach it.
    pub raft_addr: String,
    /// Where its HTTP API is.
    pub http_addr: String,
    /// What it is; never [`Standing::Removed`].
    #[serde(with = "by_name")]
    pub standing: Standing,
    /// How it is.
    #[serde(with = "by_name")]
    pub health: Health,
    /// How far its log is known to agree.
    pub match_index: Option<u64>,
    /// Entries that it lacks.
    pub lag: Option<u64>,
    /// How the leader brings it up to date.
    #[serde(with = "by_name::option")]
    pub replication: Option<ReplicationState>,
    /// Microseconds since it was last heard from.
    pub silent_micros: Option<u64>,
    /// Why it takes no part any more.
    pub withdrawn: Option<String>,
}

#[cfg(test)]
mod tests;
