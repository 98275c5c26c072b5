//! What a machine may hold, and rules whose breach seldom shows: the engine looks at these
//! directly.

use crate::hardware::disk::SimDisk;
use crate::machines::replica_config;
use crate::queue::machine::{LAGGARD_TIMES, Process};
use crate::queue::simulation::Simulation;
use crate::record::violation::{Violation, check};
use crate::schedule::{MILLI, STALL_MICROS};
use infinitystore::raft::{LogId, NodeId, RoleName};
use infinitystore::replica::{ClientRequest, Notice, RequestId, StorageEvent, StorageRequest};
use infinitystore::storage::SnapshotFiles;

/// Once in this many questions, a leader is asked to hand over to a node that cannot lead.
const ABSURD: u64 = 5;

impl Process {
    /// Whether the last chunk of a snapshot is with the storage, so that the log is about to be
    /// replaced.
    pub(super) fn installs(&self) -> bool {
        let is_last = |request: &StorageRequest| {
            let StorageRequest::Write(write) = request else { return false };
            write.records().snapshot_chunks.last().is_some_and(|chunk| chunk.done)
        };
        self.queue.iter().chain(&self.batch).any(is_last)
    }
}

impl Simulation {
    /// A node does not stand for election while a snapshot is about to replace its log.
    pub(super) fn check_install(&self, slot: usize) -> Result<(), Violation> {
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let role = process.replica.raft().role();
        check!(
            "no campaign while the log is being replaced",
            role == RoleName::Follower || !process.installs(),
            "machine {slot} is {role:?} while it writes the last chunk of a snapshot"
        );
        Ok(())
    }

    /// A leader that looks at the clock notices that its disk hangs, even if other writes wait.
    pub(super) fn check_stall(&self, slot: usize) -> Result<(), Violation> {
        let machine = &self.machines[slot];
        let Some(process) = machine.process.as_ref().filter(|process| process.busy) else { return Ok(()) };
        let writes = process.batch.iter().any(|request| matches!(request, StorageRequest::Write(_)));
        let since = machine.time(self.now).since(process.busy_since);
        let leads = process.replica.raft().role() == RoleName::Leader;
        check!(
            "a leader whose disk hangs steps down",
            !(leads && writes && since > STALL_MICROS + MILLI),
            "machine {slot} leads on although its disk has been at the same write for {since} µs"
        );
        Ok(())
    }

    /// After a start nothing is there that a crash has left unfinished.
    pub(super) fn check_directory(&self, slot: usize) -> Result<(), Violation> {
        let names = self.machines[slot].disk.names();
        let unfinished = names.iter().find(|name| name.ends_with(".tmp") && !name.contains(".seg"));
        check!("a start clears up", unfinished.is_none(), "machine {slot} has started, with {names:?}");
        let torn = names.iter().filter(|name| name.contains(".torn-")).count();
        let most = self.schedule.settings.torn_files_max;
        check!(
            "a few torn tails are kept",
            most == 0 || torn <= most,
            "machine {slot} has started, and keeps {torn} of {names:?}"
        );
        Ok(())
    }

    /// One snapshot is saved at a time, and one arrives.
    pub(super) fn check_temporaries(&self, slot: usize) -> Result<(), Violation> {
        let machine = &self.machines[slot];
        if machine.process.as_ref().is_none_or(|process| process.names_failed) {
            return Ok(());
        }
        let Some(names) = machine.disk.changed_names() else { return Ok(()) };
        // A save is through at once here, or has failed.
        for (kind, most) in [("incoming-", 1), ("save-", 0)] {
            let count = names.iter().filter(|name| name.starts_with(kind)).count();
            check!("nothing unfinished is left", count <= most, "machine {slot} holds {names:?}");
        }
        Ok(())
    }

    /// The log in memory keeps to its bound. Only entries that are not applied or not durable go
    /// beyond it, and while a member catches up the bound is a few times as much.
    pub(super) fn check_log(&self, slot: usize) -> Result<(), Violation> {
        let most = LAGGARD_TIMES * self.schedule.settings.log_bytes_max;
        let Some(process) = self.machines[slot].process.as_ref().filter(|_| most > 0) else { return Ok(()) };
        let (held, needed) = process.replica.raft().log_bytes();
        check!(
            "the log in memory keeps to its bound",
            held <= most + needed,
            "machine {slot} holds {held} bytes, of which it needs {needed}; {most} are the bound"
        );
        Ok(())
    }

