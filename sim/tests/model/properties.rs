//! What must hold in every state, what a step must not do, and what has to be possible for any of
//! that to mean something.

use crate::model::{Exhaustive, NODES, Node, World, position_of};
use infinitystore::raft::{Body, Entry, EntryKind, LogIndex, Message, RoleName};
use stateright::Property;

/// Something that a step must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    /// Election safety, over time: another node has led that term.
    TwoLeaders,
    /// State machine safety, of all nodes together: another entry was committed there, or one is
    /// missing before it.
    CommittedChanged,
    /// State machine safety, of one node in one life: an entry is left out, or comes again.
    AppliedOutOfOrder,
    /// Leader append-only: a leader's log lost an entry or has another one in its place.
    LeaderRewrote,
    /// A write that does not begin where the durable log ends.
    WrittenOutOfOrder,
    /// A message says what is not durable.
    SaidTooEarly,
    /// The durable term went back, or the vote in it is another.
    DurableWentBack,
    /// A commit index went back without a crash.
    CommitWentBack,
    /// A leader went on to commit up to an entry of an earlier term.
    CommittedByCounting,
    /// A message that the model took for spent would have changed something.
    SpentTooEarly,
    /// A core was told what no correct core says.
    BadMessage,
    /// An assertion of the core.
    Panicked,
}

/// Whether what a message says of its sender's durable state is so when it leaves.
pub(super) fn said(message: &Message, node: &Node) -> Result<(), Breach> {
    let (durable, term) = (node.durable, message.term);
    let holds = match &message.body {
        Body::RequestVote { .. } => (durable.term, durable.voted_for) == (term, Some(message.from)),
        Body::VoteGranted => (durable.term, durable.voted_for) == (term, Some(message.to)),
        Body::AppendAccepted { match_index, .. } => {
            durable.term >= term && match_index.get() <= node.durable_log.len() as u64
        }
        Body::AppendEntries { .. } | Body::AppendRejected { .. } | Body::VoteRejected => durable.term >= term,
        _ => true,
    };
    if holds { Ok(()) } else { Err(Breach::SaidTooEarly) }
}

type Condition = fn(&Exhaustive, &World) -> bool;

pub(super) fn all() -> Vec<Property<Exhaustive>> {
    let always: [(&'static str, Condition); 17] = [
        ("one leader a term", |_, world| world.breach != Some(Breach::TwoLeaders)),
        ("committed entries never change", |_, world| world.breach != Some(Breach::CommittedChanged)),
        ("each node applies every entry once, in order", |_, world| {
            world.breach != Some(Breach::AppliedOutOfOrder)
        }),
        ("a leader only appends", |_, world| world.breach != Some(Breach::LeaderRewrote)),
        ("logs are written in order", |_, world| world.breach != Some(Breach::WrittenOutOfOrder)),
        ("what is said is durable", |_, world| world.breach != Some(Breach::SaidTooEarly)),
        ("durable term and vote never go back", |_, world| world.breach != Some(Breach::DurableWentBack)),
        ("the commit index never goes back", |_, world| world.breach != Some(Breach::CommitWentBack)),
        ("a leader commits its own entries", |_, world| world.breach != Some(Breach::CommittedByCounting)),
        ("no message is out of place", |_, world| world.breach != Some(Breach::BadMessage)),
        ("what is cut away changes nothing", |_, world| world.breach != Some(Breach::SpentTooEarly)),
        ("no assertion of the core fails", |_, world| world.breach != Some(Breach::Panicked)),
        ("log matching", |_, world| log_matching(world)),
        ("leader completeness", |_, world| leader_completeness(world)),
        ("committed entries are durable on a majority", |_, world| majority(world)),
        ("acknowledged entries are durable", |_, world| acknowledged(world)),
        ("only what is in the log is committed", |_, world| {
            nodes(world).all(|node| node.raft.commit_index() <= node.raft.last_log().index)
        }),
    ];
    let sometimes: [(&'static str, Condition); 6] = [
        ("a leader is elected", |_, world| nodes(world).any(leads)),
        ("two nodes lead, in different terms", |_, world| {
            nodes(world).filter(|node| leads(node)).count() == 2
        }),
        ("everybody commits a command", |_, world| nodes(world).all(has_committed_command)),
        ("a leader commits an entry of an earlier term", |_, world| {
            let mut committed = world.history.committed.iter();
            committed.any(|(entry, term)| entry.index().get() > 1 && entry.term() < *term)
        }),
        ("entries are truncated", |_, world| {
            nodes(world).any(|node| node.writes.iter().any(|write| write.records().truncate_from.is_some()))
        }),
        ("a leader crashes after it committed", |_, world| {
            let history = &world.history;
            nodes(world).any(|node| {
                let (own, term) = (Some(node.raft.id()), node.durable.term);
                let led = history.leaders.get(&term).copied() == own;
                let committed = history.committed.iter().any(|(_, when)| *when == term);
                led && committed && node.raft.commit_index() == LogIndex::ZERO
            })
        }),
    ];
    let always = always.map(|(name, condition)| Property::always(name, condition));
    let sometimes = sometimes.map(|(name, condition)| Property::sometimes(name, condition));
    always.into_iter().chain(sometimes).collect()
}

fn nodes(world: &World) -> impl Iterator<Item = &Node> {
    (0..NODES).map(|position| world.node(position))
}

fn leads(node: &Node) -> bool {
    node.raft.role() == RoleName::Leader
}

fn has_committed_command(node: &Node) -> bool {
    let is_command = |entry: &&Entry| entry.kind() == EntryKind::Command;
    node.log.iter().find(is_command).is_some_and(|entry| entry.index() <= node.raft.commit_index())
}

/// If two logs agree in an entry's term, they agree up to it (Raft §5.3). In memory and on disk.
fn log_matching(world: &World) -> bool {
    let logs: Vec<&[Entry]> = nodes(world).flat_map(|node| [&node.log[..], &node.durable_log]).collect();
    let agree = |left: &[Entry], right: &[Entry]| {
        let pairs = left.iter().zip(right);
        let last = pairs.clone().rposition(|(a, b)| a.id() == b.id());
        last.is_none_or(|last| left[..=last] == right[..=last])
    };
    logs.iter()
        .enumerate()
        .all(|(position, left)| logs[position + 1..].iter().all(|right| agree(left, right)))
}

/// A leader has what was committed in earlier terms (Raft §5.4).
fn leader_completeness(world: &World) -> bool {
    let committed = &world.history.committed;
    nodes(world).filter(|node| leads(node)).all(|node| {
        let earlier = committed.iter().enumerate().filter(|(_, (_, term))| *term < node.raft.term());
        earlier.into_iter().all(|(position, (entry, _))| node.log.get(position) == Some(entry))
    })
}

/// Committed entries are, and stay, on the disks of two of three.
fn majority(world: &World) -> bool {
    let committed = world.history.committed.iter().enumerate();
    committed.into_iter().all(|(position, (entry, _))| {
        nodes(world).filter(|node| node.durable_log.get(position) == Some(entry)).count() * 2 > NODES
    })
}

/// What a leader takes a peer to have, that has it on its disk, as long as it has not gone on to a
/// later term.
fn acknowledged(world: &World) -> bool {
    nodes(world).filter(|node| leads(node)).all(|node| {
        node.raft.progress().all(|progress| {
            let peer = world.node(position_of(progress.id));
            let matched = usize::try_from(progress.match_index.get()).expect("logs are short");
            peer.durable.term > node.raft.term() || peer.durable_log.get(..matched) == node.log.get(..matched)
        })
    })
}
