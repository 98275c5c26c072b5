//! A member that has proof that it must not be counted on takes no part any more: it votes for nobody, acknowledges
//! nothing and confirms nothing until it is started again, and says why to every member that asks it for something.
//!
//! The papers assume that what was synced stays. Where it does not (an older copy of a disk is put back, memory or
//! software fails), a member that goes on as if nothing had happened forgets votes and acknowledgements that others
//! rest on.

use crate::raft::api::RaftEvent;
use crate::raft::core::Raft;
use crate::raft::message::Body;
use crate::raft::role::Role;
use crate::raft::types::{LogId, LogIndex, NodeId};

/// Why a member takes no part any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Withdrawal {
    /// The leader says that this node acknowledged an entry, and it is not in the log.
    #[error(
        "entry {acknowledged}, which this member acknowledged, is not in its log, which ends at {last}: its data \
         directory is an older copy, or its disk lost what was synced; stop it, wipe its data directory, start it and \
         join it again under its name"
    )]
    LostEntries {
        /// What it acknowledged.
        acknowledged: LogId,
        /// The end of its log.
        last: LogId,
    },
    /// The leader has another entry where this node has one that is committed (Leader Completeness, Raft §5.4).
    #[error(
        "the leader's log contradicts entry {committed}, which is committed here: the data of one of the two is not what \
         it was; compare state_hash in /v1/status of all members, stop the one that differs, wipe its data directory, \
         start it and join it again under its name"
    )]
    Contradicted {
        /// The committed entry that it contradicts, or the last one.
        committed: LogId,
    },
    /// The state here is not what the other members have at the same entry.
    #[error(
        "its state at entry {index} is not the one that the other members have: stop it, wipe its data directory, start \
         it and join it again under its name"
    )]
    Diverged {
        /// Where they were compared.
        index: LogIndex,
    },
    /// A member has met a later start of the same data directory.
    #[error(
        "its data directory is an older copy of one that member {met_by} has met in use: stop it, wipe its data \
         directory, start it and join it again under its name"
    )]
    OlderCopy {
        /// Who met it.
        met_by: NodeId,
    },
}

impl Raft {
    /// Takes no part any more. The first reason stays.
    pub(in crate::raft) fn withdraw(&mut self, why: Withdrawal) {
        if self.shared.withdrawn.is_some() {
            return;
        }
        self.shared.withdrawn = Some(why);
        self.become_follower(self.shared.term(), None);
        self.shared.writes.forget_held();
        self.shared.outbox.messages.clear();
        self.shared.outbox.events.push(RaftEvent::Withdrawn(why));
    }

    /// A message to a member that has withdrawn: whoever asks for something is told why there is no answer.
    pub(in crate::raft) fn answer_withdrawn(&mut self, from: NodeId, body: &Body, why: Withdrawal) {
        let asks = matches!(
            body,
            Body::PreVote { .. }
                | Body::RequestVote { .. }
                | Body::AppendEntries { .. }
                | Body::InstallSnapshot { .. }
        );
        if asks {
            self.shared.send(from, Body::Withdrawn(why));
        }
    }

    /// A peer takes no part any more: what it acknowledged does not count. Reported once, until it answers again.
    pub(in crate::raft) fn handle_withdrawn(&mut self, from: NodeId, why: Withdrawal) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        if peer.withdrawn.replace(why).is_none() {
            self.shared.outbox.events.push(RaftEvent::PeerWithdrew { peer: from, why });
        }
    }
}
