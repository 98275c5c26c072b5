//! Every figure of `/metrics` and every field of `/v1/status`, held against what the run itself has
//! seen of the node: bytes that passed, messages, steps, times that clients waited, settings that
//! it was started with.

use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::glance::{Glance, Inspection, between, number};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::metrics::{Distribution, Metrics};
use crate::madsim_engine::world::World;
use infinitystore::api::HttpOptions;
use infinitystore::raft::NodeId;
use serde_json::Value;

/// A sum of seconds may be off by so much, in parts of it: it is written as a decimal, and clocks
/// drift.
const ROUNDING: f64 = 1e-6;
/// Clocks are no more than so much faster or slower than ours.
const DRIFT: f64 = 0.06;
/// Micros in a second.
const MICROS: f64 = 1e6;

/// Checks a status, except what is compared with the replica: version, store, time up, newest
/// snapshot, members, roles, trouble, and settings.
pub(super) fn status_is_right(
    world: &World,
    before: &Glance,
    status: &Value,
    after: &Glance,
) -> Result<(), String> {
    let slot = before.process.0;
    let machine = &world.machines[slot];
    same("its version", &status["version"].as_str(), &Some(env!("CARGO_PKG_VERSION")))?;
    let store = machine.store.map(|store| store.to_string());
    same("its store", &status["store"].as_str().map(str::to_owned), &store)?;
    let uptime = status["uptime_seconds"].as_f64().ok_or("there is no uptime")?;
    let (low, high) = (before.clock as f64 / MICROS, after.clock as f64 / MICROS);
    // One that has stopped shows what it was then.
    let low = if status["stopped"].is_null() { low } else { 0.0 };
    if uptime < low - ROUNDING * low || uptime > high + ROUNDING * high {
        return Err(format!("it is up for {uptime} s; its clock showed {low} before, and {high} after"));
    }
    if before.done.snapshot == after.done.snapshot
        && let Some(last) = before.done.snapshot
    {
        let found = (number(status, "/snapshot/index")?, number(status, "/snapshot/term")?);
        same("its newest snapshot", &found, &(last.index.get(), last.term.get()))?;
    }
    // A member tells it when it calls, before it sees the change in its own log.
    let is_leaving = after.member.is_some_and(|id| world.checks.orders.has_left(NodeId::new(id)));
    let (then, later) = (&before.view.membership, &after.view.membership);
    if let (Some(one), Some(other)) = (then, later)
        && one == other
    {
        let own = after.member.is_some_and(|id| one.members.keys().any(|known| known.get() == id));
        if own && !is_leaving {
            same("whether it was removed", &status["removed"].as_bool(), &Some(false))?;
        }
        let members = status["members"].as_array().ok_or("there are no members")?;
        for (member, (id, known)) in members.iter().zip(&one.members) {
            same("a member's store", &member["store"].as_str(), &Some(known.store_id.to_string().as_str()))?;
            let standing = match &one.outgoing {
                Some(old) if !old.contains(id) && one.voters.contains(id) => "joining",
                Some(old) if old.contains(id) && !one.voters.contains(id) => "leaving",
                _ if one.learners.contains_key(id) => "learner",
                _ => "voter",
            };
            same("a member's standing", &member["standing"].as_str(), &Some(standing))?;
        }
    }
    roles_are_right(status)?;
    if world.is_well(slot) {
        same("whether it has stopped", &status["stopped"], &Value::Null)?;
    }
    if world.full_at.is_none() {
        same("whether its disk is full", &status["disk_full"].as_bool(), &Some(false))?;
    }
    if !world.has_reverted() {
        if !is_leaving {
            same("whether it takes part", &status["withdrawn"], &Value::Null)?;
        }
        for member in status["members"].as_array().into_iter().flatten() {
            if !world.checks.orders.has_left(NodeId::new(number(member, "/id")?)) {
                same("whether a member takes part", &member["withdrawn"], &Value::Null)?;
            }
        }
    }
    settings_are_shown(world, status)
}

