//! Every figure has a ruler: each metric, and each field of the status, is named here with what it
//! has to be. One that is not named is a violation itself.

#[cfg(test)]
mod tests;

use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::glance::{Glance, Inspection, between};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::metrics::Metrics;
use crate::madsim_engine::store_figures::StoreFigures;
use crate::madsim_engine::world::{Done, World};
use infinitystore::raft::LogIndex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
enum Ruler {
    /// It lies between what this field of the status was before and after. A text counts as 1, a
    /// list as its length, nothing as 0.
    Same(&'static str),
    /// It is what stores have that have applied the same entries.
    At(fn(&StoreFigures) -> u64),
    /// It lies between what the run had counted before and after.
    Between(fn(&Done) -> u64),
    /// It is no more than this.
    AtMost(fn(&World, ProcessId) -> u64),
    /// It is zero unless this has happened in the run.
    ZeroUnless(fn(&World, ProcessId) -> bool),
    /// By port: it lies between what this field was before and after, of a port that speaks TLS.
    Port(&'static str),
    /// It is held against what is known in a place of its own, which is named.
    In(&'static str),
    /// Nothing is known of it, and why.
    Free(&'static str),
}

use Ruler::{At, AtMost, Between, Free, In, Port, Same, ZeroUnless};

const CONNECTIONS_ARE_FEW: Ruler = ZeroUnless(|world, _| world.limits.connections.is_some());
const WAS_DAMAGED: Ruler = ZeroUnless(|world, (slot, _)| world.machines[slot].was_damaged);
const SCRUBS: Ruler = ZeroUnless(|world, _| world.schedule.seed.is_multiple_of(2));
/// Requests that can be under way are hundreds, and clients are few.
const NEVER: Ruler = ZeroUnless(|_, _| false);
const PENDING_MAX: Ruler = AtMost(|world, _| world.limits.pending_requests() as u64);
const ASKED: Ruler = AtMost(|world, process| world.book.asked_in_all(process));
const TIMES: Ruler = In("figures.rs: times that are counted are times that passed");

/// Every metric, as its family is called.
const METRICS: [(&str, &[Ruler]); 65] = [
    ("fsync_seconds", &[In("scrape.rs: syncs of the disk")]),
    ("fsync_records", &[In("scrape.rs: writes that were asked for")]),
    ("apply_seconds", &[Between(|done| done.applies)]),
    ("proposal_seconds", &[TIMES]),
    ("http_request_seconds", &[TIMES]),
    ("http_requests", &[In("book.rs: what clients asked, and were answered")]),
    ("http_connections", &[AtMost(|world, _| world.limits.http().connections_max as u64)]),
    ("http_connections_refused", &[CONNECTIONS_ARE_FEW, In("figures.rs: who was turned away")]),
    ("http_connections_evicted", &[CONNECTIONS_ARE_FEW, AtMost(|world, it| world.book.turned_away(it).1)]),
    ("http_requests_delayed", &[NEVER]),
    ("http_requests_refused", &[NEVER]),
    ("http_watchers", &[AtMost(|world, process| world.book.asked(process, "/v1/watch"))]),
    ("http_memory_bytes", &[In("figures.rs: within its limit, and at rest next to nothing")]),
    ("http_memory_refused", &[In("figures.rs: who was refused")]),
    ("elections", &[Between(|done| done.elections)]),
    ("peer_messages_dropped", &[In("figures.rs: messages of the replica")]),
    ("peer_messages_refused", &[In("figures.rs: messages that make no sense")]),
    ("lease_calls_refused", &[Between(|done| done.lease_calls_refused)]),
    ("peer_sent_bytes", &[In("figures.rs: bytes that passed")]),
    ("peer_received_bytes", &[In("figures.rs: bytes that passed")]),
    ("peer_queue", &[In("scrape.rs: within its limit, and at rest empty")]),
    ("snapshots_taken", &[Between(|done| done.taken)]),
    ("snapshots_installed", &[Between(|done| done.installed)]),
    ("snapshots_failed", &[Between(|done| done.failed)]),
    ("snapshots_repeated", &[Between(|done| done.repeated)]),
    ("segments_failed", &[Between(|done| done.segments_failed)]),
    ("repairs", &[Between(|done| done.repaired), Same("/disk/repairs")]),
    ("repair_bytes", &[WAS_DAMAGED]),
    ("scrub_bytes", &[Same("/disk/scrub/bytes"), SCRUBS]),
    ("scrub_passes", &[Same("/disk/scrub/passes"), SCRUBS]),
    ("scrub_damaged", &[Same("/disk/scrub/damaged"), WAS_DAMAGED]),
    ("alarms", &[Same("/disk/alarms"), WAS_DAMAGED]),
    ("disk_slow", &[Same("/disk/slow")]),
    ("disk_full", &[Same("/disk_full"), ZeroUnless(|world, _| world.full_at.is_some())]),
    ("certificate_expires_seconds", &[Port("expires_in_seconds")]),
    ("certificate_trouble", &[Port("trouble")]),
    ("certificate_reloads", &[Port("reloads")]),
    ("tls_handshakes", &[Port("handshakes")]),
    ("tls_handshakes_failed", &[Port("handshakes_failed")]),
    ("term", &[Same("/term")]),
    ("is_leader", &[In("scrape.rs: as the role was before and after")]),
    ("leader_id", &[In("scrape.rs: as it was before and after")]),
    ("commit_index", &[Same("/commit_index")]),
    ("applied_index", &[Same("/applied_index")]),
    ("last_log_index", &[Same("/last_log/index")]),
    ("snapshot_index", &[Same("/snapshot/index")]),
    ("members", &[Same("/members")]),
    ("keys", &[Same("/keys"), At(|store| store.keys)]),
    ("store_bytes", &[Same("/store_bytes"), At(|store| store.bytes)]),
    ("revision", &[Same("/revision"), At(|store| store.revision)]),
    ("compacted_revision", &[Same("/compacted"), At(|store| store.compacted)]),
    ("history_bytes", &[Same("/history_bytes"), At(|store| store.history_bytes)]),
    ("answers_bytes", &[Same("/answers_bytes"), At(|store| store.answers_bytes)]),
    ("oldest_answer_seconds", &[Same("/oldest_answer_seconds")]),
    ("leases", &[Same("/leases"), At(|store| store.leases)]),
    ("pending_watches", &[ASKED]),
    ("pending_proposals", &[PENDING_MAX]),
    ("pending_reads", &[PENDING_MAX]),
    ("storage_queue", &[Free("it comes and goes between two looks; at rest it is 0")]),
    ("event_queue", &[Free("it comes and goes between two looks; at rest it is 0")]),
    ("withdrawn", &[Same("/withdrawn")]),
    ("members_withdrawn", &[In("figures.rs: as many as the status has")]),
    ("feature_level", &[Same("/feature_level"), At(|store| store.level)]),
    ("lowest_spoken_level", &[In("status_fields.rs: the lowest that the status has")]),
    ("stopped", &[Same("/stopped")]),
];

/// These have no line while there is nothing to count: they have labels.
const LABELLED: [&str; 8] = [
    "http_request_seconds",
    "http_requests",
    "peer_queue",
    "certificate_expires_seconds",
    "certificate_trouble",
    "certificate_reloads",
    "tls_handshakes",
    "tls_handshakes_failed",
];

const VIEW: Ruler = In("inspect.rs: what the replica showed before and after");
const ITSELF: Ruler = In("inspect.rs: a status agrees with itself");
const GLANCE: Ruler = In("figures.rs: what is known of the machine");
const FIELDS: Ruler = In("status_fields.rs: what the run knows of it");

/// Every field of the status; `*` is any place in a list.
const STATUS: [(&str, &[Ruler]); 91] = [
    ("/version", &[GLANCE]),
    ("/cluster", &[VIEW]),
    ("/name", &[VIEW]),
    ("/id", &[VIEW]),
    ("/store", &[GLANCE]),
    ("/role", &[VIEW]),
    ("/term", &[VIEW]),
    ("/leader/id", &[VIEW]),
    ("/leader/name", &[ITSELF]),
    ("/leader/raft_addr", &[ITSELF]),
    ("/leader/http_addr", &[ITSELF]),
    ("/last_log/term", &[VIEW]),
    ("/last_log/index", &[VIEW]),
    ("/commit_index", &[VIEW]),
    ("/applied_index", &[VIEW]),
    ("/snapshot/term", &[GLANCE]),
    ("/snapshot/index", &[GLANCE]),
    ("/snapshot_failure", &[VIEW, ZeroUnless(|world, (slot, _)| world.machines[slot].done.failed > 0)]),
    ("/revision", &[At(|store| store.revision)]),
    ("/keys", &[At(|store| store.keys)]),
    ("/store_bytes", &[At(|store| store.bytes)]),
    ("/compacted", &[At(|store| store.compacted)]),
    ("/history_bytes", &[At(|store| store.history_bytes)]),
    ("/answers_bytes", &[At(|store| store.answers_bytes)]),
    ("/oldest_answer_seconds", &[FIELDS]),
    ("/leases", &[At(|store| store.leases)]),
    ("/state_hash", &[VIEW]),
    ("/feature_level", &[At(|store| store.level)]),
    ("/speaks/lowest", &[FIELDS]),
    ("/speaks/highest", &[FIELDS]),
    ("/configuration", &[FIELDS]),
    ("/joint", &[VIEW]),
    ("/members/*/id", &[VIEW]),
    ("/members/*/name", &[VIEW]),
    ("/members/*/raft_addr", &[VIEW]),
    ("/members/*/http_addr", &[VIEW]),
    ("/members/*/store", &[GLANCE]),
    ("/members/*/standing", &[GLANCE]),
    ("/members/*/role", &[GLANCE]),
    ("/members/*/term", &[GLANCE]),
    ("/members/*/match_index", &[FIELDS]),
    ("/members/*/commit_index", &[GLANCE]),
    ("/members/*/applied_index", &[GLANCE]),
    ("/members/*/lag", &[ITSELF]),
    ("/members/*/replication", &[ITSELF]),
    ("/members/*/silent_seconds", &[GLANCE]),
    ("/members/*/snapshot_refused", &[ZeroUnless(|world, (slot, _)| world.machines[slot].done.failed > 0)]),
    ("/members/*/withdrawn", &[GLANCE]),
    ("/members/*/speaks/lowest", &[FIELDS]),
    ("/members/*/speaks/highest", &[FIELDS]),
    ("/members/*/spoken_level", &[FIELDS]),
    ("/queues/events", &[Free("it comes and goes between two looks; at rest it is 0")]),
    ("/queues/storage", &[Free("it comes and goes between two looks; at rest it is 0")]),
    ("/queues/proposals", &[PENDING_MAX]),
    ("/queues/reads", &[PENDING_MAX]),
    ("/queues/watches", &[ASKED]),
    ("/http/connections", &[GLANCE]),
    ("/http/connections_max", &[GLANCE]),
    ("/http/connections_low", &[GLANCE]),
    ("/http/memory_bytes", &[GLANCE]),
    ("/http/memory_bytes_max", &[GLANCE]),
    ("/http/open_files_max", &[GLANCE]),
    ("/tls/client/name", &[FIELDS]),
    ("/tls/client/expires_in_seconds", &[FIELDS]),
    ("/tls/client/trouble", &[FIELDS]),
    ("/tls/client/reloads", &[FIELDS]),
    ("/tls/client/handshakes", &[FIELDS]),
    ("/tls/client/handshakes_failed", &[FIELDS]),
    ("/tls/peer/name", &[FIELDS]),
    ("/tls/peer/expires_in_seconds", &[FIELDS]),
    ("/tls/peer/trouble", &[FIELDS]),
    ("/tls/peer/reloads", &[FIELDS]),
    ("/tls/peer/handshakes", &[FIELDS]),
    ("/tls/peer/handshakes_failed", &[FIELDS]),
    ("/disk_full", &[GLANCE]),
    ("/disk/slow", &[FIELDS]),
    ("/disk/write_seconds", &[FIELDS]),
    ("/disk/scrub/bytes", &[FIELDS, SCRUBS]),
    ("/disk/scrub/passes", &[FIELDS, SCRUBS]),
    ("/disk/scrub/pass_bytes", &[SCRUBS]),
    ("/disk/scrub/pass_read", &[FIELDS, SCRUBS]),
    ("/disk/scrub/last_pass_seconds_ago", &[FIELDS, SCRUBS]),
    ("/disk/scrub/damaged", &[WAS_DAMAGED]),
    ("/disk/scrub/mended", &[WAS_DAMAGED]),
    ("/disk/repairs", &[Between(|done| done.repaired)]),
    ("/disk/alarms", &[WAS_DAMAGED]),
    ("/removed", &[GLANCE]),
    // At rest no member shows it (figures.rs).
    ("/joining", &[ZeroUnless(|world, (slot, _)| world.machines[slot].joins)]),
    ("/stopped", &[GLANCE]),
    ("/withdrawn", &[GLANCE]),
    ("/uptime_seconds", &[GLANCE]),
];

/// What a field says, as a figure: a text counts as 1, a list as its length, nothing as 0.
pub(super) fn figure(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Bool(is) => u64::from(*is),
        Value::Number(number) => number.as_u64().unwrap_or_else(|| {
            let seconds = number.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            seconds.map_or(0, |seconds| seconds.as_secs())
        }),
        Value::Array(list) => list.len() as u64,
        Value::String(_) | Value::Object(_) => 1,
    }
}

fn at<'v>(status: &'v Value, path: &str) -> &'v Value {
    status.pointer(path).unwrap_or(&Value::Null)
}

/// What is judged, and by what.
struct Judged<'w> {
    world: &'w World,
    before: &'w Glance,
    after: &'w Glance,
    /// The statuses around it, if they are of one state.
    frame: Option<(&'w Value, &'w Value)>,
    /// What had been applied then.
    applied: LogIndex,
}

