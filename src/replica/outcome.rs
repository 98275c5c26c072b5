//! What comes out of the core: entries to apply, answers, news.

use crate::raft::{
    Entry, EntryKind, Input, LogId, Membership, NodeId, Output, RaftEvent, ReadRefusal, RoleName,
    SnapshotMeta, Withdrawal,
};
use crate::replica::api::{ClientError, ClientReply, StorageRequest};
use crate::replica::message::PeerMessage;
use crate::replica::notice::Notice;
use crate::replica::proposal;
use crate::replica::reads::{Asker, Wanted};
use crate::replica::replica::{PendingChange, READ_RETRY_MICROS, Replica};
use crate::replica::requests::refusal_after;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

impl Replica {
    /// Takes in one output of the core: messages and writes first, then events, then entries.
    pub(super) fn carry_out(&mut self, output: Output) {
        self.actions.messages.extend(output.messages.into_iter().map(PeerMessage::Raft));
        if let Some(write) = output.write {
            self.disk_pace.issued(self.now, write.sequence());
            self.actions.storage.push(StorageRequest::Write(write));
        }
        self.actions.storage.extend(output.snapshot_reads.into_iter().map(StorageRequest::ReadChunk));
        self.actions.wake_at = output.wake_at;
        for event in output.events {
            self.handle_raft_event(event);
        }
        for ready in output.reads {
            self.reads.confirmed(ready.id, ready.index);
        }
        self.apply(&output.committed);
        self.serve_reads();
    }

    fn handle_raft_event(&mut self, event: RaftEvent) {
        match event {
            RaftEvent::RoleChanged { role, hint } => {
                if role == RoleName::Leader {
                    self.put_off_hand_over();
                }
                if hint.leader.is_some() {
                    self.reads.retry_now();
                }
                // A leader that merely gave up has not handed over.
                if hint.leader.is_some_and(|leader| leader != self.raft.id())
                    && let Some(transfer) = self.transfer.take()
                {
                    self.reply(transfer.request, transfer.done(hint.leader));
                }
                self.actions.notices.push(Notice::RoleChanged { role, term: hint.term, leader: hint.leader });
            }
            RaftEvent::MembershipChanged { membership, id, committed } => {
                self.note_membership(&membership, id, committed);
                if committed {
                    self.note_voters(&membership);
                }
                self.actions.notices.push(Notice::MembershipChanged { membership, committed });
            }
            RaftEvent::MembershipCommitted { membership, id } => {
                self.note_membership(&membership, id, true);
                self.note_voters(&membership);
                self.actions.notices.push(Notice::MembershipCommitted(membership));
            }
            RaftEvent::SnapshotUnmarked(_) => {}
            RaftEvent::ReadsRefused(questions) => {
                for question in questions {
                    let retry_at = self.now.plus(READ_RETRY_MICROS);
                    self.reads.refused(question, retry_at, ReadRefusal::NotLeading);
                }
            }
            RaftEvent::ReadsPutOff { reads, why } => {
                reads.into_iter().for_each(|question| self.reads.put_off(question, why));
            }
            RaftEvent::SnapshotInstalled(meta) => self.install(&meta),
            RaftEvent::Compacted { snapshot, .. } => {
                if snapshot > self.snapshot {
                    self.snapshot = snapshot;
                    self.policy.succeeded(snapshot);
                    self.actions.notices.push(Notice::SnapshotTaken(snapshot));
                }
            }
            RaftEvent::SnapshotWanted => self.policy.is_newer_wanted = true,
            RaftEvent::SnapshotNotTaken { peer, why, times } => {
                self.actions.notices.push(Notice::SnapshotNotTaken { peer, why, times });
            }
            RaftEvent::SnapshotRepeated { peer, times } => {
                self.actions.notices.push(Notice::SnapshotRepeated { peer, times });
            }
            RaftEvent::Withdrawn(why) => {
                self.refuse_all(why);
                self.actions.notices.push(Notice::Withdrawn(why.to_string()));
            }
            RaftEvent::PeerWithdrew { peer, why } => {
                self.actions.notices.push(Notice::PeerWithdrew { peer, why: why.to_string() });
            }
            RaftEvent::BadMessage { from, reason } => {
                self.actions.notices.push(Notice::BadMessage { from, reason: reason.to_string() });
            }
        }
    }

    /// This node has withdrawn. Nothing that waits is answered from its state any more: that may be
    /// wrong, and no news come.
    fn refuse_all(&mut self, why: Withdrawal) {
        let (queued, sent) = self.writes.give_up();
        for request in sent {
            self.fail(request, ClientError::Unknown);
        }
        let reads = self.reads.give_up().into_iter().filter_map(Asker::client);
        let others = self.watches.give_up().into_iter().chain(self.lease_calls.give_up());
        for request in queued.into_iter().chain(reads).chain(others).collect::<Vec<_>>() {
            self.fail(request, refusal_after(why));
        }
    }

