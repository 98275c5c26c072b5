//! Clients of the keyspace at work, over HTTP.

use crate::checks::keyspace::callers::OPERATOR_IS;
use crate::madsim_engine::attendance::Due;
use crate::madsim_engine::http::{Answer, Http, NoAnswer, Request};
use crate::madsim_engine::keyspace::asked::{KeyspaceRequest, Question};
use crate::madsim_engine::keyspace::judge::judge;
use crate::madsim_engine::keyspace::wanted::{AtSending, Verdict};
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::{Shared, World};
use crate::record::violation::Violation;
use crate::schedule::MILLI;
use infinitystore::kv::Revision;
use infinitystore::raft::LogIndex;
use infinitystore::replica::ClientRequest;
use rand::Rng;
use rand::rngs::SmallRng;

#[cfg(test)]
mod tests;

/// A write of unknown outcome is repeated, and a scan goes on, at most so often.
const TRIES_MAX: usize = 6;

/// A client of the keyspace.
pub(in crate::madsim_engine) struct HttpClient {
    pub shared: Shared,
    pub rng: SmallRng,
    pub number: usize,
    /// The number of the certificate that it shows, where the port speaks TLS.
    pub certificate: Option<usize>,
    connection: Option<Http>,
}

impl HttpClient {
    pub(in crate::madsim_engine) const fn new(shared: Shared, rng: SmallRng, number: usize) -> Self {
        Self { shared, rng, number, certificate: None, connection: None }
    }

    pub(super) fn draw(&mut self, request: ClientRequest) -> Option<KeyspaceRequest> {
        let world = self.shared.lock();
        let model = world.checks.ledger.model();
        let revision_of = |key: &[u8]| model.get(key).map_or(0, |kv| kv.mod_revision.0);
        KeyspaceRequest::of(&mut self.rng, request, revision_of, model.now().revision)
    }

    /// Asks, and goes on with what the answer leads to: the next page, or another try.
    pub(super) async fn chain(&mut self, slot: usize, mut asked: KeyspaceRequest) {
        let slots = self.shared.lock().machines.len();
        let mut slot = slot;
        // Before it asks first.
        let seen = Revision(self.shared.lock().keyspace.newest);
        for _ in 0..TRIES_MAX {
            let verdict = self.ask(slot, &asked).await;
            if self.shared.lock().calm {
                return;
            }
            if self.rng.random() {
                slot = self.rng.random_range(0..slots);
            }
            asked = match (verdict, &asked.question) {
                (Some(Verdict::Page { cursor, resume, at, count }), Question::Range { query, .. }) => {
                    KeyspaceRequest::next_page(&mut self.rng, query, (resume, at, count), &cursor)
                }
                (
                    None | Some(Verdict::Refused { is_unknown: true, .. }),
                    Question::Write { name: Some(_), .. },
                ) => {
                    self.shared.lock().mark("write repeated under its idempotency key");
                    asked.said_since(seen)
                }
                _ => return,
            };
        }
    }

    /// Asks one thing of a machine, and judges the answer; `None`: there is none.
    pub(super) async fn ask(&mut self, slot: usize, asked: &KeyspaceRequest) -> Option<Verdict> {
        let wait = if let Question::Poll { micros, .. } = asked.question { micros } else { 0 };
        if !self.shared.lock().is_open(slot) {
            return None;
        }
        let (sent, due, answer) = self.send(slot, &asked.request, asked.steps, wait, Some(asked)).await?;
        let answered = answer.as_ref().ok().map(|answer| answer.code);
        let mut world = self.shared.lock();
        let world = &mut *world;
        let verdict = match answer {
            Ok(answer) => match judge(world, asked, &sent, &answer) {
                Ok(verdict) => verdict,
                Err(Violation { check, what }) => {
                    let (method, target) = (asked.request.method, &asked.request.target);
                    let what = format!(
                        "machine {slot} to keyspace client {}, {method} {target:.300}: {what}",
                        self.number
                    );
                    world.judge(Err(Violation { check, what }));
                    return None;
                }
            },
            Err(why) => {
                world.checks.leases.forget(sent.id);
                if why == NoAnswer::Late && asked.steps == 1 {
                    let who = format!("keyspace client {}", self.number);
                    world.judge_lateness((slot, sent.life), sent.at, &who);
                }
                world.served(due, Some(&format!("no answer: {why:?}")));
                return None;
            }
        };
        for met in world.keyspace.take_met() {
            world.mark(met);
        }
        if answered == Some(200) {
            world.mark(done(asked.request.method, asked.request.route()));
        }
        match &verdict {
            Verdict::Refused { why, is_unknown } => {
                world.checks.leases.forget(sent.id);
                world.served(due, Some(why));
                if let (Question::Write { wanted, name, .. }, false) = (&asked.question, is_unknown) {
                    world.keyspace.denied(wanted, name.as_ref());
                }
            }
            _ => world.served(due, None),
        }
        Some(verdict)
    }

