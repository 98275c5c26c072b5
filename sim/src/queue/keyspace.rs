//! Clients of the keyspace at work, and what is looked at for their sake.

use crate::checks::keyspace::clients::{Wish, patience};
use crate::queue::event::SimEvent;
use crate::queue::machine::Asker;
use crate::queue::simulation::Simulation;
use crate::record::violation::{Violation, check};
use crate::schedule::{CALM_MICROS, MILLI};
use infinitystore::kv::{LeaseId, Op, Principal};
use infinitystore::raft::{RoleName, Time};
use infinitystore::replica::{ClientReply, ClientRequest, RequestId, decode_proposal};

/// A lease whose time is longer is not waited for at the end.
const SHORT_SECONDS: u64 = 10;

impl Simulation {
    pub(super) fn plan_keyspace(&mut self, client: usize) {
        if let Some(at) = self.keyspace.next(client)
            && self.now < self.schedule.duration_micros + CALM_MICROS
        {
            self.queue.plan(at.max(self.now + MILLI), SimEvent::KeyspaceNext(client));
        }
    }

    pub(super) fn keyspace_next(&mut self, client: usize) -> Result<(), Violation> {
        let Some(at) = self.keyspace.next(client) else { return Ok(()) };
        if at > self.now {
            self.plan_keyspace(client);
            return Ok(());
        }
        let wishes = self.keyspace.wishes(client, self.checks.ledger.model());
        let mut is_asked = false;
        for wish in wishes {
            if self.machines[wish.slot].process.is_some() {
                is_asked = true;
                self.send_wish(client, wish)?;
            }
        }
        if !is_asked {
            self.plan_keyspace(client);
        }
        Ok(())
    }

    fn send_wish(&mut self, client: usize, wish: Wish) -> Result<(), Violation> {
        let timeout = wish.timeout_micros.unwrap_or(self.schedule.settings.client_timeout_micros);
        let (slot, request) = (wish.slot, wish.request.clone());
        let process = self.machines[slot].process.as_ref();
        let applied = process.map_or(0, |process| place(process.replica.last_applied().index.get()));
        let by = self.keyspace.principal(client, wish.caller, self.checks.ledger.model(), applied);
        self.trace.line(self.now, Some(slot), "asked", format_args!("keyspace client {client}: {request:?}"));
        let bytes = match &request {
            ClientRequest::Write(command) => 2 * command.bytes() as u64 + 256,
            _ => 0,
        };
        let id = self.keyspace.sent(client, wish);
        let patience = patience(timeout) + 4 * self.schedule.settings.settle_max_micros;
        self.queue.plan(self.now + patience, SimEvent::KeyspaceGivesUp { client, request: id });
        self.ask(slot, id, Asker::Keyspace { client, bytes, by }, request, timeout)
    }

    /// A client of the keyspace has waited long enough. A process that runs has told it so before.
    pub(super) fn keyspace_no_answer(&mut self, client: usize, id: RequestId) -> Result<(), Violation> {
        let quiet = 2 * self.schedule.settings.settle_max_micros + 10 * MILLI;
        let holds = |machine: &&crate::queue::machine::ReplicaHost| {
            machine.process.as_ref().is_some_and(|process| process.askers.contains_key(&id))
        };
        if let Some(machine) = self.machines.iter().find(holds) {
            check!(
                "a client whose time is up is told so",
                machine.paused_until + quiet > self.now,
                "machine {} still holds {id:?} of keyspace client {client}",
                machine.slot
            );
        }
        self.checks.watching.forget(id);
        self.checks.leases.forget(id);
        if self.keyspace.gave_up(client, id) {
            self.plan_keyspace(client);
        }
        Ok(())
    }

    /// A machine is about to be asked.
    pub(super) fn note_asked(
        &mut self,
        slot: usize,
        id: RequestId,
        (by, request): (Option<Principal>, &ClientRequest),
        deadline: Time,
    ) {
        let Some(process) = &self.machines[slot].process else { return };
        let applied = place(process.replica.last_applied().index.get());
        match request {
            ClientRequest::Watch(query) => {
                self.watch_deadlines.insert(id, deadline);
                self.checks.watching.asked(id, slot, (by, query), applied);
            }
            ClientRequest::Lease { lease, renew } => {
                let committed = self.checks.ledger.model().applied();
                let clocks = self.clocks();
                self.checks.leases.asked(id, (*lease, *renew), by, committed, clocks);
            }
            _ => {}
        }
    }

