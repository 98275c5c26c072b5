//! A scrape held against the statuses before and after it, and against the machine.

use crate::madsim_engine::glance::{Glance, Inspection, between, number};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::world::World;
use serde_json::Value;

/// A scrape between two statuses.
pub(super) fn scrape_agrees(
    world: &World,
    before: &Glance,
    told: &Inspection,
    after: &Glance,
) -> Result<(), String> {
    let metrics = &told.metrics;
    world.limits.hold(&metrics.peer_queues)?;
    for (name, path) in [
        ("term", "/term"),
        ("commit_index", "/commit_index"),
        ("applied_index", "/applied_index"),
        ("snapshot_index", "/snapshot/index"),
    ] {
        between(name, number(&told.first, path)?, metrics.get(name)?, number(&told.second, path)?)?;
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
            same(name, &metrics.get(name)?, &first)?;
        }
    }
    // A node that was paused doubts its leader for a moment, and may find it again between the two.
    let still = told.first["term"] == told.second["term"] && told.first["leader"] == told.second["leader"];
    if still && before.done.role_changes == after.done.role_changes {
        let leads = u64::from(told.first["role"] == "leader");
        same("is_leader", &metrics.get("is_leader")?, &leads)?;
        let leader = told.first.pointer("/leader/id").and_then(Value::as_u64).unwrap_or(0);
        same("leader_id", &metrics.get("leader_id")?, &leader)?;
    }
    if told.first["members"].as_array().map(Vec::len) == told.second["members"].as_array().map(Vec::len) {
        let count = told.first["members"].as_array().map_or(0, Vec::len);
        same("members", &metrics.get("members")?, &(count as u64))?;
    }
    if world.is_well(before.process.0) {
        same("stopped", &metrics.get("stopped")?, &0)?;
    }
    let (then, later) = (before.done, after.done);
    between("elections", then.elections, metrics.get("elections_total")?, later.elections)?;
    between("snapshots taken", then.taken, metrics.get("snapshots_taken_total")?, later.taken)?;
    between(
        "snapshots installed",
        then.installed,
        metrics.get("snapshots_installed_total")?,
        later.installed,
    )?;
    between("snapshots failed", then.failed, metrics.get("snapshots_failed_total")?, later.failed)?;
    let (syncs, records) = (metrics.get("fsync_seconds_count")?, metrics.get("fsync_records_total")?);
    if records > later.writes || syncs > after.syncs {
        let (writes, all) = (later.writes, after.syncs);
        return Err(format!("{records} of {writes} records in {syncs} of {all} syncs are counted"));
    }
    if metrics.get("disk_full")? > 0 && world.full_at.is_none() {
        return Err("no disk was ever full, and that is what is counted".to_owned());
    }
    for (route, times) in &metrics.times {
        let counts = metrics.requests.iter().filter(|((of, _), _)| of == route).map(|(_, count)| count);
        same("requests by code, and times", &counts.sum::<u64>(), times)?;
    }
    world.book.compare(before.process, &before.arrived, &metrics.requests)
}
