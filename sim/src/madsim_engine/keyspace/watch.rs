//! Watches: what comes as server-sent events is every wanted change from some revision on, in
//! order, once, without a gap, and soon.

use crate::checks::keyspace::model::Model;
use crate::madsim_engine::http::{Http, NoAnswer, Request};
use crate::madsim_engine::keyspace::client::HttpClient;
use crate::madsim_engine::keyspace::forms::Target;
use crate::madsim_engine::keyspace::judge::{signed, turned_away};
use crate::madsim_engine::keyspace::right::{brief, key_value, problem, put_bytes};
use crate::madsim_engine::keyspace::wanted::AtSending;
use crate::madsim_engine::laws::same;
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::{Shared, World};
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND};
use bytes::BytesMut;
use infinitystore::kv::{ChangesQuery, Event};
use rand::Rng;
use serde_json::{Map, Value, json};

/// A change that a sound node has applied is with its watchers within this.
const SOON_MICROS: u64 = 3 * SECOND;
/// A watch says something within this: ten seconds, and what the network takes.
const SILENCE_MICROS: u64 = 14 * SECOND;
/// How often is looked whether something is missing.
const LOOK_MICROS: u64 = 250 * MILLI;

/// One chain of watches: each goes on where the one before ended.
#[derive(Debug, Default)]
pub(super) struct Watch {
    query: Option<ChangesQuery>,
    /// The first revision that it has not seen.
    place: u64,
}

/// A watch under way.
struct Session<'c> {
    query: ChangesQuery,
    sent: &'c AtSending,
    /// It asked for what comes next, and has not been told where that is.
    is_from_now: bool,
    place: u64,
    has_begun: bool,
    has_ended: bool,
    buffer: BytesMut,
    heard_at: u64,
    /// Since when nothing has disturbed the machine.
    well_since: u64,
}

impl Watch {
    /// Watches for so long.
    pub(super) async fn session(
        &mut self,
        client: &mut HttpClient,
        slot: usize,
        query: ChangesQuery,
        micros: u64,
    ) {
        let (is_open, newest) = {
            let world = client.shared.lock();
            (world.is_open(slot), world.checks.ledger.model().now().revision)
        };
        if !is_open {
            return;
        }
        let goes_on = self.query.as_ref() == Some(&query);
        let place = if goes_on { self.place } else { query.from.0.max(1) };
        let is_from_now = !goes_on && place == newest + 1 && client.rng.random();
        let request = request(client, &query, place, (goes_on, is_from_now));
        let micros = if client.rng.random_bool(0.1) { 6 * micros } else { micros };
        (self.query, self.place) = (Some(query.clone()), place);
        let until = now() + micros;
        let due = client.shared.lock().due(slot);
        let Some(mut http) = Http::open(&client.shared, slot, until).await else {
            client.shared.lock().served(due, Some("no connection could be made"));
            return;
        };
        let due = due.filter(|_| http.is_to_present_process());
        let sent = client.shared.lock().sent(slot, http.life);
        let sending = http.send(&request, until).await;
        let timeout = client.shared.lock().schedule.settings.client_timeout_micros;
        let give_up = now() + timeout * 5 / 4 + 10 * MILLI;
        let head = match sending {
            Ok(()) => http.receive_stream(give_up).await,
            Err(why) => Err(why),
        };
        let place = if is_from_now { sent.floor + 1 } else { place };
        let mut session = Session {
            query,
            sent: &sent,
            is_from_now,
            place,
            has_begun: false,
            has_ended: false,
            buffer: BytesMut::new(),
            heard_at: now(),
            well_since: now(),
        };
        let result = match head {
            Err(why) => {
                client.shared.lock().served(due, Some(&format!("no answer: {why:?}")));
                return;
            }
            Ok(answer) => {
                let mut world = client.shared.lock();
                let result = match turned_away(&answer) {
                    Some(_) => Ok(()),
                    None => signed(&world, &sent, &answer).and_then(|()| is_stream(&answer)),
                };
                let why = (answer.code != 200).then(|| answer.text());
                world.served(due, why.as_deref());
                result.map(|()| answer.code == 200)
            }
        };
        let result = match result {
            Ok(true) => {
                session.listen(&client.shared.clone(), &mut http, until.max(now() + 100 * MILLI)).await
            }
            Ok(false) => return,
            Err(what) => Err(what),
        };
        self.place = session.place;
        client.shared.lock().keyspace.left((slot, sent.life));
        if let Err(what) = result {
            let (target, number) = (&request.target, client.number);
            let what =
                format!("machine {slot} to keyspace client {number}, {target} {:?}: {what}", request.headers);
            client.shared.lock().judge(Err(Violation { check: "a watch is told what has changed", what }));
        }
    }
}