    /// Sends a request that is judged elsewhere, and waits for its answer; `None`: no connection
    /// could be made.
    pub(in crate::madsim_engine) async fn put_to(
        &mut self,
        slot: usize,
        request: &Request,
    ) -> Option<(AtSending, Option<Due>, Result<Answer, NoAnswer>)> {
        self.send(slot, request, 1, 0, None).await
    }

    /// Sends a request, and waits for its answer; `None`: no connection could be made.
    pub(super) async fn send(
        &mut self,
        slot: usize,
        request: &Request,
        steps: u64,
        wait: u64,
        asked: Option<&KeyspaceRequest>,
    ) -> Option<(AtSending, Option<Due>, Result<Answer, NoAnswer>)> {
        let timeout = self.shared.lock().schedule.settings.client_timeout_micros;
        let give_up = now() + steps * (timeout * 5 / 4 + 10 * MILLI) + wait * 5 / 4;
        let due = self.shared.lock().due(slot);
        if !self.connection.as_ref().is_some_and(|it| it.is_usable(slot)) {
            self.connection = None;
            self.connection = Http::open_as(&self.shared, slot, give_up, self.certificate).await;
            if self.connection.is_none() {
                self.shared.lock().served(due, Some("no connection could be made"));
                return None;
            }
        }
        let mut connection = self.connection.take()?;
        let due = due.filter(|_| connection.is_to_present_process());
        let process = (slot, connection.life);
        let is_write = request.method != "GET" && request.method != "HEAD";
        let sent = {
            let mut world = self.shared.lock();
            let world = &mut *world;
            let sent = world.sent(slot, connection.life);
            if is_write {
                (0..steps).for_each(|_| world.book.asked_beside(process));
            }
            let by = world.token.map(|_| OPERATOR_IS);
            if let Some(KeyspaceRequest { question, .. }) = asked {
                match question {
                    Question::Write { wanted, name, .. } => world.keyspace.wants(wanted, name.as_ref()),
                    Question::Lease { id, .. } => {
                        world.checks.leases.asked(sent.id, (*id, false), by, sent.committed, world.clocks());
                    }
                    Question::Renew(id) => {
                        world.checks.leases.asked(sent.id, (*id, true), by, sent.committed, world.clocks());
                    }
                    _ => {}
                }
            }
            let line =
                format_args!("keyspace client {}: {} {:.200}", self.number, request.method, request.target)
                    .to_string();
            world.trace.line(now(), Some(slot), "asked", &line);
            sent
        };
        let answer = connection.ask(request, give_up).await;
        let mut world = self.shared.lock();
        let told = match &answer {
            Ok(answer) => format!("{} {:.200}", answer.code, answer.text()),
            Err(why) => format!("{why:?}"),
        };
        let line = format!("keyspace client {}: {told}", self.number);
        world.trace.line(now(), Some(slot), "answer", &line);
        let (code, bytes) = answer.as_ref().map_or((0, 0), |it| (it.code, it.body.len() as u64));
        world.trace.step([now(), self.number as u64, u64::from(code), bytes]);
        if is_write && answer.is_ok() {
            (0..steps).for_each(|_| world.book.answered_beside(process, now() - sent.at + 1));
        }
        drop(world);
        if answer.is_ok() {
            self.connection = Some(connection);
        }
        Some((sent, due, answer))
    }
}

