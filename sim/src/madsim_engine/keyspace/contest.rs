//! Locks and elections: the client that is told that it holds one is the first of its candidates,
//! by the committed log.

use crate::checks::keyspace::model::Model;
use crate::madsim_engine::attendance::Due;
use crate::madsim_engine::http::{Answer, Request};
use crate::madsim_engine::keyspace::asked::{KeyspaceRequest, Question};
use crate::madsim_engine::keyspace::client::HttpClient;
use crate::madsim_engine::keyspace::forms::{Target, in_path};
use crate::madsim_engine::keyspace::judge::{signed, turned_away};
use crate::madsim_engine::keyspace::right::{
    Problem, REVISION, brief, header_number, key_value, parsed, problem, put_bytes,
};
use crate::madsim_engine::keyspace::wanted::AtSending;
use crate::madsim_engine::laws::same;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::{Shared, World};
use crate::record::violation::Violation;
use crate::schedule::{MILLI, Stream, stream};
use bytes::Bytes;
use infinitystore::kv::{Command, KeyRange, KeyValue, LeaseId, Op, Outcome};
use infinitystore::replica::Level;
use rand::Rng;
use serde_json::{Map, Value, json};

/// Streams of the seed are told apart by this.
const FIRST_STREAM: u64 = 5_000;
/// Numbers of these clients, beside those of others.
const FIRST_NUMBER: usize = 1_000;
/// Between two contests, at most.
const PAUSE_MICROS: u64 = 1_500 * MILLI;
const NAMES: [&[u8]; 2] = [b"nightly", "50% of k/\u{e9}?".as_bytes()];

/// A lock, or an election.
#[derive(Clone, Debug)]
struct Contest {
    path: &'static str,
    name: &'static [u8],
    prefix: Bytes,
}

/// What a candidate has won.
#[derive(Clone, Debug)]
struct Won {
    lease: LeaseId,
    key: Bytes,
}

/// Stands for locks and elections until the faults end.
pub(in crate::madsim_engine) async fn run_contestant(shared: Shared, number: usize) {
    let seed = shared.lock().schedule.seed;
    let mut rng = stream(seed, Stream::Schedule, FIRST_STREAM + number as u64);
    let contest = Contest::draw(rng.random_range(0..3));
    let mut client = HttpClient::new(shared.clone(), rng, FIRST_NUMBER + number);
    let mut values = 0;
    loop {
        sleep_until(now() + client.rng.random_range(0..PAUSE_MICROS)).await;
        if shared.lock().calm {
            return;
        }
        values += 1;
        let value = format!("{number}.{values}\u{e9}");
        let won = contest.stand(&mut client, &value).await;
        let times = if won.is_some() { client.rng.random_range(0..4) } else { 1 };
        for _ in 0..times {
            sleep_until(now() + client.rng.random_range(0..PAUSE_MICROS / 3)).await;
            match (client.rng.random_range(0..4), &won) {
                (0, Some(won)) => {
                    values += 1;
                    contest.proclaim(&mut client, won, &format!("{number}.{values}")).await;
                }
                (1, Some(won)) => {
                    let request = Request::post(format!("/v1/leases/{}/keepalive", won.lease.0), "");
                    let question = Question::Renew(won.lease);
                    let asked = KeyspaceRequest { question, request, level: Level::Linearizable, steps: 1 };
                    let slot = client.any_slot();
                    client.ask(slot, &asked).await;
                }
                _ => contest.look(&mut client).await,
            }
        }
        if let Some(won) = won.filter(|_| client.rng.random_bool(0.8)) {
            contest.resign(&mut client, &won).await;
        }
    }
}

impl HttpClient {
    fn any_slot(&mut self) -> usize {
        let slots = self.shared.lock().machines.len();
        self.rng.random_range(0..slots)
    }
}

/// An answer, what was so when it was asked for, and whether it was due.
struct Came {
    sent: AtSending,
    due: Option<Due>,
    answer: Answer,
}

/// A refusal for want of room: of the disk, or of the quota that another client has made small.
fn is_of_room(world: &World, sent: &AtSending, told: &Problem) -> bool {
    let model = world.checks.ledger.model();
    let is_small = |index| model.at(index).is_some_and(|sums| sums.settings.quota_bytes < 1 << 30);
    let was_small = (sent.committed..=model.applied()).any(is_small);
    told.code == "disk-full" || told.code == "quota-exceeded" && was_small
}

