//! What a read is told, held against the model at the revision that its answer names.

use crate::checks::keyspace::model::{Model, readable};
use crate::madsim_engine::http::Answer;
use crate::madsim_engine::keyspace::asked::Question;
use crate::madsim_engine::keyspace::right::{
    JSON, RAW, REVISION, Right, brief, condition_failed, header_number, key_value, page, parsed, problem,
    put_bytes, settings,
};
use crate::madsim_engine::keyspace::wanted::{AtSending, Condition, Verdict};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::world::World;
use bytes::Bytes;
use infinitystore::kv::{ChangesQuery, KeyRange, KeyValue, LeaseId, RangeQuery, ReadError, Revision};
use infinitystore::raft::LogIndex;
use infinitystore::replica::{ClientReply, LeaseTime, Level};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How old the state is at most that an answer is from, in milliseconds.
const AGE: &str = "infinitystore-age-ms";

/// Where in the log a read may have been answered: the store's revision, and indices.
#[derive(Clone, Copy, Debug)]
struct Window {
    revision: u64,
    from: usize,
    to: usize,
}

impl Window {
    /// The states that it may have seen, the newest first.
    fn any(self, mut is_it: impl FnMut(usize) -> bool) -> bool {
        (self.from..=self.to).rev().any(&mut is_it)
    }
}

/// When a read was answered, as far as the answer says.
fn window(world: &World, level: Level, sent: &AtSending, answer: &Answer) -> Result<Window, String> {
    let model = world.checks.ledger.model();
    let revision = header_number(answer, REVISION)?;
    let (first, last) = model.indices_of(revision);
    let least = if level == Level::Linearizable { sent.committed } else { world.had_applied(sent) };
    let (from, to) = (least.max(first), last.min(model.applied()));
    if from > to {
        return Err(format!(
            "it is of revision {revision}, which the store had from {first} to {last}; it was asked for at {least}: {} {}",
            answer.code,
            brief(&answer.text())
        ));
    }
    is_no_older(world, level, sent, answer, to)?;
    Ok(Window { revision, from, to })
}

/// Whether a read that may have seen the state at `to`, and nothing later, was as new as it was
/// asked for, and as its answer says.
fn is_no_older(
    world: &World,
    level: Level,
    sent: &AtSending,
    answer: &Answer,
    to: usize,
) -> Result<(), String> {
    let told = match answer.header(AGE) {
        Some(text) => Some(text.parse::<u64>().map_err(|_| format!("its age is {text:?}"))?),
        None => None,
    };
    let bound = match (level, told) {
        (Level::Linearizable, Some(age)) => return Err(format!("it is linearizable, and {age} ms old")),
        (Level::Fresh { .. }, None) if answer.code == 200 => {
            return Err("it is to be of a known age, and does not say which".to_owned());
        }
        (Level::Fresh { max_staleness_micros }, _) => Some(max_staleness_micros),
        _ => None,
    };
    // The age is told in thousandths of a second, rounded up.
    let age = bound.into_iter().chain(told.map(|age| age.saturating_mul(1_000))).min();
    let Some(age) = age.filter(|_| !world.machines[sent.slot].has_jumped) else { return Ok(()) };
    let newest = LogIndex::new(to as u64);
    world.freshness.judge(sent.slot, sent.at, age, newest).map_err(|violation| violation.what)
}

/// A read at a revision: that was there, or was not.
fn at_revision(model: &Model, at: u64, window: Window, answer: &Answer) -> Result<bool, String> {
    let (code, right) = match answer.code {
        410 => ("compacted", ReadError::Compacted(Revision(told_revision(answer)?))),
        409 => ("future-revision", ReadError::Future(Revision(told_revision(answer)?))),
        _ => {
            let is_there = |index| model.at(index).is_some_and(|sums| readable(Revision(at), sums).is_ok());
            return if window.any(is_there) {
                Ok(true)
            } else {
                Err(format!("revision {at} is read, and is not there: {:?}", model.at(window.to)))
            };
        }
    };
    same("the code", &problem(answer)?.code.as_str(), &code)?;
    // The answer may be older than what its header says.
    let is_so = |index| model.at(index).is_some_and(|sums| readable(Revision(at), sums) == Err(right));
    if (0..=model.applied()).rev().any(is_so) {
        Ok(false)
    } else {
        Err(format!("revision {at} is {right:?}, and that is not so: {:?}", model.at(window.to)))
    }
}

