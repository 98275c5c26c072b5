//! Compares what a node says of itself with what it is: status, checks and metrics. It asks on one
//! connection, one after the other, so that a figure that only grows lies between what it was
//! before and after.

use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::figures::{figures_are_right, status_is_right};
use crate::madsim_engine::glance::{Glance, Inspection, between, number};
use crate::madsim_engine::http::{Answer, Http, Request};
use crate::madsim_engine::laws::{exactly, same};
use crate::madsim_engine::metrics::Metrics;
use crate::madsim_engine::readiness::ready_agrees;
use crate::madsim_engine::rulers::{metrics_are_ruled, status_is_ruled};
use crate::madsim_engine::scrape::scrape_agrees;
use crate::madsim_engine::status_fields::{fields_are_right, lowest_level_is_right};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::{Shared, World};
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND};
use crate::schedule::{Stream, stream};
use infinitystore::raft::{LogIndex, RoleName};
use rand::Rng;
use serde_json::Value;
use std::collections::BTreeMap;

/// Between two inspections, at most.
const PAUSE_MICROS: u64 = 1_500 * MILLI;
/// Its stream of the seed.
const STREAM: u64 = 2_000;
const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What grows for as long as a process lives and stays in its cluster.
const GROWING: [&str; 4] = ["/term", "/commit_index", "/applied_index", "/snapshot/index"];

/// Looks at one machine after the other until the faults end.
pub(super) async fn inspect(shared: Shared) {
    let mut rng = stream(shared.lock().schedule.seed, Stream::Schedule, STREAM);
    let slots = shared.lock().machines.len();
    let mut before: BTreeMap<ProcessId, (Value, Metrics)> = BTreeMap::new();
    while !shared.lock().calm {
        sleep_until(now() + rng.random_range(0..PAUSE_MICROS)).await;
        let slot = rng.random_range(0..slots);
        if !shared.lock().machines[slot].on {
            continue;
        }
        let first = shared.lock().glance(slot);
        let Some((process, told)) = look(&shared, slot).await else { continue };
        let second = shared.lock().glance(slot);
        if first.process != process || second.process != process {
            continue;
        }
        shared.lock().scraped.insert(process, told.metrics.counters.clone());
        let result = judge(&mut shared.lock(), &first, &told, &second).and_then(|()| {
            let earlier = before.insert(process, (told.second, told.metrics));
            let (status, metrics) = &before[&process];
            match earlier {
                Some((then, counted)) => grown(&then, status, &counted, metrics),
                None => Ok(()),
            }
        });
        tell(&shared, slot, result);
    }
}

fn tell(shared: &Shared, slot: usize, result: Result<(), String>) {
    if let Err(what) = result {
        let what = format!("machine {slot}: {what}");
        shared.lock().judge(Err(Violation { check: "a node says what it is", what }));
    }
}

/// Everything that a node says of itself; `None`: it did not.
pub(super) async fn look(shared: &Shared, slot: usize) -> Option<(ProcessId, Inspection)> {
    let give_up = now() + 3 * SECOND;
    let mut connection = Http::open(shared, slot, give_up).await?;
    let process = (slot, connection.life);
    let knows_its_rules = {
        // One that loads its data is not looked at.
        let world = shared.lock();
        let machine = &world.machines[slot];
        if machine.handle.is_none() || machine.life != connection.life {
            return None;
        }
        machine.view.knows_its_rules
    };
    let targets = ["/livez", "/v1/status", "/metrics", "/v1/status", "/readyz?verbose"];
    for target in targets {
        connection.send(&Request::get(target), give_up).await.ok()?;
    }
    let live = connection.receive(give_up).await.ok()?;
    if live.code == 503 && shared.lock().limits.connections.is_some() {
        shared.lock().mark("too many connections");
        return None;
    }
    let first = connection.receive(give_up).await.ok()?;
    let metrics = connection.receive(give_up).await.ok()?;
    let second = connection.receive(give_up).await.ok()?;
    let ready = connection.receive(give_up).await.ok()?;
    let understood = match tells_nothing(&first, knows_its_rules) {
        Ok(true) => {
            shared.lock().mark("inspected before it knew its rules");
            return None;
        }
        Ok(false) => understand(&live, &first, &metrics, &second, ready),
        Err(what) => Err(what),
    };
    match understood {
        Ok(told) => Some((process, told)),
        Err(what) => {
            tell(shared, slot, Err(what));
            None
        }
    }
}

