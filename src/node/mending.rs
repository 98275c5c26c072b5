//! Answers a node that repairs its data directory: entries out of the log in memory, chunks of
//! snapshots off the driver's task, and where the log of a leader ends.

use crate::node::driver::Driver;
use crate::node::storage_workers::SnapshotJob;
use crate::peer::mending::{MendCall, MendReply, MendWants, PAGE_BYTES};
use crate::raft::{Entry, LogId, LogIndex, RoleName, Term};
use crate::runtime::Env;
use tokio::sync::oneshot;

/// Bytes of a snapshot in one answer.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;

impl<E: Env> Driver<E> {
    /// Answers, or has it answered.
    pub(super) fn mend(&mut self, call: MendCall, reply: oneshot::Sender<MendReply>) {
        let answer = match self.refusal(&call) {
            Some(refusal) => refusal,
            None => match call.wants {
                MendWants::Entries { after, through, anchor } => self.entries(after, through, anchor),
                MendWants::Chunk { snapshot, offset } => {
                    let snapshot = snapshot.unwrap_or_else(|| self.replica.snapshot());
                    if snapshot == LogId::ZERO {
                        MendReply::Refused("there is no snapshot here yet".to_owned())
                    } else {
                        let bytes_max = CHUNK_BYTES;
                        let job = SnapshotJob::Mend { snapshot, offset, bytes_max, reply };
                        self.snapshots.reads.push_all(&mut vec![job]);
                        return;
                    }
                }
                MendWants::Leader => self.leads(None),
            },
        };
        let _ = reply.send(answer);
    }

    /// Where this leader's log ends; `term`: if it has led in that term all the time.
    pub(super) fn leads(&self, term: Option<Term>) -> MendReply {
        let raft = self.replica.raft();
        if raft.role() == RoleName::Leader && term.is_none_or(|term| term == raft.term()) {
            return MendReply::Leads { end: raft.last_log() };
        }
        let leader = raft.leader_hint().leader.filter(|leader| *leader != raft.id());
        MendReply::Elsewhere { leader: leader.and_then(|leader| self.address_book.address(leader)) }
    }

    /// Why a caller gets nothing.
    fn refusal(&self, call: &MendCall) -> Option<MendReply> {
        let refused = |why| Some(MendReply::Refused(why));
        let (cluster, _) = self.place;
        let membership = self.replica.membership();
        if self.adoption.is_some() || self.stopping.is_some() {
            return refused("this node is moving or stopping".to_owned());
        }
        if let Some(why) = self.replica.raft().withdrawn() {
            return refused(format!("this member takes no part itself: {why}"));
        }
        let of = call.caller.map(|caller| caller.cluster).or(call.cluster);
        if let Some(other) = of.filter(|of| *of != cluster) {
            return refused(format!("this node is of cluster {cluster}, the caller of {other}"));
        }
        // Anybody may ask who leads, so that it can join.
        let asks = matches!(call.wants, MendWants::Leader);
        let Some(caller) = call.caller else {
            return if asks {
                None
            } else {
                refused("the caller does not say which member it is".to_owned())
            };
        };
        let raft = self.replica.raft();
        let is_removed = || raft.membership_at(raft.commit_index()).0.proves_removed(caller.member);
        match membership.members.get(&caller.member) {
            Some(member) if member.store_id != caller.store => {
                refused(format!("member {} has another store now: the caller was replaced", caller.member))
            }
            None if is_removed() => Some(MendReply::Removed { told_by: raft.id() }),
            None if membership.proves_removed(caller.member) => {
                refused(format!("member {} is about to be removed from the cluster", caller.member))
            }
            // It may be newer than what this node has heard: it asks another one.
            None if !asks => refused(format!("this node knows of no member {}", caller.member)),
            Some(_) | None => None,
        }
    }

    fn entries(&mut self, after: LogIndex, through: LogIndex, anchor: LogId) -> MendReply {
        let raft = self.replica.raft();
        let last = raft.last_log();
        let has_anchor = match raft.term_at(anchor.index) {
            Some(term) => term == anchor.term,
            // Below the log's beginning in memory: it is not known any more.
            None => false,
        };
        let is_compacted = raft.term_at(anchor.index).is_none() && anchor.index <= last.index;
        if !has_anchor && !is_compacted {
            return MendReply::Lacks { last };
        }
        if has_anchor && raft.term_at(after).is_some() {
            return MendReply::Entries(encode_entries(raft.log_range(after, through.min(anchor.index))));
        }
        let snapshot = self.replica.snapshot();
        // What has left memory is applied: a snapshot of the state as it is now covers it.
        if snapshot.index < anchor.index {
            self.replica.want_snapshot();
        }
        MendReply::Gone { snapshot: Some(snapshot).filter(|id| *id != LogId::ZERO), has_anchor }
    }
}

/// Entries as they travel: the first ones, as many as an answer may have.
pub(super) fn encode_entries<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let is_full = bytes.len() as u64 + entry.encoded().len() as u64 > PAGE_BYTES;
        if is_full && !bytes.is_empty() {
            break;
        }
        bytes.extend_from_slice(entry.encoded());
    }
    bytes
}