fn told_revision(answer: &Answer) -> Result<u64, String> {
    let told = problem(answer)?;
    told.body["revision"].as_u64().ok_or_else(|| format!("no revision is told: {}", told.body))
}

pub(super) fn range(
    world: &mut World,
    query: &RangeQuery,
    count: Option<u64>,
    (level, sent): (Level, &AtSending),
    answer: &Answer,
) -> Result<Verdict, String> {
    let window = window(world, level, sent, answer)?;
    let model = world.checks.ledger.model();
    let at = query.at.map_or(window.revision, |at| at.0);
    if query.at.is_some() && !at_revision(model, at, window, answer)? {
        world.keyspace.met("range of a revision that is not there");
        return Ok(Verdict::Told);
    }
    let right = model.page(query, at, window.revision);
    let all = count.or(right.count).unwrap_or_default();
    let mut body = parsed(answer)?;
    same("the status", &answer.code, &200)?;
    same("the content type", &answer.header("content-type"), &Some(JSON))?;
    let cursor = body.as_object_mut().and_then(|body| body.remove("cursor"));
    let expected = page(&right, at, all, query.detail, query.delimiter.is_some());
    same(&format!("the page of {query:?}"), &body, &expected)?;
    let met = match (query.resume.is_some(), query.delimiter.is_some()) {
        (true, _) => "next page over HTTP",
        (false, true) => "range with a delimiter over HTTP",
        (false, false) => "range over HTTP",
    };
    world.keyspace.met(met);
    if level == Level::Linearizable {
        world.keyspace.told(sent, Some(window.revision))?;
    }
    match (right.next, cursor) {
        (None, None) => Ok(Verdict::Told),
        (Some(resume), Some(Value::String(cursor))) if !cursor.is_empty() => {
            Ok(Verdict::Page { cursor, resume, at: Revision(at), count: all })
        }
        (next, cursor) => Err(format!("the range goes on at {next:?}; the cursor is {cursor:?}")),
    }
}

pub(super) fn read(
    world: &mut World,
    question: &Question,
    (level, is_head): (Level, bool),
    sent: &AtSending,
    answer: &Answer,
) -> Result<(), String> {
    if let Question::Lease { .. } | Question::Renew(_) = question {
        return lease(world, question, sent, answer);
    }
    if let Question::Poll { key, after, micros } = question {
        return poll(world, (key, *after, *micros), sent, answer);
    }
    let window = window(world, level, sent, answer)?;
    let model = world.checks.ledger.model();
    let met = match question {
        Question::Get { key, at, condition, json } => {
            let is_there = match at {
                // Its body says what is not there.
                Some(_) if is_head && matches!(answer.code, 409 | 410) => false,
                Some(at) => at_revision(model, *at, window, answer)?,
                None => true,
            };
            if is_there {
                let found = model.get_at(key, at.unwrap_or(window.revision));
                got(found, *condition, (*json, is_head), window.revision, answer)?;
            }
            match (at, is_head) {
                (Some(_), _) => "key of the past over HTTP",
                (None, true) => "head of a key",
                (None, false) => "key over HTTP",
            }
        }
        Question::Leases { from, limit } => {
            let body = parsed(answer)?;
            let is_it = |index| leases_at(model, index, (*from, *limit), window.revision) == body;
            if answer.code != 200 || !window.any(is_it) {
                let right = leases_at(model, window.to, (*from, *limit), window.revision);
                return Err(format!("the leases are told as {body}; right is {right}"));
            }
            "leases over HTTP"
        }
        _ => {
            let body = parsed(answer)?;
            let is_it = |index| model.at(index).is_some_and(|sums| settings(&sums.settings) == body);
            if answer.code != 200 || !window.any(is_it) {
                return Err(format!("the settings are told as {body}"));
            }
            "settings over HTTP"
        }
    };
    world.keyspace.met(met);
    let is_new = level == Level::Linearizable;
    world.keyspace.told(sent, Some(window.revision).filter(|_| is_new))
}