/// The head of a watch's answer; or it is a refusal.
fn is_stream(answer: &crate::madsim_engine::http::Answer) -> Result<(), String> {
    if answer.code == 503 {
        return Ok(());
    }
    if answer.code != 200 {
        let told = problem(answer)?;
        let code = told.code;
        return Err(format!("it is answered {} {code}: {}", answer.code, told.detail));
    }
    same("the content type", &answer.header("content-type"), &Some("text/event-stream"))
}

fn request(
    client: &mut HttpClient,
    query: &ChangesQuery,
    place: u64,
    (goes_on, is_from_now): (bool, bool),
) -> Request {
    let rng = &mut client.rng;
    let mut target = Target::new("/v1/watch");
    match query.range.one_key() {
        Some(key) if rng.random_bool(0.7) => target.bytes(rng, "key", key),
        _ if query.range == infinitystore::kv::KeyRange::all() && rng.random_bool(0.8) => {}
        _ => target.range(rng, &query.range),
    }
    if query.previous {
        target.flag("previous");
    }
    if !query.deletions {
        target.flag("puts_only");
    }
    if !query.puts {
        target.add("deletes_only", "true".to_owned());
    }
    let mut headers = Vec::new();
    if goes_on && rng.random() {
        // A browser asks for the same as before, and says what it had.
        headers.push(("Last-Event-ID", (place - 1).to_string().into_bytes()));
        if rng.random() {
            target.add("from", rng.random_range(0..=place).to_string());
        }
    } else if !is_from_now {
        target.add("from", place.to_string());
    }
    Request { headers, ..Request::get(target.text) }
}

