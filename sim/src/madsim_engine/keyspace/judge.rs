//! What a client of the keyspace is told, held against the model: every answer in full.

use crate::checks::keyspace::model::{Model, readable};
use crate::madsim_engine::http::Answer;
use crate::madsim_engine::keyspace::asked::{Asked, Condition, Question, Wanted};
use crate::madsim_engine::keyspace::right::{
    JSON, PROBLEM, RAW, REVISION, Right, brief, condition_failed, header_number, key_value, page, parsed,
    problem, put_bytes, senseless, settings, written,
};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::world::World;
use crate::record::violation::Violation;
use bytes::Bytes;
use infinitystore::kv::{
    ChangesQuery, Command, KeyRange, KeyValue, LeaseId, Op, Outcome, Put, RangeQuery, ReadError, Revision,
    TxnResult,
};
use infinitystore::replica::{ClientReply, LeaseTime, Level, RequestId};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What was so when a request was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub slot: usize,
    pub life: u32,
    pub at: u64,
    /// Entries that were committed, and entries that the machine had applied.
    pub committed: usize,
    pub applied: usize,
    /// The newest revision that any client had been told.
    pub floor: u64,
    /// The machine's term.
    pub term: u64,
    /// Its name for the checks of leases.
    pub id: RequestId,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is done, or there is something that forbids it.
    Told,
    /// A page, and what the next one has to be asked with.
    Page { cursor: String, resume: Bytes, at: Revision, count: u64 },
    /// It cannot be done now, and why. Whether the write may have happened.
    Refused { why: String, is_unknown: bool },
}

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

fn of<T>(check: &'static str, result: Result<T, String>) -> Result<T, Violation> {
    result.map_err(|what| Violation { check, what })
}

/// Judges an answer.
pub(super) fn judge(
    world: &mut World,
    asked: &Asked,
    sent: &Sent,
    answer: &Answer,
) -> Result<Verdict, Violation> {
    let is_write = matches!(asked.question, Question::Write { .. });
    let is_head = asked.request.method == "HEAD";
    if let Some(why) = turned_away(answer) {
        let unjustified = world.unjustified(sent.slot, &why);
        of("a refusal has its reason", unjustified.map_or(Ok(()), Err))?;
        return Ok(Verdict::Refused { why, is_unknown: false });
    }
    of("answers are as documented", signed(world, sent, answer))?;
    if is_head && matches!(answer.code, 500..) {
        return Ok(Verdict::Refused { why: format!("{} of HEAD", answer.code), is_unknown: false });
    }
    if answer.header("content-type") == Some(PROBLEM) && !is_head {
        let told = of("answers are as documented", problem(answer))?;
        let is_passing = matches!(answer.code, 503 | 504) || told.code == "disk-full";
        let is_unknown = told.outcome.as_deref() == Some("unknown");
        let renews = matches!(asked.question, Question::Renew(_));
        let outcome = match (is_write, told.code.as_str()) {
            (true, "outcome-unknown") => Some("unknown"),
            (true, _) => Some("not-applied"),
            (false, "no-lease") if renews => Some("not-applied"),
            (false, _) => None,
        };
        // Such a condition is of a read, too.
        let what = format!(
            "the outcome of {} {} told as {}",
            asked.request.method,
            asked.request.route(),
            told.code
        );
        of("answers are as documented", same(&what, &told.outcome.as_deref(), &outcome))?;
        if is_passing {
            let why = format!("{}: {}", told.code, told.detail);
            of("a refusal has its reason", reasonable(world, asked, sent, &told.code, &told.detail))?;
            return Ok(Verdict::Refused { why, is_unknown });
        }
    }
    match &asked.question {
        Question::Write { wanted, name } => {
            of("what a write returns", write(world, wanted, name.as_ref(), sent, answer))?;
            Ok(Verdict::Told)
        }
        Question::Range { query, count } => {
            of("what a read returns", range(world, query, *count, (asked.level, sent), answer))
        }
        question => {
            of("what a read returns", read(world, question, (asked.level, is_head), sent, answer))?;
            Ok(Verdict::Told)
        }
    }
}