fn leases_at(model: &Model, index: usize, (from, limit): (LeaseId, usize), revision: u64) -> Value {
    let mut leases = model.leases_at(index).filter(|lease| lease.id >= from);
    let some: Vec<Value> = leases
        .by_ref()
        .take(limit)
        .map(|lease| json!({ "id": lease.id.0, "ttl": lease.ttl_seconds, "keys": lease.keys }))
        .collect();
    let next = leases.next();
    let mut body = json!({ "revision": revision, "leases": some, "more": next.is_some() });
    if let Some(next) = next {
        body["next"] = next.id.0.into();
    }
    body
}

/// The answer of a read of one key.
fn got(
    found: Option<&KeyValue>,
    condition: Option<Condition>,
    (json, is_head): (bool, bool),
    revision: u64,
    answer: &Answer,
) -> Result<(), String> {
    let etag = found.map(|kv| kv.mod_revision.0);
    let is_met = condition.is_none_or(|condition| condition.holds(etag.unwrap_or(0)));
    let is_cache = matches!(condition, Some(Condition::IsMissing | Condition::IsNot(_)));
    let mut right = match found {
        Some(_) if !is_met && is_cache => Right { code: 304, etag, ..Right::default() },
        _ if !is_met => {
            let mut right = condition_failed(Revision(revision), found);
            right.body["outcome"] = Value::Null;
            right
        }
        None => Right { code: 404, problem: Some("key-not-found"), ..Right::default() },
        Some(kv) if json => Right { code: 200, etag, body: key_value(kv, true, true), ..Right::default() },
        Some(_) => Right { code: 200, etag, ..Right::default() },
    };
    if is_head {
        (right.body, right.problem) = (Value::Null, None);
    }
    right.is(answer)?;
    if let (200, false, Some(kv)) = (right.code, json, found) {
        same("the content type", &answer.header("content-type"), &Some(RAW))?;
        if !is_head {
            same("the value", &answer.body, &kv.value)?;
        }
        let number = |name: &str| header_number(answer, name);
        same("the create revision", &number("infinitystore-create-revision")?, &kv.create_revision.0)?;
        same("the version", &number("infinitystore-version")?, &kv.version)?;
        let lease = answer.header("infinitystore-lease").map(str::to_owned);
        same("the lease", &lease, &(!kv.lease.is_none()).then(|| kv.lease.0.to_string()))?;
    }
    Ok(())
}

/// The answer to one that waited for a change of a key.
fn poll(
    world: &mut World,
    (key, after, micros): (&Bytes, Option<u64>, u64),
    sent: &AtSending,
    answer: &Answer,
) -> Result<(), String> {
    let model = world.checks.ledger.model();
    let revision = header_number(answer, REVISION)?;
    let since = after.unwrap_or(sent.floor);
    let range = KeyRange::one(key.clone());
    let wanted = ChangesQuery { range, from: Revision(1), puts: true, deletions: true, previous: false };
    let waited = crate::madsim_engine::time::now() - sent.at;
    let met = match answer.code {
        304 => {
            if let Some(changed) =
                (after.unwrap_or(revision) + 1..=revision).find(|at| !model.wanted(&wanted, *at).is_empty())
            {
                return Err(format!(
                    "{key:?} has not changed since {since} to {revision}, and did at {changed}"
                ));
            }
            if revision < since {
                return Err(format!("it is to wait after {revision}, and waited after {since}"));
            }
            if waited < micros * 8 / 10 && !world.machines[sent.slot].has_jumped {
                return Err(format!("it waited {waited} µs, and was to wait {micros}"));
            }
            "long poll without a change"
        }
        410 => {
            let first = told_revision(answer)?;
            let is_so = (0..=model.applied())
                .any(|index| model.at(index).is_some_and(|sums| sums.compacted + 1 == first));
            if !is_so || first <= since + 1 {
                return Err(format!(
                    "it waited after {since}, and {first} is told as the first that is there"
                ));
            }
            "long poll told of a compaction"
        }
        _ => {
            let events = model.wanted(&wanted, revision);
            let Some(event) = events.last().filter(|_| revision > since) else {
                return Err(format!(
                    "{key:?} has changed at {revision}, it says, after {since}: {} {}",
                    answer.code,
                    brief(&answer.text())
                ));
            };
            got(event.now.as_ref(), None, (false, false), revision, answer)?;
            "long poll with a change"
        }
    };
    world.keyspace.met(met);
    Ok(())
}