impl Session<'_> {
    /// Takes what comes, until the time is up or the watch ends.
    async fn listen(&mut self, shared: &Shared, http: &mut Http, until: u64) -> Result<(), String> {
        loop {
            if now() >= until || shared.lock().calm {
                return Ok(());
            }
            match http.next_piece(until.min(now() + LOOK_MICROS)).await {
                Ok(Some(piece)) => {
                    self.buffer.extend_from_slice(&piece);
                    self.heard_at = now();
                    self.take_in(&mut shared.lock())?;
                }
                Ok(None) | Err(NoAnswer::Broken) => {
                    let is_well = shared.lock().is_well(self.sent.slot);
                    shared.lock().mark(if self.has_ended {
                        "watch ended by the node"
                    } else {
                        "watch cut off"
                    });
                    return if self.has_ended || !is_well || self.buffer.is_empty() {
                        Ok(())
                    } else {
                        Err(format!("it ends within a message: {:?}", self.buffer))
                    };
                }
                Err(NoAnswer::Late) => {}
            }
            self.look(&shared.lock())?;
        }
    }

    /// Takes whole messages.
    fn take_in(&mut self, world: &mut World) -> Result<(), String> {
        while let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\n\n") {
            let message = self.buffer.split_to(end + 2);
            let text = std::str::from_utf8(&message[..end]).map_err(|error| error.to_string())?.to_owned();
            if self.has_ended {
                return Err(format!("it has ended, and goes on: {text}"));
            }
            if text.starts_with(':') && !text.contains('\n') {
                self.has_begun = true;
                continue;
            }
            let (mut name, mut id, mut data) = (None, None, None);
            for line in text.split('\n') {
                let field = match line.split_once(": ") {
                    Some(("event", value)) => name.replace(value),
                    Some(("id", value)) => id.replace(value),
                    Some(("data", value)) => data.replace(value),
                    _ => return Err(format!("there is a line {line:?}")),
                };
                if field.is_some() {
                    return Err(format!("a field is there twice: {text:?}"));
                }
            }
            let data: Value = serde_json::from_str(data.unwrap_or(""))
                .map_err(|error| format!("{error}: {}", brief(&text)))?;
            self.message(world, name, id, &data)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        world: &mut World,
        name: Option<&str>,
        id: Option<&str>,
        data: &Value,
    ) -> Result<(), String> {
        let model = world.checks.ledger.model();
        let revision = data["revision"].as_u64();
        if matches!(name, None | Some("progress")) {
            let told = revision.ok_or_else(|| format!("a message without a revision: {data}"))?;
            same("the id", &id.map(str::to_owned), &Some(told.to_string()))?;
        }
        let met = match (name, revision) {
            (Some("progress"), Some(told)) => {
                same("the message", data, &json!({ "revision": told }))?;
                if !self.has_begun && self.is_from_now {
                    if told < self.sent.floor {
                        return Err(format!(
                            "it begins behind {told}, and {} was told before",
                            self.sent.floor
                        ));
                    }
                    self.place = told + 1;
                } else if !self.has_begun {
                    same("where it begins", &(told + 1), &self.place)?;
                }
                if told + 1 < self.place || told > model.now().revision {
                    let (place, newest) = (self.place, model.now().revision);
                    return Err(format!(
                        "it has come as far as {told}; it was at {place}, the store is at {newest}"
                    ));
                }
                self.nothing_before(model, told + 1)?;
                self.place = told + 1;
                if self.has_begun { "watch over HTTP told of progress" } else { "watch over HTTP begun" }
            }
            (None, Some(told)) => {
                if !self.has_begun || told < self.place {
                    return Err(format!("{data} comes, and it was at {}", self.place));
                }
                self.nothing_before(model, told)?;
                let events: Vec<Value> = model.wanted(&self.query, told).iter().map(event).collect();
                if events.is_empty() {
                    return Err(format!("{data} comes, and nothing was wanted of {told}"));
                }
                same("the message", data, &json!({ "revision": told, "events": events }))?;
                self.place = told + 1;
                "watch over HTTP told of a revision"
            }
            (Some("compacted"), Some(first)) => {
                let is_so = (0..=model.applied())
                    .any(|index| model.at(index).is_some_and(|sums| sums.compacted + 1 == first));
                if !is_so || first <= self.place {
                    let now = model.now();
                    return Err(format!("{data} comes; it was at {}; the store: {now:?}", self.place));
                }
                same("the code", &data["code"].as_str(), &Some("compacted"))?;
                (self.has_ended, self.place) = (true, first);
                "watch over HTTP told of a compaction"
            }
            (Some("failed"), _) => {
                self.has_ended = true;
                let machine = &world.machines[self.sent.slot];
                let is_right = match data["code"].as_str() {
                    Some("stopping") => {
                        machine.stopping.is_some()
                            || machine.life != self.sent.life
                            || !world.is_well(self.sent.slot)
                    }
                    Some("removed" | "joining" | "starting" | "refused") => true,
                    _ => false,
                };
                if !is_right || data["detail"].as_str().is_none_or(str::is_empty) {
                    return Err(format!("it fails, and nothing is so: {data}"));
                }
                "watch over HTTP failed"
            }
            (name, _) => return Err(format!("an event {name:?} comes: {data}")),
        };
        self.has_begun = true;
        world.mark(met);
        Ok(())
    }

    /// Nothing that was wanted was left out before a revision.
    fn nothing_before(&self, model: &Model, revision: u64) -> Result<(), String> {
        let left_out = (self.place..revision).find(|at| !model.wanted(&self.query, *at).is_empty());
        match left_out {
            Some(at) => Err(format!(
                "{:?} of {at} was left out: it goes on at {revision}",
                model.wanted(&self.query, at)
            )),
            None => Ok(()),
        }
    }

    /// A sound node has told what it has known for a while.
    fn look(&mut self, world: &World) -> Result<(), String> {
        let (slot, at) = (self.sent.slot, now());
        let machine = &world.machines[slot];
        let is_well = world.is_well(slot)
            && machine.life == self.sent.life
            && machine.stands_still_until < at
            && machine.disk_busy_until < at + SECOND;
        if !is_well || self.has_ended {
            self.well_since = at;
        }
        if at < self.well_since + SOON_MICROS {
            return Ok(());
        }
        let known = machine.revisions.iter().rev().find(|(since, _)| since + SOON_MICROS <= at);
        let model = world.checks.ledger.model();
        let known = known.map_or(0, |(_, revision)| *revision);
        if let Some(missing) = (self.place..=known).find(|at| !model.wanted(&self.query, *at).is_empty()) {
            let wanted: Vec<Event> = model.wanted(&self.query, missing);
            return Err(format!("the node has known {wanted:?} of {missing} for long, and has not told it"));
        }
        if at > self.heard_at.max(self.well_since) + SILENCE_MICROS && !machine.has_jumped {
            return Err(format!("nothing was heard since {}", self.heard_at));
        }
        Ok(())
    }
}

/// A change, as it is told.
fn event(event: &Event) -> Value {
    let mut object = match &event.now {
        Some(kv) => match key_value(kv, true, true) {
            Value::Object(object) => object,
            _ => Map::new(),
        },
        None => {
            let mut object = Map::new();
            put_bytes(&mut object, "key", &event.key);
            object
        }
    };
    object.insert("type".to_owned(), if event.now.is_some() { "put" } else { "delete" }.into());
    if let Some(previous) = &event.previous {
        object.insert("previous".to_owned(), key_value(previous, false, true));
    }
    Value::Object(object)
}