    /// What the clock of each machine shows.
    pub(super) fn clocks(&self) -> Vec<Time> {
        self.machines.iter().map(|machine| machine.time(self.now)).collect()
    }

    /// An answer about a watch or a lease.
    pub(super) fn check_keyspace_answer(
        &mut self,
        slot: usize,
        id: RequestId,
        reply: &ClientReply,
    ) -> Result<(), Violation> {
        let machine = &self.machines[slot];
        let Some(process) = &machine.process else { return Ok(()) };
        let applied = place(process.replica.last_applied().index.get());
        let deadline = self.watch_deadlines.remove(&id);
        let is_due = deadline.is_some_and(|deadline| machine.time(self.now) >= deadline);
        let model = self.checks.ledger.model();
        let watched = self.checks.watching.answered(model, id, reply, applied, is_due)?;
        let leased = self.checks.leases.answered(model, id, reply)?;
        for met in watched.into_iter().chain(leased) {
            self.mark(met);
        }
        Ok(())
    }

    /// An answer for a client of the keyspace.
    pub(super) fn answer_keyspace(
        &mut self,
        slot: usize,
        (client, id): (usize, RequestId),
        reply: &ClientReply,
        is_repeated: bool,
    ) -> Result<(), Violation> {
        self.trace.line(self.now, Some(slot), "answer", format_args!("keyspace client {client}: {reply:?}"));
        if self.keyspace.answered(client, id, reply, is_repeated)? && self.keyspace.next(client).is_some() {
            self.plan_keyspace(client);
        }
        for met in self.keyspace.take_met() {
            self.mark(met);
        }
        Ok(())
    }

    /// A machine has been stepped: a leader proposes the ends of leases.
    pub(super) fn look_at_leases(&mut self, slot: usize) {
        if self.keyspace.is_empty() {
            return;
        }
        let time = self.machines[slot].time(self.now);
        let Some(process) = &mut self.machines[slot].process else { return };
        let raft = process.replica.raft();
        if raft.role() == RoleName::Leader {
            let (term, last) = (raft.term(), raft.last_log().index);
            self.checks.leases.elected(term.get(), slot, time);
            let from =
                process.proposed.filter(|(of, _)| *of == term).map_or(raft.log_base(), |(_, last)| last);
            process.proposed = Some((term, last));
            for entry in process.replica.raft().log_range(from, last) {
                if let Ok((_, command)) = decode_proposal(entry.data())
                    && let Op::Expire { term, leases } = &command.op
                    && *term == entry.term().get()
                {
                    self.checks.leases.proposed(*term, slot, time, leases);
                }
            }
        }
    }

    /// What has been committed since this was looked at last.
    pub(super) fn look_at_commits(&mut self) -> Result<(), Violation> {
        let (from, to) = (self.commits_seen + 1, self.checks.ledger.model().applied());
        if self.keyspace.is_empty() || from > to {
            return Ok(());
        }
        self.commits_seen = to;
        let clocks = self.clocks();
        let (mut ends, mut cuts) = (0, 0);
        for index in from..=to {
            let term = self.checks.committed_entries()[index - 1].term().get();
            let compacted = |index| self.checks.ledger.model().at(index).map_or(0, |sums| sums.compacted);
            cuts += u64::from(compacted(index) > compacted(index - 1));
            let (ledger, leases) = (&self.checks.ledger, &mut self.checks.leases);
            if let Some(done) = ledger.command(index) {
                ends += u64::from(leases.committed(ledger.model(), (index, term), done, &clocks)?);
            }
        }
        if cuts > 0 {
            self.mark("history cut short");
        }
        if ends > 0 {
            self.mark("lease ended by its leader");
        }
        Ok(())
    }

    /// Nobody waits at a machine for what it has applied.
    pub(super) fn look_at_watches(&mut self, slot: usize) -> Result<(), Violation> {
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let applied = place(process.replica.last_applied().index.get());
        self.checks.watching.stepped(self.checks.ledger.model(), slot, applied)
    }

    /// A lease that should have ended, at the end of a run.
    pub(super) fn lease_left(&self) -> Option<LeaseId> {
        let model = self.checks.ledger.model();
        let mut leases = model.leases_at(model.applied());
        leases.find(|lease| lease.ttl_seconds <= SHORT_SECONDS).map(|lease| lease.id)
    }
}

fn place(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