/// The answer about one lease.
fn lease(world: &mut World, question: &Question, sent: &AtSending, answer: &Answer) -> Result<(), String> {
    let (id, renews) = match question {
        Question::Lease { id, .. } => (*id, false),
        Question::Renew(id) => (*id, true),
        _ => return Ok(()),
    };
    let model = world.checks.ledger.model();
    let reply = if answer.code == 404 {
        same("the code", &problem(answer)?.code.as_str(), &"no-lease")?;
        ClientReply::LeaseTime(None)
    } else {
        same("the status", &answer.code, &200)?;
        same("the content type", &answer.header("content-type"), &Some(JSON))?;
        let body = parsed(answer)?;
        let number = |name: &str| body[name].as_u64().ok_or_else(|| format!("{name} is {}", body[name]));
        same("the lease", &number("id")?, &id.0)?;
        let left = body["left"].as_f64().ok_or_else(|| format!("left is {}", body["left"]))?;
        let ttl_seconds = number("ttl")?;
        let mut keys = (sent.committed..=model.applied())
            .filter_map(|index| model.lease_at(id, index))
            .find(|lease| lease.ttl_seconds == ttl_seconds)
            .map_or(0, |lease| lease.keys);
        let mut names: Vec<&str> = vec!["id", "ttl", "left"];
        if let Question::Lease { from, limit, .. } = question {
            keys = number("count")?;
            keys_are_right(world, (id, from, *limit), sent, answer, &body)?;
            names.extend(["count", "keys", "more", "next", "next64"]);
        }
        if let Some(name) =
            body.as_object().into_iter().flatten().find(|(name, _)| !names.contains(&name.as_str()))
        {
            return Err(format!("there is a field {name:?}"));
        }
        // It is told in thousandths of a second.
        let left = Duration::try_from_secs_f64(left + 0.000_5).map_err(|error| error.to_string())?;
        let left_micros = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_mul(1_000);
        ClientReply::LeaseTime(Some(LeaseTime { id, ttl_seconds, left_micros, keys }))
    };
    let (ledger, leases) = (&world.checks.ledger, &mut world.checks.leases);
    let met = leases
        .answered(ledger.model(), sent.id, &reply)
        .map_err(|it| format!("{}: {}", it.check, it.what))?;
    world.keyspace.met(match (met, renews) {
        (Some("lease unknown"), _) => "lease unknown over HTTP",
        (_, true) => "lease renewed over HTTP",
        (_, false) => "lease asked for over HTTP",
    });
    Ok(())
}

fn keys_are_right(
    world: &World,
    (id, from, limit): (LeaseId, &Bytes, usize),
    sent: &AtSending,
    answer: &Answer,
    body: &Value,
) -> Result<(), String> {
    let window = window(world, Level::Linearizable, sent, answer)?;
    let model = world.checks.ledger.model();
    let is_it = |index| {
        let Some(sums) = model.at(index) else { return false };
        let mut keys = model.keys_of(id, sums.revision).filter(|kv| kv.key >= *from);
        let object = |name: &str, key: &[u8]| {
            let mut object = Map::new();
            put_bytes(&mut object, name, key);
            Value::Object(object)
        };
        let page: Vec<Value> = keys.by_ref().take(limit).map(|kv| object("key", &kv.key)).collect();
        let next = keys.next().map_or(json!({}), |kv| object("next", &kv.key));
        let told = |name: &str| body[name] == next[name];
        body["keys"] == Value::from(page)
            && body["more"] == Value::Bool(next != json!({}))
            && told("next")
            && told("next64")
    };
    if window.any(is_it) {
        return Ok(());
    }
    let right: Vec<_> = model.keys_of(id, window.revision).map(|kv| &kv.key).collect();
    Err(format!("the keys of {id} from {from:?}, {limit} at most, are told as {body}; it has {right:?}"))
}