impl Judged<'_> {
    fn hold(&self, what: &str, found: u64, ruler: Ruler) -> Result<(), String> {
        let process = self.before.process;
        match ruler {
            Same(path) => match self.frame {
                Some((first, second)) => {
                    let (one, other) = (figure(at(first, path)), figure(at(second, path)));
                    between(what, one.min(other), found, one.max(other))
                }
                None => Ok(()),
            },
            At(of) => match self.world.stores.get(&self.applied) {
                Some(store) => same(&format!("{what} at {}", self.applied), &found, &of(store)),
                None => Ok(()),
            },
            Between(of) => between(what, of(&self.before.done), found, of(&self.after.done)),
            AtMost(most) => between(what, 0, found, most(self.world, process)),
            ZeroUnless(has_reason) if found > 0 && !has_reason(self.world, process) => {
                Err(format!("{what} is {found}, and nothing is so"))
            }
            In(why) | Free(why) if why.is_empty() => Err(format!("the rule of {what} is in no place")),
            ZeroUnless(_) | Port(_) | In(_) | Free(_) => Ok(()),
        }
    }
}

/// Whether all that has no time of its own is the same in both.
fn is_same_state(one: &Value, other: &Value) -> bool {
    let ids = |status: &Value| -> Vec<Value> {
        let members = status["members"].as_array().into_iter().flatten();
        members.map(|member| member["id"].clone()).collect()
    };
    one["applied_index"] == other["applied_index"] && one["term"] == other["term"] && ids(one) == ids(other)
}

