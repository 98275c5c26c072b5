//! Requests to machines and their answers: of clients, of the operator, and of the probes of the
//! last phase.

use crate::checks::clients::Seen;
use crate::checks::keyspace::callers::OPERATOR_IS;
use crate::checks::shown::Known;
use crate::queue::event::SimEvent;
use crate::queue::machine::{Asker, Process};
use crate::queue::simulation::Simulation;
use crate::record::violation::{Violation, check};
use crate::schedule::{CALM_MICROS, MILLI, SECOND};
use bytes::Bytes;
use infinitystore::kv::{Command, Op};
use infinitystore::raft::{Change, Raft, RoleName};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Event, Level, RequestId};

/// Keys are no longer than this.
const KEY_BYTES_MAX: u64 = 16;

impl Simulation {
    pub(super) fn plan_client(&mut self, client: usize) {
        if let Some((at, _)) = self.clients.next(client)
            && self.now < self.schedule.duration_micros + CALM_MICROS
        {
            self.queue.plan(at.max(self.now + MILLI), SimEvent::ClientNext(client));
        }
    }

    pub(super) fn client_next(&mut self, client: usize) -> Result<(), Violation> {
        let Some((at, slot)) = self.clients.next(client) else { return Ok(()) };
        if at > self.now {
            self.plan_client(client);
            return Ok(());
        }
        if self.machines[slot].process.is_none() {
            self.clients.skip(client);
            self.plan_client(client);
            return Ok(());
        }
        let (request, body) = self.clients.send(client, self.now, self.trace.timeline());
        let timeout = self.schedule.settings.client_timeout_micros;
        let give_up = SimEvent::ClientGivesUp { client, request };
        let patience = timeout + timeout / 4 + 4 * self.schedule.settings.settle_max_micros;
        self.queue.plan(self.now + patience, give_up);
        let write = matches!(body, ClientRequest::Write(_));
        let bytes = self.held_bytes(slot);
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let waits = |process: &Process| {
            process
                .askers
                .values()
                .filter(|asker| matches!(asker, Asker::Operator | Asker::Keyspace { .. }))
                .count()
        };
        let besides = processes.map(waits).sum();
        self.service.asked(self.now, request, slot, write, bytes, besides);
        self.ask(slot, request, Asker::Client(client), body, timeout)
    }

    /// Bytes of writes that a machine holds when it is asked for one more, at most.
    fn held_bytes(&self, slot: usize) -> u64 {
        let process = self.machines[slot].process.as_ref();
        let each = self.schedule.settings.value_bytes as u64 + KEY_BYTES_MAX;
        let others = process.into_iter().flat_map(|process| process.askers.values());
        let held = others.map(|asker| match asker {
            Asker::Keyspace { bytes, .. } => *bytes,
            _ => each,
        });
        held.sum::<u64>() + each
    }

    /// A machine's process is asked.
    pub(super) fn ask(
        &mut self,
        slot: usize,
        id: RequestId,
        asker: Asker,
        request: ClientRequest,
        timeout_micros: u64,
    ) -> Result<(), Violation> {
        let deadline = self.machines[slot].time(self.now).plus(timeout_micros);
        let by = match asker {
            Asker::Keyspace { by, .. } => by,
            _ => self.schedule.users.then_some(OPERATOR_IS),
        };
        let given = request.clone();
        let request = match request {
            ClientRequest::Write(command) => ClientRequest::Write(Command { by, ..command }),
            request => request,
        };
        self.note_asked(slot, id, (by, &request), deadline);
        let is_local =
            matches!(request, ClientRequest::Read { level: Level::Local, .. } | ClientRequest::Watch(_));
        if !is_local {
            self.service.asking(matches!(request, ClientRequest::Write(_)));
        }
        if let Some(process) = &mut self.machines[slot].process {
            self.asked_at.insert(id, self.now);
            process.askers.insert(id, asker);
            if matches!(request, ClientRequest::Write(_)) {
                process.writes_waiting.insert(id);
            }
            if process.replica.is_removed() && !is_local {
                process.asked_in_vain.insert(id);
            }
            let raft = process.replica.raft();
            let committed = self.checks.committed_through().max(raft.commit_index());
            self.checks.ledger.asked(id, raft.id(), (by, &request), process.replica.last_applied().index);
            self.checks.orders.asked(id, &request, committed, raft.term());
            if hands_over(raft, &request) {
                self.checks.orders.must_hand_over(id);
            }
        }
        self.give(slot, Event::Client { id, deadline, by, request: given })
    }

    /// A client has waited long enough.
    pub(super) fn no_answer(&mut self, client: usize, request: RequestId) -> Result<(), Violation> {
        let within = self.schedule.settings.client_timeout_micros;
        self.service.answered(self.now, request, None, within)?;
        if self.clients.give_up(client, request) {
            self.plan_client(client);
        }
        Ok(())
    }

