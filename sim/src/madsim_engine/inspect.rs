//! Compares what a node says of itself with what it is: status, checks and metrics. It asks on one
//! connection, one after the other, so that a figure that only grows lies between what it was
//! before and after.

use crate::checks::Violation;
use crate::madsim_engine::book::Process;
use crate::madsim_engine::connections::Traffic;
use crate::madsim_engine::exam::ask;
use crate::madsim_engine::figures::{figures_are_right, rests, status_is_right};
use crate::madsim_engine::http::{Answer, Http, Request};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::standing::{examine_holdings, examine_idle};
use crate::madsim_engine::world::{Done, Shared, View, World};
use crate::madsim_engine::{now, sleep_until};
use crate::schedule::{MILLI, SECOND};
use crate::streams::{Stream, stream};
use infinitystore::raft::{LogIndex, RoleName};
use rand::Rng;
use serde_json::Value;
use std::collections::BTreeMap;

/// Between two inspections, at most.
const PAUSE_MICROS: u64 = 1_500 * MILLI;
/// Its stream of the seed.
const STREAM: u64 = 2_000;
/// At rest everything has come to an end after this time.
const REST_MICROS: u64 = 10 * SECOND;

/// What requests that have not ended may hold: this one, and those of clients that went away.
const HEADS_BYTES: u64 = 128 << 10;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What grows for as long as a process lives and stays in its cluster.
const GROWING: [&str; 4] = ["/term", "/commit_index", "/applied_index", "/snapshot/index"];

/// What a machine was at one moment.
#[derive(Clone, Debug)]
pub(in crate::madsim_engine) struct Glance {
    pub process: Process,
    pub member: Option<u64>,
    pub view: View,
    pub done: Done,
    pub syncs: u64,
    /// Its own clock.
    pub clock: u64,
    /// What it has sent to others, and received.
    pub traffic: Traffic,
    /// How many clients know that they were turned away, and that there was no memory for them.
    pub turned_away: u64,
    pub without_room: u64,
    /// Its answers that have arrived.
    pub arrived: BTreeMap<(String, u16), u64>,
}

/// What one inspection brought.
pub(in crate::madsim_engine) struct Told {
    pub first: Value,
    pub metrics: Metrics,
    pub ready: Answer,
    pub second: Value,
}

/// A distribution of times.
#[derive(Debug, Default)]
pub(in crate::madsim_engine) struct Distribution {
    /// Its name, and its labels but for the bounds.
    pub name: String,
    pub labels: String,
    /// Bounds in seconds, and how many are not above each.
    pub buckets: Vec<(f64, f64)>,
    /// In seconds.
    pub sum: Option<f64>,
    pub count: Option<f64>,
}

/// A scrape.
#[derive(Debug, Default)]
pub(in crate::madsim_engine) struct Metrics {
    /// Without labels.
    plain: BTreeMap<String, f64>,
    /// Of those the whole numbers.
    whole: BTreeMap<String, u64>,
    /// Requests by route and code.
    pub requests: BTreeMap<(String, u16), u64>,
    /// Times counted, by route.
    times: BTreeMap<String, u64>,
    /// Distributions.
    pub distributions: Vec<Distribution>,
    /// What waits for each peer.
    peer_queues: BTreeMap<String, f64>,
    /// Everything that may only grow, by its whole name, in the order in which it was told.
    counters: Vec<(String, f64)>,
}

