//! Messages, writes and memberships in words, for transcripts.

use crate::raft::{Body, Entry, EntryKind, LogRecords, Membership, Message, NodeId, Promotion};

pub(super) fn message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    format!("{from}->{to} t{term} {}", self::body(body))
}

fn body(body: &Body) -> String {
    match body {
        Body::PreVote { campaign_term, last_log } => format!("PreVote for {campaign_term}, log {last_log}"),
        Body::PreVoteGranted { campaign_term } => format!("PreVoteGranted for {campaign_term}"),
        Body::PreVoteRejected { campaign_term } => format!("PreVoteRejected for {campaign_term}"),
        Body::RequestVote { last_log, transfer } => {
            format!("RequestVote log {last_log}{}", if *transfer { ", transfer" } else { "" })
        }
        Body::AppendEntries { session, prev, entries, commit, round, .. } => {
            let list = self::entries(entries);
            let round = if round.get() > 0 { format!(" round {round}") } else { String::new() };
            format!("Append s{session} after {prev} [{list}] commit {commit}{round}")
        }
        Body::Withdrawn(why) => format!("Withdrawn: {why:?}"),
        Body::AppendAccepted { session, match_index, round, .. } => {
            let round = if round.get() > 0 { format!(" round {round}") } else { String::new() };
            format!("Accepted s{session} match {match_index}{round}")
        }
        Body::AppendRejected { session, rejected, hint, round, .. } => {
            let round = if round.get() > 0 { format!(" round {round}") } else { String::new() };
            format!("Rejected s{session} prev {rejected}, hint {hint}{round}")
        }
        Body::Heard { round, .. } => format!("Heard {round}"),
        Body::InstallSnapshot { session, snapshot, offset, data, done } => {
            let end = offset + data.len() as u64;
            let done = if *done { ", done" } else { "" };
            format!(
                "InstallSnapshot s{session} {} bytes {offset}..{end} of {}{done}",
                snapshot.last, snapshot.bytes
            )
        }
        Body::SnapshotProgress { session, snapshot, next_offset, is_lacking } => {
            let lacking = if *is_lacking { ", lacking" } else { "" };
            format!("SnapshotProgress s{session} {snapshot} next {next_offset}{lacking}")
        }
        Body::SnapshotInstalled { session, match_index } => {
            format!("SnapshotInstalled s{session} match {match_index}")
        }
        Body::SnapshotRefused { session, snapshot, why } => {
            format!("SnapshotRefused s{session} {snapshot}: {why}")
        }
        Body::ReadIndex { incarnation, sequence } => format!("ReadIndex {incarnation}.{sequence}"),
        Body::ReadIndexReady { incarnation, sequence, index } => {
            format!("ReadIndexReady {incarnation}.{sequence} at {index}")
        }
        Body::ReadIndexRefused { incarnation, sequence, why } => {
            format!("ReadIndexRefused {incarnation}.{sequence}: {why:?}")
        }
        Body::VoteGranted | Body::VoteRejected | Body::TimeoutNow => format!("{body:?}"),
    }
}

pub(super) fn records(records: &LogRecords) -> String {
    let LogRecords { hard_state, truncate_from, snapshot_chunks, snapshot, entries } = records;
    let mut parts = Vec::new();
    if let Some(state) = hard_state {
        let vote = state.voted_for.map_or(String::from("none"), |id| id.to_string());
        parts.push(format!("term {} vote {vote}", state.term));
    }
    if let Some(from) = truncate_from {
        parts.push(format!("truncate from {from}"));
    }
    for chunk in snapshot_chunks {
        let end = chunk.offset + chunk.data.len() as u64;
        parts.push(format!("chunk {} bytes {}..{end}", chunk.snapshot.last, chunk.offset));
    }
    if let Some(meta) = snapshot {
        parts.push(format!("snapshot {}", meta.last));
    }
    if !entries.is_empty() {
        parts.push(format!("entries {}", self::entries(entries)));
    }
    parts.join(", ")
}

pub(super) fn entries(entries: &[Entry]) -> String {
    let words: Vec<String> = entries.iter().map(entry).collect();
    words.join(" ")
}

/// `index@term`, with `=data` for a command and a letter for the other kinds.
fn entry(entry: &Entry) -> String {
    match entry.kind() {
        EntryKind::Empty => format!("{}.", entry.id()),
        EntryKind::Membership => format!("{}m", entry.id()),
        EntryKind::Level => format!("{}l", entry.id()),
        EntryKind::Command => format!("{}={}", entry.id(), String::from_utf8_lossy(&entry.data())),
    }
}

pub(super) fn membership(membership: &Membership) -> String {
    let list =
        |ids: &mut dyn Iterator<Item = &NodeId>| ids.map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!("voters {}", list(&mut membership.voters.iter()));
    if let Some(outgoing) = &membership.outgoing {
        text += &format!(", outgoing {}", list(&mut outgoing.iter()));
    }
    for (id, promotion) in &membership.learners {
        text += &format!(", learner {id}");
        let Promotion::WhenCaughtUp { replaces, together } = promotion else { continue };
        if !together.is_empty() {
            text += &format!(" with {}", list(&mut together.iter()));
        }
        if !replaces.is_empty() {
            text += &format!(" for {}", list(&mut replaces.iter()));
        }
    }
    text
}