/// A caller that was turned away at the door: why.
pub(super) fn turned_away(answer: &Answer) -> Option<String> {
    let is_it = answer.code == 503 && answer.header("content-type") == Some(JSON);
    serde_json::from_slice(&answer.body).ok().filter(|_| is_it)
}

/// Who answered, in which term, and from which state.
pub(super) fn signed(world: &World, sent: &Sent, answer: &Answer) -> Result<(), String> {
    let machine = &world.machines[sent.slot];
    let Some(by) = answer.header("infinitystore-served-by") else {
        // It has not loaded its data.
        let code = if answer.body.is_empty() { String::new() } else { problem(answer)?.code };
        return if answer.code == 503 && matches!(code.as_str(), "starting" | "") {
            Ok(())
        } else {
            Err(format!("{} {} does not say who answers", answer.code, brief(&answer.text())))
        };
    };
    let name = format!("node{}", machine.namesake.unwrap_or(sent.slot));
    same("infinitystore-served-by", &by, &name.as_str())?;
    let (term, revision) = (header_number(answer, "infinitystore-term")?, header_number(answer, REVISION)?);
    let newest = world.checks.ledger.model().now().revision;
    // One that moved into another cluster counts the terms of that one.
    let (now, is_same) = (machine.view.term.get(), machine.life == sent.life && machine.member.is_some());
    if is_same && now >= sent.term && (term < sent.term || term > now) {
        return Err(format!("the term is {term}; it was {} and is {now}", sent.term));
    }
    if revision > newest {
        return Err(format!("the revision is {revision}, and the newest is {newest}"));
    }
    Ok(())
}

/// Whether a state justifies a refusal that passes.
fn reasonable(world: &World, asked: &Asked, sent: &Sent, code: &str, detail: &str) -> Result<(), String> {
    if let Some(what) = world.unjustified(sent.slot, detail) {
        return Err(what);
    }
    let settings = &world.schedule.settings;
    let machine = &world.machines[sent.slot];
    let now = crate::madsim_engine::time::now();
    let is_right = match code {
        // One question has this long to find somebody who answers it.
        "no-leader" | "no-quorum" => {
            let early = now < sent.at + settings.client_timeout_micros * 8 / 10;
            // A node that ends tells those that wait for a quorum.
            !early || machine.has_jumped || machine.life != sent.life || !world.is_well(sent.slot)
        }
        "stale" => matches!(asked.level, Level::Fresh { .. }),
        "overloaded" => {
            world.limits.are_few()
                || world.limits.may_leave_out_writes()
                || settings.uncommitted_bytes_max > 0
                || detail.contains("changes hands")
        }
        "stopping" => machine.life != sent.life || machine.stopping.is_some() || !world.is_well(sent.slot),
        "refused" => machine.life != sent.life || !world.is_well(sent.slot),
        "no-memory" => false,
        _ => true,
    };
    if is_right {
        Ok(())
    } else {
        Err(format!("{code} after {} µs: {detail}, and nothing is so", now - sent.at))
    }
}

/// The entry that a write became returned what is answered.
fn write(
    world: &mut World,
    wanted: &Wanted,
    name: Option<&Bytes>,
    sent: &Sent,
    answer: &Answer,
) -> Result<(), String> {
    let ledger = &world.checks.ledger;
    let mut expected = Vec::new();
    for index in sent.committed + 1..=ledger.model().applied() {
        let Some((command, outcome)) = ledger.command(index) else { continue };
        if world.keyspace.taken.contains(&index) {
            continue;
        }
        let Some(right) = right_of(ledger.model(), index, (wanted, name), command, outcome) else { continue };
        match right.is(answer) {
            Ok(()) => {
                world.keyspace.taken.insert(index);
                let is_repeated = world.checks.ledger.model().at(index).is_some_and(|sums| sums.is_repeated);
                let revision = outcome.revision().filter(|_| !is_repeated);
                world.keyspace.met(if is_repeated {
                    "answer given again over HTTP"
                } else {
                    "write over HTTP"
                });
                return world.keyspace.told(sent, revision.map(|revision| revision.0));
            }
            Err(what) => expected.push(format!("at {index}: {what}")),
        }
    }
    if let Wanted::Op(op) = wanted
        && let Err(bad) = op.check()
    {
        world.keyspace.met("command refused before it was logged, over HTTP");
        return senseless(bad).is(answer);
    }
    Err(format!(
        "{wanted:?} named {name:?} is answered {} {}; committed since are {expected:?}",
        answer.code,
        brief(&answer.text())
    ))
}