    pub(super) fn reply(
        &mut self,
        slot: usize,
        request: RequestId,
        reply: &ClientReply,
    ) -> Result<(), Violation> {
        let Some(process) = &mut self.machines[slot].process else { return Ok(()) };
        let asker = process.askers.remove(&request);
        let took = self.now - self.asked_at.remove(&request).unwrap_or(self.now);
        self.figures.answered(asker.as_ref().map_or("?", Asker::name), reply, took);
        process.writes_waiting.remove(&request);
        check!(
            "an answer is given once",
            asker.is_some(),
            "machine {slot} answers {request:?} with {reply:?}"
        );
        if process.asked_in_vain.remove(&request) {
            check!(
                "a removed member says so",
                matches!(reply, ClientReply::Failed(error) if !matches!(error, ClientError::NoQuorum | ClientError::Unknown)),
                "machine {slot} knew that it was removed when it was asked, and answers {reply:?}"
            );
        }
        let applied = process.replica.last_applied().index;
        let is_repeated = self.checks.ledger.answered(request, reply, applied)?;
        self.check_keyspace_answer(slot, request, reply)?;
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let committed = self.checks.committed_through();
        self.checks.orders.answered(request, reply, &process.replica, committed)?;
        check!(
            "leadership goes to voters alone",
            !self.operator.absurd.remove(&request) || matches!(reply, ClientReply::Failed(_)),
            "machine {slot} was asked to hand over to itself, a learner or nobody, and answers {reply:?}"
        );
        self.judge_order(slot, request, reply)?;
        match asker {
            Some(Asker::Client(client)) => {
                self.mark_answer(slot, reply);
                let within = self.schedule.settings.client_timeout_micros;
                if self.service.answered(self.now, request, Some(reply), within)? {
                    self.mark("write survived a failover");
                }
                self.trace.line(self.now, Some(slot), "answer", format_args!("client {client}: {reply:?}"));
                if self.clients.answer(client, request, &Seen::from(reply), self.now, self.trace.timeline()) {
                    self.plan_client(client);
                }
            }
            Some(Asker::Probe) => {
                match reply {
                    ClientReply::Written(_) => self.wrote.insert(slot),
                    ClientReply::Answer(_) => self.read.insert(slot),
                    _ => false,
                };
            }
            Some(Asker::Keyspace { client, .. }) => {
                self.answer_keyspace(slot, (client, request), reply, is_repeated)?;
            }
            Some(Asker::Operator) | None => {}
        }
        Ok(())
    }

    /// An answer to the operator's order.
    fn judge_order(&mut self, slot: usize, request: RequestId, reply: &ClientReply) -> Result<(), Violation> {
        check!(
            "a change for another configuration is refused",
            !self.operator.stale.remove(&request)
                || matches!(reply, ClientReply::Failed(error) if !matches!(error, ClientError::NotLeader(_))),
            "machine {slot} was asked for a change of another configuration, and answers {reply:?}"
        );
        let Some(removed) = self.operator.removals.remove(&request) else { return Ok(()) };
        if matches!(reply, ClientReply::Failed(ClientError::NotLeader(_))) {
            self.mark("leader handed over before it was removed");
            self.operator.handed_over.insert(removed);
        }
        Ok(())
    }

    /// Asks machines, now and then, for what they have themselves, and whether they are up to date;
    /// and holds what they show of themselves against the committed log.
    pub(super) fn look_around(&mut self) -> Result<(), Violation> {
        for slot in 0..self.machines.len() {
            let machine = &self.machines[slot];
            let Some(process) = machine.process.as_ref().filter(|_| machine.paused_until <= self.now) else {
                continue;
            };
            let status = process.replica.status(machine.time(self.now));
            let known = Known {
                shown: &process.shown,
                is_settled: !process.settle_planned,
                speaks: machine.speaks,
                now: machine.time(self.now),
                asked: process.askers.len(),
                election_timeout_micros: self.schedule.settings.election_timeout_micros,
            };
            self.checks.shows(&process.replica, &status, known)?;
            if let Some(age) = process.replica.silent_micros(machine.time(self.now)) {
                self.freshness.judge(slot, self.now, age, process.replica.last_applied().index)?;
            }
            let key = Bytes::from(format!("key{}", self.questions % u64::from(self.schedule.settings.keys)));
            let id = self.fresh_request();
            self.ask(slot, id, Asker::Operator, ClientRequest::read(key, Level::Local), MILLI)?;
            if self.questions.is_multiple_of(7) {
                let id = self.fresh_request();
                self.ask(slot, id, Asker::Operator, ClientRequest::Barrier, SECOND)?;
            }
        }
        Ok(())
    }

    fn mark_answer(&mut self, slot: usize, reply: &ClientReply) {
        let process = self.machines[slot].process.as_ref();
        let leads = process.is_some_and(|process| process.replica.raft().role() == RoleName::Leader);
        match reply {
            ClientReply::Failed(ClientError::Overloaded) => self.mark("write refused for want of room"),
            ClientReply::Answer(_) if !leads => self.mark("read answered by a follower"),
            ClientReply::Written(_) if !leads => self.mark("write answered by a follower"),
            ClientReply::Failed(ClientError::Unknown) => self.mark("write unknown"),
            _ => {}
        }
    }

    /// Asks every machine that has not answered yet to write something, and to read.
    pub(super) fn probe(&mut self) -> Result<(), Violation> {
        for slot in 0..self.machines.len() {
            if self.machines[slot].process.is_none() {
                continue;
            }
            let key = Bytes::from_static(b"probe");
            if !self.read.contains(&slot) {
                let read = ClientRequest::read(key.clone(), Level::Linearizable);
                let id = self.fresh_request();
                self.ask(slot, id, Asker::Probe, read, 3_000 * MILLI)?;
            }
            if !self.wrote.contains(&slot) {
                let op = Op::set(key, Bytes::from_static(b"alive"));
                let id = self.fresh_request();
                self.ask(slot, id, Asker::Probe, ClientRequest::write(op), 3_000 * MILLI)?;
            }
        }
        Ok(())
    }
}

/// Whether a leader that is asked to remove itself has to hand over first.
fn hands_over(raft: &Raft, request: &ClientRequest) -> bool {
    let ClientRequest::ChangeMembership(order) = request else { return false };
    let Change::Remove { members } = &order.change else { return false };
    members.contains(&raft.id()) && raft.judge_change(order).is_ok() && raft.successor(members).is_some()
}