/// Looks at one machine after the other until the faults end.
pub(in crate::madsim_engine) async fn inspect(shared: Shared) {
    let mut rng = stream(shared.lock().schedule.seed, Stream::Schedule, STREAM);
    let slots = shared.lock().machines.len();
    let mut before: BTreeMap<Process, (Value, Metrics)> = BTreeMap::new();
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
async fn look(shared: &Shared, slot: usize) -> Option<(Process, Told)> {
    let give_up = now() + 3 * SECOND;
    let mut connection = Http::open(shared, slot, give_up).await?;
    let process = (slot, connection.life);
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
    let understood = understand(&live, &first, &metrics, &second, ready);
    match understood {
        Ok(told) => Some((process, told)),
        Err(what) => {
            tell(shared, slot, Err(what));
            None
        }
    }
}

fn understand(
    live: &Answer,
    first: &Answer,
    metrics: &Answer,
    second: &Answer,
    ready: Answer,
) -> Result<Told, String> {
    crate::madsim_engine::laws::exactly(live, 200, TEXT, "ok\n")?;
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
    Ok(Told { first, metrics, ready, second })
}

impl World {
    fn glance(&self, slot: usize) -> Glance {
        let machine = &self.machines[slot];
        Glance {
            process: (slot, machine.life),
            member: machine.member.map(|id| id.get()),
            view: machine.view.clone(),
            done: machine.done,
            syncs: machine.disk.syncs(),
            clock: machine.clock.read(now()).get(),
            traffic: self.connections.traffic((slot, machine.life)),
            turned_away: self.book.turned_away((slot, machine.life)).0,
            without_room: self.book.refused_for_room((slot, machine.life)),
            arrived: self.book.arrived((slot, machine.life)),
        }
    }
}

pub(in crate::madsim_engine) fn number(status: &Value, path: &str) -> Result<u64, String> {
    let found = status.pointer(path).and_then(Value::as_u64);
    found.ok_or_else(|| format!("{path} is {:?} in /v1/status", status.pointer(path)))
}

pub(in crate::madsim_engine) fn between(what: &str, low: u64, found: u64, high: u64) -> Result<(), String> {
    if (low..=high).contains(&found) {
        Ok(())
    } else {
        Err(format!("{what} is {found}; it was {low} before, and {high} after"))
    }
}

/// Holds one inspection against the machine before and after it.
fn judge(world: &mut World, before: &Glance, told: &Told, after: &Glance) -> Result<(), String> {
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
    }
    told.metrics.agree(world, before, told, after)?;
    figures_are_right(world, before, told, after)?;
    let (then, later) = (before.done, after.done);
    let is_same = then.taken == later.taken && then.failed == later.failed;
    if is_same && later.last_succeeded && !told.second["snapshot_failure"].is_null() {
        let why = &told.second["snapshot_failure"];
        return Err(format!("the last snapshot was written, and the status has {why}"));
    }
    ready_agrees(world, before, &told.ready, after)
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
    if let Some(role) = later.role.filter(|_| then.turns == later.turns) {
        same("the role", &status["role"].as_str(), &Some(role_name(role)))?;
        let leader = status.pointer("/leader/id").and_then(Value::as_u64);
        same("the leader", &leader, &later.leader.map(|id| id.get()))?;
    }
    if then.last_log == later.last_log && then.term == later.term {
        same("the last entry", &number(status, "/last_log/index")?, &later.last_log.index.get())?;
        same("its term", &number(status, "/last_log/term")?, &later.last_log.term.get())?;
    }
    if let Some(known) = world.stores.get(&LogIndex::new(applied)) {
        let found = (number(status, "/revision")?, number(status, "/keys")?, number(status, "/store_bytes")?);
        same("revision, keys and bytes", &found, known)?;
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

/// The checks of `/readyz` against what the machine was.
fn ready_agrees(world: &World, before: &Glance, ready: &Answer, after: &Glance) -> Result<(), String> {
    let text = ready.text();
    let mut bad = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("[+] ").and_then(|rest| rest.strip_suffix(" ok")), line.strip_prefix("[-] "))
        {
            (Some(_), _) => {}
            (None, Some(wrong)) => bad.push(wrong.split(':').next().unwrap_or("")),
            (None, None) if line == "ok" || line == "not ready" => {}
            (None, None) => return Err(format!("/readyz says {line:?}")),
        }
    }
    let (code, end) = if bad.is_empty() { (200, "\nok\n") } else { (503, "not ready\n") };
    same("the code of /readyz", &ready.code, &code)?;
    if !text.ends_with(end) {
        return Err(format!("/readyz ends so: {text:?}"));
    }
    for check in ["storage", "disk-room", "member", "leader", "caught-up", "quorum"] {
        if !text.contains(&format!(" {check} ok\n")) && !bad.contains(&check) {
            return Err(format!("/readyz does not say whether {check} holds"));
        }
    }
    // Each of them for a reason.
    let (then, later) = (&before.view, &after.view);
    let followed = then.leader.is_some() && then.turns == later.turns;
    let full = world.full_at.is_some();
    for check in bad {
        let is_right = match check {
            "storage" => !world.is_well(before.process.0),
            "disk-room" => full,
            "leader" => !followed,
            "member" => {
                let is_in = |view: &View| {
                    view.membership.as_ref().is_some_and(|it| {
                        after.member.is_some_and(|id| it.members.keys().any(|known| known.get() == id))
                    })
                };
                !(is_in(then) && is_in(later))
            }
            "caught-up" => then.commit != then.last_applied.index || later.commit != later.last_applied.index,
            _ => true,
        };
        if !is_right {
            return Err(format!("/readyz says that {check} does not hold, and it does"));
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

impl Metrics {
    fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
        let endings = ["_total", "_bucket", "_count", "_sum", ""];
        // A family's lines follow what says its type.
        let mut last = ("", "");
        let body = text.strip_suffix("# EOF\n").ok_or("/metrics has no end")?;
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                if let (Some("TYPE"), Some(name), Some(kind)) = (words.next(), words.next(), words.next()) {
                    kinds.insert(name, kind);
                    last = (name, kind);
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').ok_or_else(|| format!("a metric is {line:?}"))?;
            let whole: Option<u64> = value.parse().ok();
            let value: f64 = value.parse().map_err(|_| format!("a metric is {line:?}"))?;
            let (family, labels) = name.split_once('{').unwrap_or((name, ""));
            let kind = if family.strip_prefix(last.0).is_some_and(|end| endings.contains(&end)) {
                last.1
            } else {
                let mut names = endings.iter().filter_map(|end| family.strip_suffix(end));
                let known = names.find_map(|it| kinds.get(it));
                known.ok_or_else(|| format!("{family} has no type"))?
            };
            if kind != "gauge" {
                metrics.counters.push((name.to_owned(), value));
            }
            if kind == "histogram" {
                metrics.note_distribution(family, labels, value)?;
            }
            if family == "infinitystore_peer_queue" {
                metrics.peer_queues.insert(name.to_owned(), value);
            }
            if labels.is_empty() && metrics.plain.insert(family.to_owned(), value).is_some() {
                return Err(format!("{family} is there twice"));
            }
            if let Some(whole) = whole.filter(|_| labels.is_empty()) {
                metrics.whole.insert(family.to_owned(), whole);
            }
            let whole = || whole.ok_or_else(|| format!("a count is {line:?}"));
            let label = |of: &str| {
                let rest = labels.split_once(&format!("{of}=\""))?.1;
                rest.split('"').next().map(str::to_owned)
            };
            if family == "infinitystore_http_requests_total" {
                let route = label("route").ok_or("a request without a route")?;
                let code = label("code").and_then(|code| code.parse().ok()).unwrap_or(0);
                metrics.requests.insert((route, code), whole()?);
            } else if family == "infinitystore_http_request_seconds_count" {
                metrics.times.insert(label("route").ok_or("a time without a route")?, whole()?);
            }
        }
        Ok(metrics)
    }

    /// A line of a distribution.
    fn note_distribution(&mut self, family: &str, labels: &str, value: f64) -> Result<(), String> {
        let mut parts = labels.trim_end_matches('}').split(',').filter(|part| !part.is_empty());
        let bound = parts.clone().find_map(|part| part.strip_prefix("le=\""));
        let others = parts.find(|part| !part.starts_with("le=")).unwrap_or("");
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
        let name = name.ok_or_else(|| format!("{family} is no part of a distribution"))?;
        let is_it = |it: &Distribution| it.name == name && it.labels == others;
        if !self.distributions.last().is_some_and(is_it) {
            let (name, labels) = (name.to_owned(), others.to_owned());
            self.distributions.push(Distribution { name, labels, ..Distribution::default() });
        }
        let Some(it) = self.distributions.last_mut() else { return Ok(()) };
        match bound {
            Some(bound) => {
                let bound = bound.trim_end_matches('"');
                let bound = if bound == "+Inf" { Ok(f64::INFINITY) } else { bound.parse() };
                it.buckets.push((bound.map_err(|_| format!("a bound of {family} is {labels:?}"))?, value));
            }
            None if family.ends_with("_sum") => it.sum = Some(value),
            None => it.count = Some(value),
        }
        Ok(())
    }

    pub(in crate::madsim_engine) fn get(&self, name: &str) -> Result<u64, String> {
        let found = self.whole.get(&format!("infinitystore_{name}"));
        found.copied().ok_or_else(|| format!("there is no metric {name}"))
    }

    /// A scrape between two statuses.
    fn agree(&self, world: &World, before: &Glance, told: &Told, after: &Glance) -> Result<(), String> {
        world.limits.hold(&self.peer_queues)?;
        for (name, path) in [
            ("term", "/term"),
            ("commit_index", "/commit_index"),
            ("applied_index", "/applied_index"),
            ("snapshot_index", "/snapshot/index"),
        ] {
            between(name, number(&told.first, path)?, self.get(name)?, number(&told.second, path)?)?;
        }
        for (name, path) in [
            ("last_log_index", "/last_log/index"),
            ("keys", "/keys"),
            ("store_bytes", "/store_bytes"),
            ("revision", "/revision"),
        ] {
            let (first, second) = (number(&told.first, path)?, number(&told.second, path)?);
            let still = told.first["applied_index"] == told.second["applied_index"]
                && told.first["term"] == told.second["term"];
            if first == second && still {
                same(name, &self.get(name)?, &first)?;
            }
        }
        if told.first["term"] == told.second["term"] && told.first["leader"] == told.second["leader"] {
            let leads = u64::from(told.first["role"] == "leader");
            same("is_leader", &self.get("is_leader")?, &leads)?;
            let leader = told.first.pointer("/leader/id").and_then(Value::as_u64).unwrap_or(0);
            same("leader_id", &self.get("leader_id")?, &leader)?;
        }
        if told.first["members"].as_array().map(Vec::len) == told.second["members"].as_array().map(Vec::len) {
            let count = told.first["members"].as_array().map_or(0, Vec::len);
            same("members", &self.get("members")?, &(count as u64))?;
        }
        if world.is_well(before.process.0) {
            same("stopped", &self.get("stopped")?, &0)?;
        }
        let (then, later) = (before.done, after.done);
        between("elections", then.elections, self.get("elections_total")?, later.elections)?;
        between("snapshots taken", then.taken, self.get("snapshots_taken_total")?, later.taken)?;
        between(
            "snapshots installed",
            then.installed,
            self.get("snapshots_installed_total")?,
            later.installed,
        )?;
        between("snapshots failed", then.failed, self.get("snapshots_failed_total")?, later.failed)?;
        let (syncs, records) = (self.get("fsync_seconds_count")?, self.get("fsync_records_total")?);
        if records > later.writes || syncs > after.syncs {
            let (writes, all) = (later.writes, after.syncs);
            return Err(format!("{records} of {writes} records in {syncs} of {all} syncs are counted"));
        }
        if self.get("disk_full")? > 0 && world.full_at.is_none() {
            return Err("no disk was ever full, and that is what is counted".to_owned());
        }
        for (route, times) in &self.times {
            let counts = self.requests.iter().filter(|((of, _), _)| of == route).map(|(_, count)| count);
            same("requests by code, and times", &counts.sum::<u64>(), times)?;
        }
        world.book.compare(before.process, &before.arrived, &self.requests)
    }
}

/// Every member at rest: nothing waits, and all of them agree.
pub(in crate::madsim_engine) async fn examine_rest(shared: &Shared, slots: &[usize]) -> Result<(), String> {
    let give_up = now() + REST_MICROS;
    loop {
        let mut told = Vec::new();
        for &slot in slots {
            let before = shared.lock().glance(slot);
            let (process, found) =
                look(shared, slot).await.ok_or_else(|| format!("machine {slot} does not say what it is"))?;
            let after = shared.lock().glance(slot);
            if before.process == process && after.process == process {
                judge(&mut shared.lock(), &before, &found, &after)
                    .map_err(|what| format!("machine {slot}: {what}"))?;
            }
            told.push((slot, process, found));
        }
        match at_rest(shared, &told) {
            Ok(()) => {
                let processes: Vec<Process> = told.iter().map(|(_, process, _)| *process).collect();
                examine_holdings(shared, &processes).await?;
                break;
            }
            Err(what) if now() >= give_up => return Err(what),
            Err(_) => sleep_until(now() + 200 * MILLI).await,
        }
    }
    examine_idle(shared, slots).await?;
    for &slot in slots {
        let ready = ask(shared, slot, &Request::get("/readyz")).await?;
        let ready = crate::madsim_engine::laws::exactly(&ready, 200, TEXT, "ok\n");
        ready.map_err(|what| format!("machine {slot}, /readyz: {what}"))?;
    }
    Ok(())
}

fn at_rest(shared: &Shared, told: &[(usize, Process, Told)]) -> Result<(), String> {
    let first = &told[0].2.second;
    let mut leaders = 0;
    for (slot, process, told) in told {
        let status = &told.second;
        let wrong = |what: String| format!("machine {slot} at rest: {what}");
        for queue in ["events", "storage", "proposals", "reads"] {
            same(queue, &status["queues"][queue].as_u64(), &Some(0)).map_err(wrong)?;
        }
        // Heads that are under way, of this question, too; what large requests and answers took is
        // given back.
        let held = number(status, "/http/memory_bytes").map_err(wrong)?;
        if held > HEADS_BYTES {
            return Err(wrong(format!("requests hold {held} bytes")));
        }
        for field in [
            "cluster",
            "leader",
            "term",
            "commit_index",
            "applied_index",
            "revision",
            "keys",
            "state_hash",
            "last_log",
        ] {
            same(field, &status[field], &first[field]).map_err(wrong)?;
        }
        same("joint", &status["joint"], &Value::Bool(false)).map_err(wrong)?;
        same("disk_full", &status["disk_full"], &Value::Bool(false)).map_err(wrong)?;
        same("commit and applied", &status["commit_index"], &status["applied_index"]).map_err(wrong)?;
        same("commit and last", &status["commit_index"], &status["last_log"]["index"]).map_err(wrong)?;
        let peers = status["members"].as_array().map_or(0, Vec::len).saturating_sub(1);
        same("peers that are measured", &told.metrics.peer_queues.len(), &peers).map_err(wrong)?;
        for (name, value) in &told.metrics.peer_queues {
            if *value != 0.0 {
                return Err(wrong(format!("{name} is {value}")));
            }
        }
        let members = status["members"].as_array().cloned().unwrap_or_default();
        if status["role"] == "leader" {
            leaders += 1;
            for member in members.iter().filter(|member| member["id"] != status["id"]) {
                same("lag", &member["lag"].as_u64(), &Some(0)).map_err(wrong)?;
                same("replication", &member["replication"].as_str(), &Some("replicate")).map_err(wrong)?;
                same("a refused snapshot", &member["snapshot_refused"], &Value::Null).map_err(wrong)?;
                if member["silent_seconds"].as_f64().is_none_or(|silent| silent > 2.0) {
                    return Err(wrong(format!("a member is silent: {member}")));
                }
            }
        }
        let world = shared.lock();
        rests(&world, *process, told).map_err(wrong)?;
        let (open, writes) = (world.connections.to_http(*process), world.machines[*slot].done.writes);
        let directories = world.machines[*slot].disk.directories();
        drop(world);
        // What belonged to the cluster that it was in before is gone.
        for kind in ["wal-", "snapshots-"] {
            if directories.iter().filter(|name| name.starts_with(kind)).count() > 1 {
                return Err(wrong(format!("its data directory holds {directories:?}")));
            }
        }
        let counted = usize::try_from(told.metrics.get("http_connections")?).unwrap_or(usize::MAX);
        // The one that asks counts too; one that has just been closed may.
        if counted > open + 2 || counted == 0 {
            return Err(wrong(format!("{counted} connections are counted, {open} are open")));
        }
        same("records made durable", &told.metrics.get("fsync_records_total")?, &writes).map_err(wrong)?;
    }
    same("leaders", &leaders, &1)
}