/// Every metric of a scrape is held against its rulers.
pub(super) fn metrics_are_ruled(
    world: &World,
    before: &Glance,
    told: &Inspection,
    after: &Glance,
) -> Result<(), String> {
    let (metrics, first, second) = (&told.metrics, &told.first, &told.second);
    let applied = metrics.get("applied_index")?;
    let is_framed = is_same_state(first, second) && first["applied_index"] == applied;
    let frame = is_framed.then_some((first, second));
    all_are_named(metrics)?;
    let judged = Judged { world, before, after, frame, applied: LogIndex::new(applied) };
    for (name, rulers) in METRICS {
        for ruler in rulers {
            if let Port(field) = ruler {
                ports_are_right(metrics, name, field, (first, second))?;
            } else if let Some(found) = metrics.figure(name) {
                judged.hold(name, found, *ruler)?;
            }
        }
    }
    Ok(())
}

/// There is a rule for each metric, and a metric for each rule.
fn all_are_named(metrics: &Metrics) -> Result<(), String> {
    let found: BTreeSet<&str> = metrics.families.iter().map(String::as_str).collect();
    if let Some(family) = found.iter().find(|family| METRICS.iter().all(|(name, _)| name != *family)) {
        return Err(format!("the metric {family} has no rule"));
    }
    let missing = METRICS.iter().find(|(name, _)| !found.contains(name) && !LABELLED.contains(name));
    missing.map_or(Ok(()), |(name, _)| Err(format!("the metric {name} is not there")))
}

