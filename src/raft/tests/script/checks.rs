//! What must hold whatever happens: Raft figure 3, persist before send, match index truth, reads
//! that miss nothing.

use crate::raft::tests::script::cluster::Node;
use crate::raft::{
    Body, Entry, HardState, LogIndex, Message, NodeId, Raft, ReadId, ReadReady, RoleName, Term, quorum,
};
use std::collections::BTreeMap;

type Nodes = BTreeMap<NodeId, Node>;

/// What is known of the cluster as a whole; no node has it.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Every entry that any node ever took for committed, and the term of the leader that committed
    /// it.
    pub(super) committed: BTreeMap<LogIndex, (Entry, Term)>,
    leaders: BTreeMap<Term, NodeId>,
    /// What was committed when a read was asked: what it has to see.
    reads: BTreeMap<ReadId, LogIndex>,
}

impl Truth {
    /// The highest index committed anywhere.
    pub(super) fn commit_index(&self) -> LogIndex {
        self.committed.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index)
    }

    pub(super) fn read_asked(&mut self, id: u64) {
        let id = ReadId::new(id);
        let index = self.commit_index();
        assert!(self.reads.insert(id, index).is_none(), "read {id} is asked twice");
    }

    pub(super) fn is_read_open(&self, id: u64) -> bool {
        self.reads.contains_key(&ReadId::new(id))
    }

    pub(super) fn check_read(&mut self, ready: ReadReady) {
        let floor =
            self.reads.remove(&ready.id).unwrap_or_else(|| panic!("read {} is answered twice", ready.id));
        assert!(ready.index >= floor, "read {} is stale: at {}, committed {floor}", ready.id, ready.index);
    }

    /// Persist before send: what a message says of the sender's durable state is on its disk.
    pub(super) fn check_message(&self, message: &Message, nodes: &Nodes) {
        let Message { from, to, term, body } = message;
        let disk = &nodes[from].durable;
        let voted = |candidate: NodeId| {
            let expected = HardState { term: *term, voted_for: Some(candidate) };
            assert_eq!(disk.hard_state, expected, "{message:?} speaks of a vote that is not durable");
        };
        match body {
            Body::VoteGranted => voted(*to),
            Body::RequestVote { .. } | Body::AppendEntries { .. } | Body::InstallSnapshot { .. } => {
                voted(*from)
            }
            Body::AppendAccepted { match_index, .. } | Body::SnapshotInstalled { match_index, .. } => {
                assert!(disk.hard_state.term >= *term, "{message:?} speaks of a term that is not durable");
                let leader = nodes.get(to).and_then(|node| node.raft.as_ref());
                if let Some(leader) = leader.filter(|leader| leader.term() == *term) {
                    agrees(leader, &nodes[from], *match_index, "acknowledged");
                }
            }
            _ => {}
        }
    }

    /// Everything that can be checked of one node after a step of its.
    pub(super) fn check_node(&mut self, id: NodeId, nodes: &Nodes) {
        let node = &nodes[&id];
        let Some(raft) = &node.raft else { return };
        self.check_leader(raft, nodes);
        self.check_commit(raft, nodes);
        for entry in &node.applied {
            let known = self.committed.get(&entry.index()).expect("only what is committed is applied");
            assert_eq!(&known.0, entry, "State Machine Safety: node {id} applied another entry");
        }
    }

    fn check_leader(&mut self, raft: &Raft, nodes: &Nodes) {
        if raft.role() != RoleName::Leader {
            assert!(raft.progress().next().is_none(), "only a leader has progress");
            return;
        }
        let (id, term) = (raft.id(), raft.term());
        let known = *self.leaders.entry(term).or_insert(id);
        assert_eq!(known, id, "Election Safety: two leaders in term {term}");
        for (index, (entry, _)) in
            self.committed.iter().filter(|(_, (_, committed_in))| *committed_in <= term)
        {
            assert!(
                raft.last_log().index >= *index,
                "Leader Completeness: leader {id} of term {term} lacks {index}"
            );
            if let Some(found) = raft.term_at(*index) {
                assert_eq!(found, entry.term(), "Leader Completeness: leader {id} of term {term} at {index}");
            }
        }
        for peer in raft.progress() {
            assert!(peer.match_index < peer.next_index, "what is matched is not sent: {peer:?}");
            if let Some(node) = nodes.get(&peer.id) {
                agrees(raft, node, peer.match_index, "matched");
            }
        }
    }

    fn check_commit(&mut self, raft: &Raft, nodes: &Nodes) {
        let (id, commit) = (raft.id(), raft.commit_index());
        for entry in raft.log_after(LogIndex::ZERO) {
            let index = entry.index();
            if index > commit {
                break;
            }
            if let Some((known, _)) = self.committed.get(&index) {
                assert_eq!(known, &entry, "State Machine Safety: node {id} committed another entry");
                continue;
            }
            // It may have stepped down since: a leader that is removed goes when that is committed.
            let leads = self.leaders.get(&raft.term());
            assert_eq!(leads, Some(&id), "node {id} commits {index}, which no leader committed");
            let on_disk = |voter: NodeId| {
                nodes.get(&voter).is_some_and(|node| {
                    let covered = node.durable.snapshot.as_ref().is_some_and(|meta| meta.last.index >= index);
                    covered || node.durable_entry(index).is_some_and(|found| found.id() == entry.id())
                })
            };
            // Having committed, it may have appended the next membership at once.
            let (before, _) = raft.membership_at(commit);
            let reached = [raft.membership(), before]
                .into_iter()
                .any(|membership| quorum::reached(&membership.voters, membership.outgoing.as_ref(), on_disk));
            assert!(reached, "node {id} commits {} without a durable quorum", entry.id());
            self.committed.insert(index, (entry, raft.term()));
        }
    }
}

/// The follower's disk agrees with the leader's log at `index` (and so below it: Log Matching, Raft
/// §5.3).
fn agrees(leader: &Raft, follower: &Node, index: LogIndex, what: &str) {
    let covered = follower.durable.snapshot.as_ref().is_some_and(|meta| meta.last.index >= index);
    if index == LogIndex::ZERO || covered {
        return;
    }
    let found = follower.durable_entry(index).map(Entry::term);
    assert!(found.is_some(), "{index} is {what}, but not on that disk");
    if let Some(term) = leader.term_at(index) {
        assert_eq!(found, Some(term), "{index} is {what}, but another entry is on that disk");
    }
}