/// Whether another client has ended the lease that this problem names, since then.
fn was_revoked(world: &World, sent: &AtSending, told: &Problem) -> bool {
    let mut numbers = told.detail.split(|char: char| !char.is_ascii_digit());
    let Some(lease) = numbers.find_map(|text| text.parse().ok()).map(LeaseId) else { return false };
    let ledger = &world.checks.ledger;
    let is_end = |(command, outcome): (&Command, &Outcome)| {
        command.op == Op::Revoke(lease) && !matches!(outcome, Outcome::Refused(_))
    };
    let mut since = sent.committed + 1..=ledger.model().applied();
    world.keyspace.has_revoked(lease) && since.any(|index| ledger.command(index).is_some_and(is_end))
}

impl Contest {
    fn draw(number: usize) -> Self {
        let (path, folder) =
            if number < 2 { ("locks", &b"\0lock/"[..]) } else { ("elections", &b"\0election/"[..]) };
        let name = NAMES[number % 2];
        Self { path, name, prefix: Bytes::from([folder, name, b"\0"].concat()) }
    }

    fn target(&self, client: &mut HttpClient) -> Target {
        Target::new(&format!("/v1/{}/{}", self.path, in_path(&mut client.rng, self.name)))
    }

    fn key(&self, lease: LeaseId) -> Bytes {
        Bytes::from([&self.prefix[..], format!("{:016x}", lease.0).as_bytes()].concat())
    }

    /// The candidates after an entry, the first one first.
    fn candidates(&self, model: &Model, index: usize) -> Vec<KeyValue> {
        let revision = model.at(index).map_or(0, |sums| sums.revision);
        let range = KeyRange::prefix(self.prefix.clone());
        let mut all: Vec<KeyValue> = model.range(&range, Some(revision)).cloned().collect();
        all.sort_by_key(|kv| kv.create_revision);
        all
    }

    async fn ask(&self, client: &mut HttpClient, request: Request, steps: u64, wait: u64) -> Option<Came> {
        let slot = client.any_slot();
        if !client.shared.lock().is_open(slot) {
            return None;
        }
        let (sent, due, answer) = client.send(slot, &request, steps, wait, None).await?;
        let mut world = client.shared.lock();
        match answer {
            Ok(answer) => Some(Came { sent, due, answer }),
            Err(why) => {
                world.served(due, Some(&format!("no answer: {why:?}")));
                None
            }
        }
    }

    /// Judges an answer: `Ok(None)`: it was refused for now.
    fn judge<T>(
        &self,
        client: &HttpClient,
        what: &str,
        came: &Came,
        judge: impl FnOnce(&World, Option<&Problem>) -> Result<T, String>,
    ) -> Option<T> {
        let mut world = client.shared.lock();
        let Came { sent, due, answer } = came;
        let result = (|| {
            if turned_away(answer).is_some() {
                return Ok(None);
            }
            signed(&world, sent, answer)?;
            let told = if answer.code == 200 { None } else { Some(problem(answer)?) };
            if matches!(answer.code, 503 | 504)
                || told.as_ref().is_some_and(|told| is_of_room(&world, sent, told))
            {
                return Ok(None);
            }
            judge(&world, told.as_ref()).map(Some)
        })();
        match result {
            Ok(None) => {
                world.served(*due, Some(&answer.text()));
                None
            }
            Ok(some) => {
                world.served(*due, None);
                some
            }
            Err(why) => {
                let (code, text) = (answer.code, brief(&answer.text()));
                let what = format!(
                    "machine {} to keyspace client {}, {what} of {self:?}: {why}; {code} {text}",
                    sent.slot, client.number
                );
                world.judge(Err(Violation { check: "a lock is held by the first in its queue", what }));
                None
            }
        }
    }