    /// A leader has no more bytes of snapshots in flight than it may, however many members get one:
    /// each has a chunk at least.
    pub(super) fn check_chunks(&mut self, slot: usize) -> Result<(), Violation> {
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let in_flight = process.replica.raft().progress().map(|peer| peer.snapshot_bytes_inflight);
        let in_flight: Vec<u64> = in_flight.filter(|bytes| *bytes > 0).collect();
        let (count, bytes) = (in_flight.len() as u64, in_flight.iter().sum::<u64>());
        if count == 0 {
            return Ok(());
        }
        let config = replica_config(&self.schedule.settings).raft;
        let (chunk, most) = (config.snapshot_chunk_bytes, config.snapshot_inflight_bytes_max);
        check!(
            "chunks in flight keep to their bound",
            bytes <= most.max(chunk) + (count - 1) * chunk,
            "machine {slot} has {in_flight:?} bytes of snapshots in flight; {most} are the bound"
        );
        if in_flight.iter().any(|bytes| *bytes > chunk) {
            self.mark("several chunks in flight");
        }
        if count > 1 {
            self.mark("snapshots to several members at once");
        }
        Ok(())
    }

    /// A snapshot is taken when the log has grown by as much as is configured, and not before. A
    /// leader may take one early: a member may need it, or the newest may be damaged. So may a node
    /// after a save that failed.
    pub(super) fn check_need(&mut self, slot: usize, requests: &[StorageRequest]) -> Result<(), Violation> {
        let due = self.schedule.settings.snapshot_log_entries;
        let Some(process) = &mut self.machines[slot].process else { return Ok(()) };
        let applied = process.replica.last_applied().index;
        let (since, excused) = &mut process.last_snapshot;
        *excused |= process.replica.raft().role() == RoleName::Leader || process.saves_failed > 0;
        let saves = |request: &StorageRequest| matches!(request, StorageRequest::SaveSnapshot(_));
        if requests.iter().any(saves) {
            let grown = applied.since(*since);
            check!(
                "a snapshot is taken when it is due",
                *excused || grown >= due,
                "machine {slot} takes one at {applied}, {grown} entries after the one before; {due} are configured"
            );
            process.last_snapshot = (applied, false);
        }
        Ok(())
    }

    /// A leader's snapshot has replaced the log.
    pub(super) fn note_snapshots(&mut self, slot: usize, notices: &[Notice]) {
        let Some(process) = &mut self.machines[slot].process else { return };
        for notice in notices {
            if let Notice::SnapshotInstalled(last) = notice {
                process.last_snapshot = (last.index, false);
            }
        }
    }

    /// What a member holds at rest for a client that waits, or for something under way; `None`: no
    /// member holds anything.
    pub(super) fn held_at_rest(&self) -> Option<String> {
        let leader = self.leader()?;
        let membership = self.machines[leader].process.as_ref()?.replica.membership();
        for slot in membership.members.keys().filter_map(|id| self.hosts.get(id)) {
            let process = self.machines[*slot].process.as_ref()?;
            if process.disk_full {
                return Some(format!("machine {slot} takes its disk for full"));
            }
            if let Some((what, count)) = process.replica.held().iter().find(|(_, count)| *count > 0) {
                return Some(format!("machine {slot} has {what}: {count}"));
            }
        }
        None
    }

    /// A file that was written well, and that nothing has happened to since, can be read.
    pub(super) fn check_read(
        &self,
        slot: usize,
        last: LogId,
        answer: &StorageEvent,
    ) -> Result<(), Violation> {
        let machine = &self.machines[slot];
        let StorageEvent::ChunkRead { chunk: Err(unread), .. } = answer else { return Ok(()) };
        let is_sound = machine.process.as_ref().is_some_and(|process| process.saved == Some(last))
            && machine.disk.has_file(&SnapshotFiles::<SimDisk>::file_name(last))
            && !machine.disk.is_troubled();
        check!("a sound snapshot can be read", !is_sound, "machine {slot}: {unread:?}");
        Ok(())
    }

    /// Asks the leader, now and then, to hand over to a node that cannot lead.
    pub(super) fn ask_absurdly(&mut self) -> Result<(), Violation> {
        if self.calm || !self.questions.is_multiple_of(ABSURD) {
            return Ok(());
        }
        let Some(leader) = self.leader().filter(|leader| self.machines[*leader].paused_until <= self.now)
        else {
            return Ok(());
        };
        let Some(process) = &self.machines[leader].process else { return Ok(()) };
        let raft = process.replica.raft();
        let membership = raft.membership();
        let learner = membership.learners.keys().next().copied().unwrap_or(membership.next_member_id);
        let choices = [learner, learner, raft.id(), NodeId::new(u64::MAX - 1)];
        let to = choices[usize::try_from(self.questions / ABSURD % 4).unwrap_or(0)];
        self.mark("asked to hand over to a node that cannot lead");
        self.operator.absurd.insert(RequestId(u64::MAX - self.questions - 1));
        self.ask_leader(ClientRequest::TransferLeadership(Some(to)))
    }
}