fn position(index: LogIndex) -> usize {
    usize::try_from(index.get()).unwrap_or(usize::MAX)
}

/// The mark of a request that was carried out.
fn done(method: &str, route: &str) -> &'static str {
    match (method, route) {
        ("PUT", "/v1/kv/{key}") => "PUT /v1/kv/{key}",
        ("GET", "/v1/kv/{key}") => "GET /v1/kv/{key}",
        ("HEAD", "/v1/kv/{key}") => "HEAD /v1/kv/{key}",
        ("DELETE", "/v1/kv/{key}") => "DELETE /v1/kv/{key}",
        ("PUT", "/v1/kv") => "PUT /v1/kv",
        ("GET", "/v1/kv") => "GET /v1/kv",
        ("DELETE", "/v1/kv") => "DELETE /v1/kv",
        ("POST", "/v1/incr/{key}") => "POST /v1/incr/{key}",
        ("POST", "/v1/txn") => "POST /v1/txn",
        ("POST", "/v1/leases") => "POST /v1/leases",
        ("GET", "/v1/leases") => "GET /v1/leases",
        ("GET", "/v1/leases/{id}") => "GET /v1/leases/{id}",
        ("DELETE", "/v1/leases/{id}") => "DELETE /v1/leases/{id}",
        ("POST", "/v1/leases/{id}/keepalive") => "POST /v1/leases/{id}/keepalive",
        ("POST", "/v1/compact") => "POST /v1/compact",
        ("GET", "/v1/settings") => "GET /v1/settings",
        ("PUT", "/v1/settings") => "PUT /v1/settings",
        _ => "another route of /v1",
    }
}

impl World {
    /// Whether a client of the keyspace may ask a machine: one of the cluster under test.
    pub(in crate::madsim_engine) fn is_open(&self, slot: usize) -> bool {
        let machine = &self.machines[slot];
        machine.on && machine.member.is_some() && !machine.is_reverted && self.knows_rights(slot)
    }

    /// Whether clients speak TLS in this run: in every third one that has users.
    pub(in crate::madsim_engine) fn has_secured_clients(&self) -> bool {
        self.schedule.users && self.schedule.seed / 7 % 3 == 1
    }

    /// Whether a node has applied that authentication is enabled: until then it looks at no
    /// credentials, and what is judged elsewhere is refused.
    pub(in crate::madsim_engine) fn knows_rights(&self, slot: usize) -> bool {
        let applied = self.machines[slot].view.last_applied.index.get();
        self.token.is_none() || applied >= self.enabled_at as u64
    }

    /// What is so as a request is sent to a process.
    pub(in crate::madsim_engine) fn sent(&mut self, slot: usize, life: u32) -> AtSending {
        let view = &self.machines[slot].view;
        // What an earlier process had applied, this one may not know to be committed.
        let shown = Some(view).filter(|view| view.life == life);
        let applied = shown.map_or(LogIndex::ZERO, |view| view.last_applied.index);
        let term = shown.map_or(0, |view| view.term.get());
        AtSending {
            slot,
            life,
            at: now(),
            committed: self.checks.ledger.model().applied(),
            applied: position(applied),
            floor: self.keyspace.newest,
            term,
            id: self.keyspace.next_request(),
        }
    }

    /// What the process that was asked had applied at least when it answered. One that was loading
    /// its data when it was asked has shown since what it began with.
    pub(in crate::madsim_engine) fn had_applied(&self, sent: &AtSending) -> usize {
        let view = &self.machines[sent.slot].view;
        let first = view.first_applied.filter(|_| view.life == sent.life);
        sent.applied.max(first.map_or(0, position))
    }
}