    async fn stand(&self, client: &mut HttpClient, value: &str) -> Option<Won> {
        let mut target = self.target(client);
        let ttl = client.rng.random_range(2..5u64);
        let wait = if client.rng.random() { 0 } else { client.rng.random_range(1..4_000) * MILLI };
        target.add("ttl", format!("{ttl}s"));
        if wait > 0 || client.rng.random() {
            target.add("wait", format!("{}ms", wait / MILLI));
        }
        let mut request = Request::post(target.text, value);
        if client.rng.random_bool(0.3) {
            request.headers.push(("idempotency-key", format!("stands {value:.4}.{}", now()).into_bytes()));
        }
        let came = self.ask(client, request, 5, wait).await?;
        let won = self.judge(client, "POST", &came, |world, told| {
            let model = world.checks.ledger.model();
            let indices = came.sent.committed..=model.applied();
            let waited = now() - came.sent.at;
            match told.map(|told| told.code.as_str()) {
                None => self.has_won(model, indices, value, ttl, &came.answer).map(Some),
                Some("held") => {
                    let present = &told.map_or(Value::Null, |told| told.body["present"].clone());
                    let is_it = |index| {
                        let first = self.candidates(model, index).into_iter().next();
                        first.is_some_and(|kv| kv.value != value && key_value(&kv, true, false) == *present)
                    };
                    if !indices.rev().any(is_it) {
                        return Err(format!("{present} was never the first"));
                    }
                    if waited < wait * 8 / 10 && !world.machines[came.sent.slot].has_jumped {
                        return Err(format!("it waited {waited} µs, and was to wait {wait}"));
                    }
                    let outcome = told.and_then(|told| told.outcome.clone());
                    let stays =
                        self.candidates(model, model.applied()).into_iter().any(|kv| kv.value == value);
                    match outcome.as_deref() {
                        Some("unknown") => Ok(None),
                        Some("not-applied") if !stays => Ok(None),
                        other => Err(format!("the outcome is {other:?}; it is in the queue: {stays}")),
                    }
                }
                // Its lease ended while it waited, though the node renews it.
                Some("no-lease") if !came.due.is_some_and(|due| world.attendance.holds(due)) => Ok(None),
                // Other clients guess at leases, and end them.
                Some("no-lease") if told.is_some_and(|told| was_revoked(world, &came.sent, told)) => Ok(None),
                Some(code) => Err(format!("{code}, and nothing is so")),
            }
        })?;
        if won.is_some() {
            client.shared.lock().mark("lock taken over HTTP");
        } else {
            client.shared.lock().mark("lock held by another, over HTTP");
        }
        won
    }

    fn has_won(
        &self,
        model: &Model,
        indices: std::ops::RangeInclusive<usize>,
        value: &str,
        ttl: u64,
        answer: &Answer,
    ) -> Result<Won, String> {
        let body = parsed(answer)?;
        let number = |name: &str| body[name].as_u64().ok_or_else(|| format!("{name} is {}", body[name]));
        let (lease, fence) = (LeaseId(number("lease")?), number("fence")?);
        let key = self.key(lease);
        let mut right = Map::new();
        right.insert("lease".to_owned(), lease.0.into());
        right.insert("fence".to_owned(), fence.into());
        right.insert("ttl".to_owned(), ttl.into());
        put_bytes(&mut right, "key", &key);
        same("the body", &body, &Value::Object(right))?;
        let is_first = |index| {
            let first = self.candidates(model, index).into_iter().next();
            first.is_some_and(|kv| {
                (kv.create_revision.0, &kv.key, kv.lease) == (fence, &key, lease) && kv.value == value
            })
        };
        if !indices.clone().rev().any(is_first) {
            return Err(format!("it was never the first: {:?}", self.candidates(model, *indices.end())));
        }
        let is_granted = |index| model.lease_at(lease, index).is_some_and(|lease| lease.ttl_seconds == ttl);
        if !indices.rev().any(is_granted) {
            return Err(format!("there was no lease {lease} of {ttl} s"));
        }
        Ok(Won { lease, key })
    }

