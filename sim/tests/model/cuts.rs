//! What is cut away: messages that can change nothing any more, and whether a message that changes
//! nothing has arrived.

use crate::model::properties::Breach;
use crate::model::{Disk, Effect, Event, Exhaustive, Interned, Node, World, position_of};
use infinitystore::raft::{Body, Message, NodeId, ReplicationState, RoleName, Session};

impl Exhaustive {
    /// Lets every message arrive that leaves its addressee as it is, in a state where that has
    /// happened but for the messages to the node at `changed` and the `news`. The more messages are
    /// on their way, the more can happen, so what an arrival makes its addressee say may as well be
    /// said at once.
    pub(super) fn saturate(&self, world: &mut World, changed: usize, mut news: Vec<Interned<Message>>) {
        news.extend(world.network.iter().filter(|message| position_of(message.to) == changed));
        while let Some(message) = news.pop() {
            if let Some(effect) = self.changes_no_node(world, message) {
                news.extend(world.send(&effect.messages));
            }
        }
    }

    /// Whether the arrival of the message, in a state that is saturated, would make no difference.
    pub(super) fn is_saturated(&self, world: &World, message: Interned<Message>) -> bool {
        self.changes_no_node(world, message).is_some()
    }

    /// What the arrival of the message makes its addressee say, which has done something before, if
    /// it leaves it as it is.
    fn changes_no_node(&self, world: &World, message: Interned<Message>) -> Option<&'static Effect> {
        let position = position_of(message.to);
        let node = world.nodes[position];
        let effect = self.effect(node, Event::Deliver(message));
        let is_idle = effect.node == node && effect.committed.is_empty() && effect.breach.is_none();
        (is_idle && position < world.moved).then_some(effect)
    }

    /// Takes spent messages from the network. `Err` if one would have changed something.
    pub(super) fn cut(&self, world: &mut World) -> Result<(), Breach> {
        let mut kept = Vec::with_capacity(world.network.len() + 2);
        let mut harmless = true;
        for message in &world.network {
            let is_spent = self.is_spent(world, message);
            // What is argued there is tried as well, when the message goes.
            harmless &= !is_spent || self.says_nothing_new(world, *message);
            if !is_spent {
                kept.push(*message);
            }
        }
        world.network = kept;
        if harmless { Ok(()) } else { Err(Breach::SpentTooEarly) }
    }

    /// Whether its arrival, now, would leave its addressee as it is, with nothing to say that is
    /// not on its way or spent.
    fn says_nothing_new(&self, world: &World, message: Interned<Message>) -> bool {
        let node = world.nodes[position_of(message.to)];
        let effect = self.effect(node, Event::Deliver(message));
        let is_known = |answer| world.network.binary_search(answer).is_ok() || self.is_spent(world, answer);
        effect.node == node
            && effect.committed.is_empty()
            && effect.breach.is_none()
            && effect.messages.iter().all(is_known)
    }

    /// Whether the message can change nothing any more, whenever it arrives: not now, not after
    /// whatever may still happen.
    fn is_spent(&self, world: &World, message: &Interned<Message>) -> bool {
        let Message { from, to, term, ref body } = **message;
        let (asks, answers) = (world.node(position_of(from)), world.node(position_of(to)));
        if is_late_answer(message, answers) {
            return true;
        }
        // The rest counts on what is durable.
        if self.disk != Disk::Sound {
            return false;
        }
        let last = self.bounds.last_term();
        let is_over = term < answers.durable.term;
        match body {
            // A candidate has counted it. Its grant of the same voter would make it a leader, as
            // long as there are three.
            Body::VoteRejected => term == answers.durable.term && self.says_nothing_new(world, *message),
            Body::AppendAccepted { .. } | Body::AppendRejected { .. } => {
                term == answers.raft.term() && self.has_told_all(world, answers, from)
            }
            // It is refused for ever, in the last term, so one refusal is enough. If none is needed
            // now, since the node that asked is in that term too, none ever is.
            Body::RequestVote { .. } | Body::AppendEntries { .. }
                if is_over && answers.durable.term == last =>
            {
                let is_said_at_once = answers.writes.iter().all(|write| write.records().hard_state.is_none());
                is_said_at_once && self.says_nothing_new(world, *message)
            }
            Body::RequestVote { .. } => {
                answers.durable.voted_for != Some(from)
                    && self.has_chosen(world, answers)
                    && self.says_nothing_new(world, *message)
            }
            // The follower has all that there will be; no crash takes its commit index, or its
            // leader, from it. What it answers is spent since the leader has told all.
            Body::AppendEntries { .. } => {
                term == last
                    && term == asks.raft.term()
                    && world.crashes == self.bounds.crashes
                    && answers.durable.term == last
                    && answers.writes.is_empty()
                    && self.has_told_all(world, asks, to)
                    && self.says_nothing_new(world, *message)
            }
            _ => false,
        }
    }

    /// Whether the node leads, and nothing that `peer` may answer in this term will make a
    /// difference: it has acknowledged the whole log, which will not grow. Then it is sent nothing
    /// from before the end of the log again: a rejection is of what it acknowledged, so a late one,
    /// and an acknowledgement says what is known.
    fn has_told_all(&self, world: &World, node: &Node, peer: NodeId) -> bool {
        world.entries == self.bounds.entries
            && node.raft.progress().any(|progress| {
                let all = progress.match_index == node.raft.last_log().index;
                progress.id == peer && all && progress.state == ReplicationState::Replicate
            })
    }

    /// Whether neither term nor vote of the node will change any more, nor be written: it is in the
    /// last term, and has voted, or has a leader that no crash makes it forget. So it votes for no
    /// other candidate.
    fn has_chosen(&self, world: &World, node: &Node) -> bool {
        let follows = || {
            world.crashes == self.bounds.crashes
                && node.raft.leader_hint().leader.is_some()
                && node.writes.iter().all(|write| write.records().hard_state.is_none())
        };
        node.durable.term == self.bounds.last_term() && (node.durable.voted_for.is_some() || follows())
    }
}

/// Whether the message answers a question of a durably earlier term, or a question that no node
/// asks any more in a term that no node leads or stands for twice. Then it can change nothing, now,
/// later or after a crash.
fn is_late_answer(message: &Message, node: &Node) -> bool {
    let (term, durable) = (message.term, node.durable.term);
    if term > durable {
        return false;
    }
    let role = (node.raft.term() == term).then(|| node.raft.role());
    match message.body {
        Body::PreVoteGranted { campaign_term } | Body::PreVoteRejected { campaign_term } => {
            campaign_term <= durable
        }
        Body::VoteGranted | Body::VoteRejected => term < durable || role != Some(RoleName::Candidate),
        Body::AppendAccepted { session, .. } | Body::AppendRejected { session, .. } => {
            let may_lead = matches!(role, Some(RoleName::Leader | RoleName::Candidate));
            term < durable || !may_lead || session == Session::ZERO
        }
        _ => false,
    }
}