    /// Answers the client that waits for a change of membership once the entry of that change is
    /// committed.
    fn note_membership(&mut self, membership: &Membership, id: LogId, committed: bool) {
        let Some(mut change) = self.change else { return };
        if change.entry.is_none() && !committed {
            change.entry = Some((id, membership.next_member_id));
        }
        self.change = Some(change);
        match change.entry {
            Some((entry, next)) if committed && entry == id => {
                self.change = None;
                let added = (change.next_member_id.get()..next.get()).map(NodeId::new).collect();
                self.reply(change.request, ClientReply::MembershipChanged(added));
            }
            Some((entry, _)) if entry.index == id.index && entry != id => self.replace_change(None),
            _ => {}
        }
    }

    /// A cluster that has most of its voters is made, even if an operator removes some later.
    fn note_voters(&mut self, membership: &Membership) {
        let has_them = |needed: usize| membership.voters.len() >= needed && !membership.is_joint();
        if self.founding.is_some_and(has_them) {
            self.founding = None;
        }
    }

    pub(super) fn replace_change(&mut self, change: Option<PendingChange>) {
        if let Some(earlier) = core::mem::replace(&mut self.change, change) {
            self.fail(earlier.request, ClientError::Unknown);
        }
    }

    /// Replaces the state by the content of a leader's snapshot, which is durable here.
    pub(super) fn install(&mut self, meta: &SnapshotMeta) {
        let (stored, store) =
            *self.installing.take().expect("the storage hands over the content with the receipt");
        assert_eq!(stored.last, meta.last, "one snapshot is installed at a time");
        if meta.last <= self.last_applied {
            return;
        }
        self.actions.replaced = Some(core::mem::replace(&mut self.store, store));
        self.agreement.forget();
        self.last_applied = meta.last;
        self.snapshot = meta.last;
        self.policy.begin_anew(&self.store);
        for request in self.writes.forget_sent() {
            self.fail(request, ClientError::Unknown);
        }
        self.note_answers();
        self.look_again();
        self.actions.notices.push(Notice::SnapshotInstalled(meta.last));
    }

    fn apply(&mut self, committed: &[Entry]) {
        for entry in committed {
            assert_eq!(
                entry.index(),
                self.last_applied.index.next(),
                "entries are applied in order, without a gap"
            );
            if entry.term() > self.last_applied.term {
                self.writes.lose_before(entry.term());
            }
            self.last_applied = entry.id();
            self.policy.log_bytes += entry.encoded_bytes() as u64;
            self.policy.log_entries += 1;
            match entry.kind() {
                EntryKind::Command => self.apply_command(entry),
                EntryKind::Level => self.apply_level(entry),
                EntryKind::Empty | EntryKind::Membership => {}
            }
            self.note_checkpoint();
            let term = entry.term();
            if term == self.raft.term()
                && self.raft.role() == RoleName::Leader
                && !self.lease_clock.runs_in(term)
            {
                self.lease_clock.begin(term, &self.store, self.now);
            }
        }
        if !committed.is_empty() {
            self.note_answers();
            self.serve_watches();
            self.input(Input::Applied(self.last_applied.index));
        }
    }

    fn apply_level(&mut self, entry: &Entry) {
        if let Some(level) = entry.level()
            && self.store.raise_level(level)
        {
            self.actions.notices.push(Notice::LevelRaised(level));
        }
    }

    fn apply_command(&mut self, entry: &Entry) {
        match proposal::decode(entry.data()) {
            Ok((id, command)) => {
                let outcome = self.store.apply(entry.term().get(), &command);
                self.note_leases(&command, &outcome);
                if id.origin == self.raft.id()
                    && id.incarnation == self.incarnation
                    && let Some(request) = self.writes.applied(id.sequence)
                {
                    self.reply(request, ClientReply::Written(outcome));
                }
            }
            // A leader checks what it proposes, so this is a leader's fault; skipping it is the
            // same on every replica.
            Err(_) => {
                let from = self.raft.leader_hint().leader.unwrap_or_else(|| self.raft.id());
                let reason = String::from("replicated a command that does not decode; it has no effect");
                self.actions.notices.push(Notice::BadMessage { from, reason });
            }
        }
    }

    fn serve_reads(&mut self) {
        for read in self.reads.servable(self.last_applied.index) {
            match (read.wanted, read.asker) {
                (Wanted::Query(query), Asker::Client(request)) => self.answer_query(request, read.by, &query),
                (Wanted::Barrier, Asker::Client(request)) => self.reply(request, ClientReply::UpToDate),
                (Wanted::Lease { lease, renew }, asker) => {
                    self.serve_lease(asker, read.by, (lease, renew), (read.asked, read.asked_in));
                }
                (Wanted::Right(command), Asker::Client(request)) => {
                    self.judge_again(request, read.deadline, command);
                }
                // Other members and their clients ask for leases alone.
                (Wanted::Query(_) | Wanted::Barrier | Wanted::Right(_), _) => {}
            }
        }
    }
}