/// What is to be answered if this entry is what a write became; `None`: it is not.
fn right_of(
    model: &Model,
    index: usize,
    (wanted, name): (&Wanted, Option<&Bytes>),
    command: &Command,
    outcome: &Outcome,
) -> Option<Right> {
    let is_repeated = model.at(index)?.is_repeated;
    let named = command.idempotency_key.as_ref();
    if let (Wanted::Leased(..), Op::Grant { .. }, Outcome::Refused(_)) = (wanted, &command.op, outcome) {
        let is_it = match (name, named) {
            (Some(name), Some(named)) => named.starts_with(name),
            (name, named) => name == named,
        };
        return is_it.then(|| written(outcome, None));
    }
    if named != name {
        return None;
    }
    match (wanted, &command.op) {
        (Wanted::Op(wanted), op) if wanted == op => {
            let txn = if let Op::Txn(txn) = wanted { Some(&**txn) } else { None };
            Some(written(outcome, txn))
        }
        (Wanted::If(condition, key, step), Op::Txn(txn)) if txn.success == [step.clone()] => {
            let Outcome::Txn { revision, succeeded, results } = outcome else {
                return Some(written(outcome, None));
            };
            let before = model.at(index - 1)?.revision;
            let was = model.get_at(key, before).map_or(0, |kv| kv.mod_revision.0);
            if !is_repeated && condition.holds(was) != *succeeded {
                return None;
            }
            Some(match (succeeded, results.first()) {
                (true, Some(TxnResult::Put { version })) => {
                    written(&Outcome::Put { revision: *revision, version: *version }, None)
                }
                (true, Some(TxnResult::Deleted { count })) => {
                    written(&Outcome::Deleted { revision: *revision, count: *count }, None)
                }
                _ => condition_failed(*revision, model.get_at(key, revision.0)),
            })
        }
        (Wanted::Leased(key, value, ttl), Op::Put(Put { key: to, value: what, lease })) => {
            if (key, value) != (to, what) || lease.is_none() && !is_repeated {
                return None;
            }
            let mut right = written(outcome, None);
            if right.code == 200 {
                let granted = model.lease_at(*lease, index - 1)?;
                if granted.ttl_seconds != *ttl && !is_repeated {
                    return None;
                }
                right.body["lease"] = lease.0.into();
                right.body["ttl"] = (*ttl).into();
            }
            Some(right)
        }
        _ => None,
    }
}

/// When a read was answered, as far as the answer says.
fn window(world: &World, level: Level, sent: &Sent, answer: &Answer) -> Result<Window, String> {
    let model = world.checks.ledger.model();
    let revision = header_number(answer, REVISION)?;
    let (first, last) = model.indices_of(revision);
    let least = if level == Level::Linearizable { sent.committed } else { sent.applied };
    let (from, to) = (least.max(first), last.min(model.applied()));
    if from > to {
        return Err(format!(
            "it is of revision {revision}, which the store had from {first} to {last}; it was asked for at {least}: {} {}",
            answer.code,
            brief(&answer.text())
        ));
    }
    Ok(Window { revision, from, to })
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

fn range(
    world: &mut World,
    query: &RangeQuery,
    count: Option<u64>,
    (level, sent): (Level, &Sent),
    answer: &Answer,
) -> Result<Verdict, String> {
    let window = window(world, level, sent, answer)?;
    let model = world.checks.ledger.model();
    let at = query.at.map_or(window.revision, |at| at.0);
    if query.at.is_some() && !at_revision(model, at, window, answer)? {
        world.keyspace.met("range of a revision that is not there");
        return Ok(Verdict::Told);
    }
    let right = model.page(query, at, window.revision, 1);
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

fn read(
    world: &mut World,
    question: &Question,
    (level, is_head): (Level, bool),
    sent: &Sent,
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
    sent: &Sent,
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
fn lease(world: &mut World, question: &Question, sent: &Sent, answer: &Answer) -> Result<(), String> {
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
    sent: &Sent,
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
