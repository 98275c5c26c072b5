//! The members of the cluster: voters, learners, and the joint state between two sets of voters.

use crate::raft::types::{LogIndex, NodeId, StoreId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What is known of a member. Replicated with the membership, so that it survives a restart of all
/// nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The `--node-id`. At most one member of a membership has a given name, except while one
    /// replaces the other.
    pub name: String,
    /// `host:port` of its peer transport; resolved at each connect.
    pub raft_addr: String,
    /// `host:port` of its HTTP API.
    pub http_addr: String,
    /// Its data directory's identity: another store under the same member id is refused.
    pub store_id: StoreId,
}

impl Member {
    /// A member without addresses: for a program that finds its members in its own way.
    #[must_use]
    pub fn named(name: &str, store_id: StoreId) -> Self {
        Self { name: name.into(), raft_addr: String::new(), http_addr: String::new(), store_id }
    }
}

/// What a learner is waiting for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Promotion {
    /// It stays a learner.
    Never,
    /// It becomes a voter once it has caught up; the members in `replaces` leave in the same
    /// change.
    WhenCaughtUp {
        /// Members that leave when it is promoted (a wiped node's old self).
        replaces: BTreeSet<NodeId>,
        /// Learners that are promoted in the same change, and only together with it.
        together: BTreeSet<NodeId>,
    },
}

/// Who the members are, and what each is (Raft §6, D §4.3; the papers say
/// *configuration*).
///
/// Invariants, checked by [`Membership::validate`]: `voters` and `outgoing` are not empty.
/// `members` are exactly the voters, the outgoing voters and the learners, at most
/// [`MEMBERS_MAX`](crate::raft::MEMBERS_MAX). Learners are in no voter set. Members that a learner
/// is to replace are members. Learners that are promoted together each name all others.
/// `next_member_id` is above every id ever used. Names and stores are unique, except the name of a
/// member that one of the same name replaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// The voters (in the joint state: of the incoming membership, C_new).
    pub voters: BTreeSet<NodeId>,
    /// In the joint state, the voters of the outgoing membership, C_old; otherwise `None`.
    pub outgoing: Option<BTreeSet<NodeId>>,
    /// Members that receive the log and count in no quorum.
    pub learners: BTreeMap<NodeId, Promotion>,
    /// Name, addresses and store of every member.
    pub members: BTreeMap<NodeId, Member>,
    /// The id that the next member gets; ids are never used twice.
    pub next_member_id: NodeId,
}

/// A change of membership, as asked of the leader. One is pending at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// Adds learners, which are promoted in one change when all of them have caught up. They get
    /// the next member ids, in their order.
    AddMembers {
        /// The new members.
        members: Vec<Member>,
        /// Members that leave in the same change that promotes them. Those that stay learners can
        /// replace such learners alone, which leave at once.
        replaces: BTreeSet<NodeId>,
        /// Whether they become voters when they have caught up; `false` keeps them learners.
        promote: bool,
    },
    /// Learners that were to stay learners become voters, in one change, when all of them have
    /// caught up.
    Promote {
        /// The learners.
        members: BTreeSet<NodeId>,
    },
    /// Removes members, voters or learners.
    Remove {
        /// The members that leave.
        members: BTreeSet<NodeId>,
    },
    /// A member's addresses or name are new; its id and store stay.
    Update {
        /// The member.
        id: NodeId,
        /// Its new description; `store_id` must be the one on record.
        member: Member,
    },
}

/// A change, and under which conditions the leader makes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeOrder {
    /// The change.
    pub change: Change,
    /// Only if the membership in force is that of the entry at this index. `None`: whatever it
    /// is.
    pub expected: Option<LogIndex>,
    /// Even if too few of the voters that would remain answer to make a quorum. Until enough of
    /// them do, the cluster commits nothing then.
    pub force: bool,
}

impl From<Change> for ChangeOrder {
    fn from(change: Change) -> Self {
        Self { change, expected: None, force: false }
    }
}