/// What it says that the others are, and in which term.
fn roles_are_right(status: &Value) -> Result<(), String> {
    let (id, leader) = (number(status, "/id")?, status.pointer("/leader/id").and_then(Value::as_u64));
    for member in status["members"].as_array().into_iter().flatten() {
        let one = number(member, "/id")?;
        let (itself, leads) = (one == id, Some(one) == leader);
        let term = if itself || leads { &status["term"] } else { &Value::Null };
        same(&format!("the term of {one}"), &member["term"], term)?;
        let role = match (leads, leader.is_some(), member["standing"] == "learner") {
            _ if itself => continue,
            (true, ..) => Some("leader"),
            (false, true, true) => Some("learner"),
            (false, true, false) => Some("follower"),
            (false, false, _) => None,
        };
        same(&format!("the role of {one}"), &member["role"].as_str(), &role)?;
        for field in ["commit_index", "applied_index"] {
            same(&format!("{field} of {one}"), &member[field], &Value::Null)?;
        }
        let silent = member["silent_seconds"].as_f64();
        let uptime = status["uptime_seconds"].as_f64().unwrap_or(0.0);
        if silent.is_some() && status["role"] != "leader" || silent.is_some_and(|it| it < 0.0 || it > uptime)
        {
            return Err(format!("{one} is silent for {silent:?} s"));
        }
    }
    Ok(())
}

/// The HTTP server's own, and the queues within their limits.
fn settings_are_shown(world: &World, status: &Value) -> Result<(), String> {
    let options: HttpOptions = world.limits.http();
    let most = options.connections_max as u64;
    same("the limit of connections", &number(status, "/http/connections_max")?, &most)?;
    let room = options.memory_bytes_max as u64;
    same("the limit of memory", &number(status, "/http/memory_bytes_max")?, &room)?;
    same("the limit of open files", &status["http"]["open_files_max"], &Value::Null)?;
    let (open, held) = (number(status, "/http/connections")?, number(status, "/http/memory_bytes")?);
    if open == 0 || open > most || held > room {
        return Err(format!("{open} connections of {most}, and {held} bytes of {room}"));
    }
    let is_low = open * 10 >= most * 9;
    same("whether connections run out", &status["http"]["connections_low"].as_bool(), &Some(is_low))?;
    let pending = world.limits.pending_requests() as u64;
    for queue in ["reads", "proposals"] {
        let waiting = number(status, &format!("/queues/{queue}"))?;
        if waiting > pending {
            return Err(format!("{waiting} {queue} wait, and {pending} may"));
        }
    }
    Ok(())
}

/// A scrape against what passed before and after it.
pub(super) fn figures_are_right(
    world: &World,
    before: &Glance,
    told: &Inspection,
    after: &Glance,
) -> Result<(), String> {
    let (metrics, then, later) = (&told.metrics, before.done, after.done);
    // What is encrypted cannot be counted from outside.
    if !world.limits.secured {
        let received = metrics.get("peer_received_bytes_total")?;
        between("bytes received", before.traffic.received, received, after.traffic.received)?;
    }
    let sent = metrics.get("peer_sent_bytes_total")?;
    if sent < before.traffic.sent {
        return Err(format!("{sent} bytes are counted as sent, {} were", before.traffic.sent));
    }
    let dropped = metrics.get("peer_messages_dropped_total")?;
    if dropped > later.messages {
        return Err(format!("{dropped} of {} messages are counted as dropped", later.messages));
    }
    if world.schedule.settings.corrupt_ppm == 0 {
        // A node that a later start of a peer calls closes the connection of the earlier start.
        let refused = metrics.get("peer_messages_refused_total")?;
        let most = later.senseless + world.connections.calls_to(before.process);
        between("messages that make no sense", then.senseless, refused, most)?;
    }
    let applies = metrics.get("apply_seconds_count")?;
    between("steps with which it applied", then.applies, applies, later.applies)?;
    http_figures(world, before, metrics)?;
    let withdrawn = |status: &Value| u64::from(!status["withdrawn"].is_null());
    if withdrawn(&told.first) == withdrawn(&told.second) {
        same("withdrawn", &metrics.get("withdrawn")?, &withdrawn(&told.first))?;
    }
    let members_withdrawn = |status: &Value| {
        let members = status["members"].as_array().into_iter().flatten();
        members.filter(|member| !member["withdrawn"].is_null()).count() as u64
    };
    if members_withdrawn(&told.first) == members_withdrawn(&told.second) {
        let count = members_withdrawn(&told.first);
        same("members withdrawn", &metrics.get("members_withdrawn")?, &count)?;
    }
    if told.first["disk_full"] == told.second["disk_full"] {
        let full = u64::from(told.first["disk_full"] == Value::Bool(true));
        same("disk_full", &metrics.get("disk_full")?, &full)?;
    }
    metrics.distributions_add_up()?;
    times_are_right(world, before, metrics)
}

