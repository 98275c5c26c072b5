//! What is cut away: messages that can change nothing any more. That they change nothing is tried when they go.

use crate::model::properties::Breach;
use crate::model::{Disk, Event, Exhaustive, Hashed, Node, World, position_of};
use infinitystore::raft::{Body, Message, NodeId, RoleName};

impl Exhaustive {
    /// Takes spent messages from the network. `Err` if one would have changed something.
    pub(super) fn cut(&self, world: &mut World) -> Result<(), Breach> {
        let mut network = std::mem::take(&mut world.network);
        let mut harmless = true;
        network.retain(|message| {
            let is_spent = self.is_spent(world, message);
            // What is argued there is tried as well, when the message goes.
            harmless &= !is_spent || self.changes_nothing(world, message);
            !is_spent
        });
        world.network = network;
        if harmless { Ok(()) } else { Err(Breach::SpentTooEarly) }
    }

    /// Whether its arrival, now, would leave its addressee as it is, with nothing to say that is not spent itself.
    fn changes_nothing(&self, world: &World, message: &Hashed<Message>) -> bool {
        let node = &world.nodes[position_of(message.get().to)];
        let effect = self.effect(node, &Event::Deliver(message.clone()));
        let says_nothing = effect.messages.iter().all(|answer| self.is_spent(world, answer));
        effect.node == *node && effect.committed.is_empty() && effect.breach.is_none() && says_nothing
    }

    /// Whether the message can change nothing any more, whenever it arrives: not now, not after whatever may still happen.
    fn is_spent(&self, world: &World, message: &Hashed<Message>) -> bool {
        let Message { from, to, term, body } = message.get();
        let (asks, answers) = (world.nodes[position_of(*from)].get(), world.nodes[position_of(*to)].get());
        if is_late_answer(message.get(), answers) {
            return true;
        }
        // The rest counts on what is durable.
        if self.disk != Disk::Sound {
            return false;
        }
        let last = self.last_term();
        match body {
            Body::AppendAccepted { .. } | Body::AppendRejected { .. } => {
                *term == answers.raft.term() && self.has_told_all(world, answers, *from)
            }
            // No term comes after the last: who knows that one has nothing to learn from a rejection, except that a
            // candidate counts it, which nobody becomes again in that term.
            Body::RequestVote { .. } => {
                let is_refused = *term < last || answers.durable.voted_for != Some(*from);
                let counts = asks.raft.role() == RoleName::Candidate;
                is_refused && asks.durable.term == last && !counts && self.has_chosen(world, answers)
            }
            Body::AppendEntries { .. } if *term < last => {
                asks.durable.term == last && self.has_chosen(world, answers)
            }
            // The follower has all that there will be; no crash takes its commit index, or its leader, from it. What it
            // answers is spent since the leader has told all.
            Body::AppendEntries { .. } => {
                *term == asks.raft.term()
                    && world.crashes == self.bounds.crashes
                    && answers.durable.term == last
                    && answers.writes.is_empty()
                    && self.has_told_all(world, asks, *to)
                    && self.changes_nothing(world, message)
            }
            _ => false,
        }
    }

    /// Whether the node leads, and nothing that `peer` may answer in this term will make a difference: it has acknowledged the
    /// whole log, which will not grow. Then it is sent nothing from before the end of the log again: a rejection is of
    /// what it acknowledged, so a late one, and an acknowledgement says what is known.
    fn has_told_all(&self, world: &World, node: &Node, peer: NodeId) -> bool {
        world.entries == self.bounds.entries
            && node.raft.progress().any(|progress| {
                let all = progress.match_index == node.raft.last_log().index;
                progress.id == peer && all && progress.state == "replicate"
            })
    }

    /// Whether neither term nor vote of the node will change any more, nor be written: it is in the last term, and has voted, or
    /// has a leader that no crash makes it forget. So it refuses at once what is of an earlier term, and votes for nobody.
    fn has_chosen(&self, world: &World, node: &Node) -> bool {
        let follows = || {
            world.crashes == self.bounds.crashes
                && node.raft.leader_hint().leader.is_some()
                && node.writes.iter().all(|write| write.records().hard_state.is_none())
        };
        node.durable.term == self.last_term() && (node.durable.voted_for.is_some() || follows())
    }
}

/// Whether the message is an answer to a question of a durably earlier term, or to one that nobody asks any more in a term that
/// nobody leads or stands for twice. Then it can change nothing, now, later or after a crash.
fn is_late_answer(message: &Message, node: &Node) -> bool {
    let (term, durable, role) = (message.term, node.durable.term, node.raft.role());
    if term > durable {
        return false;
    }
    match message.body {
        Body::PreVoteGranted { campaign_term } | Body::PreVoteRejected { campaign_term } => {
            campaign_term <= durable
        }
        Body::VoteGranted | Body::VoteRejected => term < durable || role != RoleName::Candidate,
        Body::AppendAccepted { session, .. } | Body::AppendRejected { session, .. } => {
            let may_lead = matches!(role, RoleName::Leader | RoleName::Candidate);
            term < durable || !may_lead || session == 0
        }
        _ => false,
    }
}