    async fn look(&self, client: &mut HttpClient) {
        let mut target = self.target(client);
        target.level(&mut client.rng, Level::Linearizable);
        let Some(came) = self.ask(client, Request::get(target.text), 3, 0).await else { return };
        let seen = self.judge(client, "GET", &came, |world, told| {
            let model = world.checks.ledger.model();
            let mut indices = came.sent.committed..=model.applied();
            if let Some(told) = told {
                same("the code", &told.code.as_str(), &"no-holder")?;
                same("the outcome", &told.outcome, &None)?;
                return match indices.any(|index| self.candidates(model, index).is_empty()) {
                    true => Ok(()),
                    false => Err("somebody has held it all the while".to_owned()),
                };
            }
            let body = parsed(&came.answer)?;
            let revision = header_number(&came.answer, REVISION)?;
            let (_, last) = model.indices_of(revision);
            let is_it = |index: usize| {
                let candidates = self.candidates(model, index);
                let Some(first) = candidates.first() else { return false };
                let Some(now) = model.get_at(&first.key, revision) else { return false };
                let mut right = Map::new();
                right.insert("lease".to_owned(), now.lease.0.into());
                right.insert("fence".to_owned(), first.create_revision.0.into());
                right.insert("waiting".to_owned(), (candidates.len() - 1).into());
                put_bytes(&mut right, "value", &now.value);
                put_bytes(&mut right, "key", &now.key);
                Value::Object(right) == body
            };
            let last = last.min(model.applied());
            match (came.sent.committed..=last).any(is_it) {
                true => Ok(()),
                false => Err(format!("it is none of the first; now {:?}", self.candidates(model, last))),
            }
        });
        if seen.is_some() {
            client.shared.lock().mark("holder asked for over HTTP");
        }
    }

    async fn proclaim(&self, client: &mut HttpClient, won: &Won, value: &str) {
        let mut target = self.target(client);
        target.add("lease", won.lease.0.to_string());
        let request = Request { method: "PUT", ..Request::post(target.text, value) };
        let Some(came) = self.ask(client, request, 2, 0).await else { return };
        let done = self.judge(client, "PUT", &came, |world, told| {
            let model = world.checks.ledger.model();
            let is_first = |index| self.candidates(model, index).first().is_some_and(|kv| kv.key == won.key);
            if told.is_some() {
                return self.is_no_holder(model, &came, told, is_first);
            }
            let revision = self.changed(model, &came, &won.key, Some(value))?;
            let (first, _) = model.indices_of(revision);
            if is_first(first.saturating_sub(1)) { Ok(()) } else { Err("it was not the first".to_owned()) }
        });
        if done.is_some() {
            client.shared.lock().mark("value of a lock over HTTP");
        }
    }

    async fn resign(&self, client: &mut HttpClient, won: &Won) {
        let mut target = self.target(client);
        target.add("lease", won.lease.0.to_string());
        let request = Request { method: "DELETE", ..Request::get(target.text) };
        let Some(came) = self.ask(client, request, 1, 0).await else { return };
        let done = self.judge(client, "DELETE", &came, |world, told| {
            let model = world.checks.ledger.model();
            if told.is_some() {
                let stands = |index| self.candidates(model, index).iter().any(|kv| kv.key == won.key);
                return self.is_no_holder(model, &came, told, stands);
            }
            self.changed(model, &came, &won.key, None).map(|_| ())
        });
        if done.is_some() {
            client.shared.lock().mark("lock given up over HTTP");
        }
    }

    fn is_no_holder(
        &self,
        model: &Model,
        came: &Came,
        told: Option<&Problem>,
        holds: impl Fn(usize) -> bool,
    ) -> Result<(), String> {
        let (code, outcome) = told.map_or(("", None), |told| (told.code.as_str(), told.outcome.as_deref()));
        same("the code", &code, &"not-holder")?;
        same("the outcome", &outcome, &Some("not-applied"))?;
        match (came.sent.committed..=model.applied()).any(|index| !holds(index)) {
            true => Ok(()),
            false => Err("it has held it all the while".to_owned()),
        }
    }

    /// The key was changed, and nothing else, at the revision that is told.
    fn changed(&self, model: &Model, came: &Came, key: &Bytes, to: Option<&str>) -> Result<u64, String> {
        let revision = header_number(&came.answer, REVISION);
        let told = parsed(&came.answer)?;
        let revision = told["revision"].as_u64().ok_or(()).or(revision)?;
        same("the body", &told, &json!({ "revision": revision }))?;
        let all = infinitystore::kv::ChangesQuery {
            range: KeyRange::all(),
            from: infinitystore::kv::Revision(1),
            puts: true,
            deletions: true,
            previous: false,
        };
        let changes = model.wanted(&all, revision);
        let is_it = |event: &infinitystore::kv::Event| {
            event.key == *key && event.now.as_ref().map(|kv| kv.value.as_ref()) == to.map(str::as_bytes)
        };
        if changes.len() == 1 && is_it(&changes[0]) && model.indices_of(revision).0 > came.sent.committed {
            Ok(revision)
        } else {
            Err(format!("at {revision} changed {changes:?}"))
        }
    }
}