/// Until a node has applied what it had when it ended, it does not know whether it may tell more
/// than that it lives; then it has to. (These clusters ask nobody for a name.)
fn tells_nothing(first: &Answer, knows_its_rules: bool) -> Result<bool, String> {
    if !first.body.starts_with(b"{\"alive\":true") {
        return Ok(false);
    }
    let text = first.text();
    same("the code of /v1/status", &first.code, &200)?;
    if !["{\"alive\":true,\"ready\":false}\n", "{\"alive\":true,\"ready\":true}\n"].contains(&&*text) {
        return Err(format!("/v1/status is {text:?}"));
    }
    if knows_its_rules {
        return Err(format!(
            "it has applied all that it had when it started, and says no more than {text:?}"
        ));
    }
    Ok(true)
}

fn understand(
    live: &Answer,
    first: &Answer,
    metrics: &Answer,
    second: &Answer,
    ready: Answer,
) -> Result<Inspection, String> {
    exactly(live, 200, TEXT, "ok\n")?;
    let status = |answer: &Answer| {
        same("the code of /v1/status", &answer.code, &200)?;
        same("its content type", &answer.header("content-type"), &Some(JSON))?;
        same("its end", &answer.body.last(), &Some(&b'\n'))?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("/v1/status is no JSON: {error}"))
    };
    let (first, second) = (status(first)?, status(second)?);
    same("the code of /metrics", &metrics.code, &200)?;
    same("its content type", &metrics.header("content-type"), &Some(OPEN_METRICS))?;
    let metrics = Metrics::parse(&metrics.text())?;
    same("the content type of /readyz", &ready.header("content-type"), &Some(TEXT))?;
    Ok(Inspection { first, metrics, ready, second })
}

/// Holds one inspection against the machine before and after it.
pub(super) fn judge(
    world: &mut World,
    before: &Glance,
    told: &Inspection,
    after: &Glance,
) -> Result<(), String> {
    let slot = before.process.0;
    for status in [&told.first, &told.second] {
        agrees_with_itself(status)?;
        same("its name", &status["name"].as_str(), &Some(format!("node{slot}").as_str()))?;
    }
    let grows: Result<(), String> = GROWING.iter().try_for_each(|path| {
        let (first, second) = (number(&told.first, path)?, number(&told.second, path)?);
        if first <= second { Ok(()) } else { Err(format!("{path} went from {first} to {second}")) }
    });
    if before.member.is_none() || before.member != after.member {
        return Ok(());
    }
    grows?;
    world.mark("inspected");
    for status in [&told.first, &told.second] {
        agrees_with_view(world, before, status, after)?;
        status_is_right(world, before, status, after)?;
        status_is_ruled(world, before, status, after)?;
        fields_are_right(world, before, status, after)?;
    }
    scrape_agrees(world, before, told, after)?;
    figures_are_right(world, before, told, after)?;
    metrics_are_ruled(world, before, told, after)?;
    lowest_level_is_right(told)?;
    let (then, later) = (before.done, after.done);
    let is_same = then.taken == later.taken && then.failed == later.failed;
    if is_same && later.last_succeeded && !told.second["snapshot_failure"].is_null() {
        let why = &told.second["snapshot_failure"];
        return Err(format!("the last snapshot was written, and the status has {why}"));
    }
    ready_agrees(world, before, told, after)
}

/// A status on its own.
fn agrees_with_itself(status: &Value) -> Result<(), String> {
    let (applied, commit) = (number(status, "/applied_index")?, number(status, "/commit_index")?);
    let (last, snapshot) = (number(status, "/last_log/index")?, number(status, "/snapshot/index")?);
    if applied > commit || commit > last || snapshot > last {
        return Err(format!("snapshot {snapshot}, applied {applied}, commit {commit}, last {last}"));
    }
    for path in ["/revision", "/keys", "/store_bytes", "/queues/events", "/queues/storage"] {
        number(status, path)?;
    }
    let (id, leader) = (number(status, "/id")?, status.pointer("/leader/id").and_then(Value::as_u64));
    let role = status["role"].as_str().unwrap_or("");
    let leads = role == "leader";
    if leads != (leader == Some(id)) || matches!(role, "candidate" | "pre-candidate") && leader.is_some() {
        return Err(format!("{id} is a {role}, and follows {leader:?}"));
    }
    let members = status["members"].as_array().ok_or("there are no members")?;
    let mut joint = false;
    for member in members {
        let one = number(member, "/id")?;
        let standing = member["standing"].as_str().unwrap_or("");
        joint |= matches!(standing, "joining" | "leaving");
        if !matches!(standing, "voter" | "learner" | "joining" | "leaving") {
            return Err(format!("the standing of {one} is {standing:?}"));
        }
        if Some(one) == leader {
            for field in ["name", "raft_addr", "http_addr"] {
                same("the leader's entry", &member[field], &status["leader"][field])?;
            }
        }
        if one == id {
            same("its own role", &member["role"].as_str(), &Some(role))?;
            for field in ["commit_index", "applied_index", "term"] {
                same("its own entry", &member[field], &status[field])?;
            }
        } else if leads {
            let (matched, lag) = (number(member, "/match_index")?, number(member, "/lag")?);
            if matched > last || lag != last - matched {
                return Err(format!("{one} matches through {matched} of {last}, and lacks {lag}"));
            }
            let state = member["replication"].as_str().unwrap_or("");
            if !matches!(state, "probe" | "replicate" | "snapshot") {
                return Err(format!("replication to {one} is {state:?}"));
            }
        } else if !member["match_index"].is_null() || !member["lag"].is_null() {
            return Err(format!("{id} does not lead, and says how far {one} is"));
        }
    }
    // A leader's configuration may be joint without any voter that differs.
    if joint && status["joint"] != Value::Bool(true) {
        return Err("some join or leave, and it is not joint".to_owned());
    }
    Ok(())
}