/// A member at rest: nothing waits by its own count, everybody takes part and is found where the
/// membership has them, and what it sent is what the others' ends were given.
pub(super) fn rests(world: &World, process: ProcessId, told: &Inspection) -> Result<(), String> {
    let (status, metrics) = (&told.second, &told.metrics);
    for name in [
        "pending_proposals",
        "pending_reads",
        "storage_queue",
        "event_queue",
        "withdrawn",
        "members_withdrawn",
        "stopped",
        "disk_full",
    ] {
        same(name, &metrics.get(name)?, &0)?;
    }
    // Where no call has ended, none of it got lost before it was taken.
    let traffic = world.connections.traffic(process);
    let sent = metrics.get("peer_sent_bytes_total")?;
    if !traffic.is_cut && sent > traffic.sent && !world.limits.secured {
        return Err(format!("{sent} bytes are counted as sent, {} were", traffic.sent));
    }
    same("whether it takes part", &status["withdrawn"], &Value::Null)?;
    same("whether it was removed", &status["removed"].as_bool(), &Some(false))?;
    same("whether it waits to join", &status["joining"].as_bool(), &Some(false))?;
    for member in status["members"].as_array().into_iter().flatten() {
        same("whether a member takes part", &member["withdrawn"], &Value::Null)?;
        let id = number(member, "/id")?;
        let here = world.machines.iter().find(|it| it.member.is_some_and(|own| own.get() == id));
        if let Some(machine) = here {
            let (raft, http) = (machine.raft_addr(), machine.http_addr());
            same("where a member is", &member["raft_addr"].as_str(), &Some(raft.as_str()))?;
            same("where clients find it", &member["http_addr"].as_str(), &Some(http.as_str()))?;
        }
    }
    Ok(())
}

/// What a replica said was handed to connections, or is counted as dropped: nothing waits. Where a
/// call has ended, what it had taken up may have vanished with it.
pub(super) fn nothing_vanished(
    world: &World,
    process: ProcessId,
    before: &Glance,
    told: &Inspection,
) -> Result<(), String> {
    let (traffic, said) = (world.connections.traffic(process), world.machines[process.0].done.messages);
    let is_unseen = traffic.is_cut || world.limits.secured;
    if is_unseen || before.process != process || world.machines[process.0].life != process.1 {
        return Ok(());
    }
    let dropped = told.metrics.get("peer_messages_dropped_total")?;
    let least = before.done.messages.saturating_sub(traffic.messages);
    let most = said.saturating_sub(before.traffic.messages);
    between("messages that were dropped", least, dropped, most)
}

fn http_figures(world: &World, before: &Glance, metrics: &Metrics) -> Result<(), String> {
    let refused = metrics.get("http_connections_refused_total")?;
    let (_, most) = world.book.turned_away(before.process);
    let most = if world.limits.connections.is_some() { most } else { 0 };
    between("connections turned away", before.turned_away.min(most), refused, most)?;
    let without_room = metrics.get("http_memory_refused_total")?;
    let room = world.limits.http().memory_bytes_max as u64;
    let known = world.book.refused_for_room(before.process);
    let least = before.without_room;
    between("requests for which there was no memory", least, without_room, known)?;
    let held = metrics.get("http_memory_bytes")?;
    between("bytes that requests hold", 0, held, room)?;
    Ok(())
}