/// A metric with a value for each port that speaks TLS.
fn ports_are_right(
    metrics: &Metrics,
    name: &str,
    field: &str,
    (first, second): (&Value, &Value),
) -> Result<(), String> {
    for port in ["client", "peer"] {
        let (one, other) = (&first["tls"][port], &second["tls"][port]);
        let found = metrics.ports.get(&(name.to_owned(), port.to_owned())).copied();
        same(&format!("whether there is {name} of {port}"), &found.is_some(), &!one.is_null())?;
        let Some(found) = found else { continue };
        let signed = |status: &Value| status[field].as_i64().unwrap_or_else(|| figure(&status[field]) as i64);
        let (low, high) = (signed(one).min(signed(other)), signed(one).max(signed(other)));
        if found < low as f64 || found > high as f64 {
            return Err(format!("{name} of {port} is {found}; the status has {low} and {high}"));
        }
    }
    Ok(())
}

/// Every field of a status is held against its rulers.
pub(super) fn status_is_ruled(
    world: &World,
    before: &Glance,
    status: &Value,
    after: &Glance,
) -> Result<(), String> {
    let applied = LogIndex::new(figure(&status["applied_index"]));
    let judged = Judged { world, before, after, frame: None, applied };
    let mut fields = Vec::new();
    leaves(status, &mut String::new(), &mut fields);
    for (path, value) in fields {
        let rule = STATUS.iter().find(|(known, _)| *known == path);
        // What there is not has no fields.
        let is_absent = value.is_null()
            && STATUS
                .iter()
                .any(|(known, _)| known.strip_prefix(&*path).is_some_and(|it| it.starts_with('/')));
        let Some((_, rulers)) = rule else {
            if is_absent {
                continue;
            }
            return Err(format!("the field {path} of the status has no rule"));
        };
        for ruler in *rulers {
            judged.hold(&path, figure(value), *ruler)?;
        }
    }
    Ok(())
}

/// The fields of a value, by their paths. Places in a list of texts are no fields of their own.
fn leaves<'v>(value: &'v Value, path: &mut String, into: &mut Vec<(String, &'v Value)>) {
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                path.push('/');
                path.push_str(name);
                leaves(field, path, into);
                path.truncate(length);
            }
        }
        Value::Array(list) if path == "/members" => {
            for one in list {
                path.push_str("/*");
                leaves(one, path, into);
                path.truncate(length);
            }
        }
        _ => into.push((path.clone(), value)),
    }
}