fn role_name(role: RoleName) -> &'static str {
    match role {
        RoleName::Follower => "follower",
        RoleName::PreCandidate => "pre-candidate",
        RoleName::Candidate => "candidate",
        RoleName::Leader => "leader",
    }
}

/// A status against what the replica showed.
fn agrees_with_view(world: &World, before: &Glance, status: &Value, after: &Glance) -> Result<(), String> {
    let (then, later) = (&before.view, &after.view);
    same("its id", &number(status, "/id")?, &after.member.unwrap_or(0))?;
    let cluster = world.cluster.map(|cluster| cluster.to_string());
    same("its cluster", &status["cluster"].as_str().map(str::to_owned), &cluster)?;
    between("the term", then.term.get(), number(status, "/term")?, later.term.get())?;
    between("the commit index", then.commit.get(), number(status, "/commit_index")?, later.commit.get())?;
    let applied = number(status, "/applied_index")?;
    between("the applied index", then.last_applied.index.get(), applied, later.last_applied.index.get())?;
    // A node that has only asked for pre-votes follows the same leader in the same term as before.
    // A leader whose disk fails steps down when it ends, and nobody is shown that.
    let ends = !status["stopped"].is_null() || world.machines[before.process.0].disk.is_troubled();
    if let Some(role) = later.role.filter(|_| then.turns == later.turns && !ends) {
        same("the role", &status["role"].as_str(), &Some(role_name(role)))?;
        let leader = status.pointer("/leader/id").and_then(Value::as_u64);
        same("the leader", &leader, &later.leader.map(|id| id.get()))?;
    }
    if then.last_log == later.last_log && then.term == later.term {
        same("the last entry", &number(status, "/last_log/index")?, &later.last_log.index.get())?;
        same("its term", &number(status, "/last_log/term")?, &later.last_log.term.get())?;
    }
    if let Some(hash) = world.checks.state_at(LogIndex::new(applied)) {
        let hash = format!("{hash:032x}");
        same("the state's hash", &status["state_hash"].as_str(), &Some(hash.as_str()))?;
    }
    if let (Some(one), Some(other)) = (&then.membership, &later.membership)
        && one == other
    {
        let members = status["members"].as_array().ok_or("there are no members")?;
        let found: Vec<u64> = members.iter().filter_map(|member| member["id"].as_u64()).collect();
        let right: Vec<u64> = one.members.keys().map(|id| id.get()).collect();
        same("the members", &found, &right)?;
        same("whether it is joint", &status["joint"].as_bool(), &Some(one.outgoing.is_some()))?;
        for (member, (id, known)) in members.iter().zip(&one.members) {
            same("a member's name", &member["name"].as_str(), &Some(known.name.as_str()))?;
            same("a member's address", &member["raft_addr"].as_str(), &Some(known.raft_addr.as_str()))?;
            same("its HTTP address", &member["http_addr"].as_str(), &Some(known.http_addr.as_str()))?;
            let is_learner = member["standing"] == "learner";
            same("whether it learns", &is_learner, &one.learners.contains_key(id))?;
        }
    }
    Ok(())
}

/// Nothing that only grows has become less since the last look at the same process.
fn grown(then: &Value, now: &Value, counted: &Metrics, count: &Metrics) -> Result<(), String> {
    if then["store"] == now["store"] {
        for path in GROWING {
            let (then, now) = (number(then, path)?, number(now, path)?);
            if now < then {
                return Err(format!("{path} was {then}, and is {now}"));
            }
        }
    }
    // Mostly in the same order, with some that are new in between.
    let mut told = count.counters.iter();
    for (name, then) in &counted.counters {
        let is_it = |(of, _): &&(String, f64)| of == name;
        let ahead = told.clone().position(|it| is_it(&it));
        let found = match ahead {
            Some(ahead) => told.nth(ahead),
            None => count.counters.iter().find(is_it),
        };
        let now = found.map_or(0.0, |(_, now)| *now);
        if now < *then {
            return Err(format!("{name} was {then}, and is {now}"));
        }
    }
    Ok(())
}