/// Times that are counted are times that passed.
fn times_are_right(world: &World, before: &Glance, metrics: &Metrics) -> Result<(), String> {
    let machine = &world.machines[before.process.0];
    let written = metrics.requests.get(&("/set".to_owned(), 200)).copied().unwrap_or(0);
    let beside = world.book.beside(before.process);
    let asked = world.book.asked(before.process, "/set") + beside.0;
    let (count, sum) = metrics.distribution("proposal", "")?;
    if count < written as f64 || count > asked as f64 {
        return Err(format!("{count} writes are timed; {written} were done, and {asked} asked for"));
    }
    let one = world.schedule.settings.sync_min_micros as f64 / MICROS * (1.0 - DRIFT);
    if sum < one * written as f64 - ROUNDING {
        return Err(format!("{written} writes took {sum} s, and a sync alone takes {one}"));
    }
    if machine.has_jumped {
        return Ok(());
    }
    let (asked, answered, waited) = world.book.waited(before.process, "/set");
    let most = (waited + beside.1) as f64 / MICROS * (1.0 + DRIFT) + ROUNDING;
    if asked == answered && !world.book.waits_beside(before.process) && sum > most {
        return Err(format!("{count} writes took {sum} s; clients waited {most}"));
    }
    for route in ["/set", "/get", "/livez", "/readyz", "/join", "/", "other"] {
        let (asked, answered, waited) = world.book.waited(before.process, route);
        let sum = metrics.distribution("http_request", &format!("route=\"{route}\"")).map_or(0.0, |it| it.1);
        let most = waited as f64 / MICROS * (1.0 + DRIFT) + ROUNDING;
        if asked == answered && sum > most {
            return Err(format!("{answered} requests to {route} took {sum} s; clients waited {most}"));
        }
    }
    Ok(())
}

impl Metrics {
    /// Count and sum of a distribution.
    fn distribution(&self, name: &str, labels: &str) -> Result<(f64, f64), String> {
        let is_it = |it: &&Distribution| {
            let of = it.name.strip_prefix("infinitystore_").and_then(|it| it.strip_suffix("_seconds"));
            of == Some(name) && it.labels == labels
        };
        let found = self.distributions.iter().find(is_it).and_then(|it| it.count.zip(it.sum));
        found.ok_or_else(|| format!("there is no distribution {name} {labels}"))
    }

    /// The buckets of each distribution grow, the last has all, and the sum is what such counts can
    /// make.
    fn distributions_add_up(&self) -> Result<(), String> {
        self.distributions.iter().try_for_each(Distribution::adds_up)
    }
}

impl Distribution {
    fn adds_up(&self) -> Result<(), String> {
        let wrong = |what: String| format!("{} {}: {what}", self.name, self.labels);
        let (mut below, mut low, mut high, mut bound_before) = (0.0, 0.0, 0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count < below || *bound <= bound_before {
                return Err(wrong(format!("{:?} do not grow", self.buckets)));
            }
            low += (count - below) * bound_before;
            if *count > below {
                high += (count - below) * bound;
            }
            (below, bound_before) = (*count, *bound);
        }
        let (Some(count), Some(sum)) = (self.count, self.sum) else {
            return Err(wrong("it has no count, or no sum".to_owned()));
        };
        if bound_before.is_finite() || below < count || below > count {
            return Err(wrong(format!("{below} are in the last bucket, below {bound_before}, of {count}")));
        }
        if sum < low * (1.0 - ROUNDING) - ROUNDING || sum > high * (1.0 + ROUNDING) + ROUNDING {
            return Err(wrong(format!("{count} have the sum {sum}; their buckets allow {low} to {high}")));
        }
        Ok(())
    }
}
