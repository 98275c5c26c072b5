//! What a client of the keyspace is told, held against the model: every answer in full.

use crate::checks::keyspace::model::Model;
use crate::madsim_engine::http::Answer;
use crate::madsim_engine::keyspace::asked::{KeyspaceRequest, Question};
use crate::madsim_engine::keyspace::reading::{range, read};
use crate::madsim_engine::keyspace::right::{
    JSON, PROBLEM, REVISION, Right, bad_field, brief, condition_failed, header_number, problem, senseless,
    too_large, written,
};
use crate::madsim_engine::keyspace::wanted::{AtSending, ExpectedWrite, Verdict};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::world::World;
use crate::record::violation::Violation;
use bytes::Bytes;
use infinitystore::kv::{Command, LEASE_TTL_SECONDS_MIN, Op, Outcome, Put, Revision, TxnResult};
use infinitystore::replica::Level;

fn of<T>(check: &'static str, result: Result<T, String>) -> Result<T, Violation> {
    result.map_err(|what| Violation { check, what })
}

/// Judges an answer.
pub(super) fn judge(
    world: &mut World,
    asked: &KeyspaceRequest,
    sent: &AtSending,
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
            (true, "outcome-unknown" | "answer-forgotten") => Some("unknown"),
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
        Question::Write { wanted, name, since } => {
            let named = (name.as_ref(), *since);
            of("what a write returns", write(world, wanted, named, sent, answer))?;
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

/// The node that answered, its term, and the state that the answer is from.
pub(super) fn signed(world: &World, sent: &AtSending, answer: &Answer) -> Result<(), String> {
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
fn reasonable(
    world: &World,
    asked: &KeyspaceRequest,
    sent: &AtSending,
    code: &str,
    detail: &str,
) -> Result<(), String> {
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
        "removed" => {
            machine.life != sent.life || machine.member.is_none_or(|id| world.checks.orders.has_left(id))
        }
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
    wanted: &ExpectedWrite,
    named: (Option<&Bytes>, Option<Revision>),
    sent: &AtSending,
    answer: &Answer,
) -> Result<(), String> {
    // It has no words for a lease that ends at once, and is never logged.
    if matches!(wanted, ExpectedWrite::Op(Op::Grant { ttl_seconds: 0, .. })) {
        world.keyspace.met("command refused before it was logged, over HTTP");
        return bad_field().is(answer);
    }
    let ledger = &world.checks.ledger;
    let mut expected = Vec::new();
    for index in sent.committed + 1..=ledger.model().applied() {
        let Some((command, outcome)) = ledger.command(index) else { continue };
        if world.keyspace.taken.contains(&index) {
            continue;
        }
        let model = ledger.model();
        // A process that knew of no level that has words for it has left out what the client had
        // seen.
        let is_left_out = command.since.is_none() && !model.are_dated_at(sent.applied);
        let asked = (wanted, named.0);
        if command.since != named.1 && !is_left_out {
            continue;
        }
        let Some(right) = right_of(model, index, asked, command, outcome) else { continue };
        match right.is(answer) {
            Ok(()) => {
                world.keyspace.taken.insert(index);
                let is_repeated = world.checks.ledger.model().at(index).is_some_and(|sums| sums.is_repeated);
                let revision = outcome.revision().filter(|_| !is_repeated);
                world.keyspace.met(if is_repeated {
                    "answer given again over HTTP"
                } else if right.problem == Some("answer-forgotten") {
                    "answer forgotten over HTTP"
                } else {
                    "write over HTTP"
                });
                return world.keyspace.told(sent, revision.map(|revision| revision.0));
            }
            Err(what) => expected.push(format!("at {index}: {what}")),
        }
    }
    if let ExpectedWrite::Op(op) = wanted
        && let Err(bad) = op.check()
    {
        world.keyspace.met("command refused before it was logged, over HTTP");
        return senseless(bad).is(answer);
    }
    // A run may let less be appended at once than one command takes.
    let limit = world.schedule.settings.uncommitted_bytes_max;
    if limit > 0 && wanted.bytes_max(named.0) as u64 > limit && too_large().is(answer).is_ok() {
        world.keyspace.met("command refused before it was logged, over HTTP");
        return Ok(());
    }
    Err(format!(
        "{wanted:?} named {named:?} is answered {} {}; committed since are {expected:?}",
        answer.code,
        brief(&answer.text())
    ))
}

/// What is to be answered if this entry is what a write became; `None`: it is not.
fn right_of(
    model: &Model,
    index: usize,
    (wanted, name): (&ExpectedWrite, Option<&Bytes>),
    command: &Command,
    outcome: &Outcome,
) -> Option<Right> {
    let is_repeated = model.at(index)?.is_repeated;
    let named = command.idempotency_key.as_ref();
    if let (ExpectedWrite::Leased(_, _, ttl), Op::Grant { ttl_seconds, .. }, Outcome::Refused(_)) =
        (wanted, &command.op, outcome)
        && *ttl == (*ttl_seconds).max(LEASE_TTL_SECONDS_MIN)
    {
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
        (ExpectedWrite::Op(wanted), op) if wanted == op => {
            let txn = if let Op::Txn(txn) = wanted { Some(&**txn) } else { None };
            Some(written(outcome, txn))
        }
        (ExpectedWrite::If(condition, key, step), Op::Txn(txn)) if txn.success == [step.clone()] => {
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
        (ExpectedWrite::Leased(key, value, ttl), Op::Put(Put { key: to, value: what, lease })) => {
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
