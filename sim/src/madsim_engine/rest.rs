//! The cluster at rest: nothing waits, and all members agree.

use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::figures::{nothing_vanished, rests};
use crate::madsim_engine::glance::{Glance, Inspection, number};
use crate::madsim_engine::http::{Request, ask};
use crate::madsim_engine::inspect::{TEXT, judge, look};
use crate::madsim_engine::laws::{exactly, same};
use crate::madsim_engine::standing::{examine_holdings, examine_idle};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::schedule::{MILLI, SECOND};
use serde_json::Value;

/// At rest everything has come to an end after this time.
const REST_MICROS: u64 = 10 * SECOND;

/// What requests that have not ended may hold: this one, and those of clients that went away.
const HEADS_BYTES: u64 = 128 << 10;

/// Every member at rest: nothing waits, and all of them agree.
pub(super) async fn examine_rest(shared: &Shared, slots: &[usize]) -> Result<(), String> {
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
            told.push((process, before, found));
        }
        match at_rest(shared, &told) {
            Ok(()) => {
                let processes: Vec<ProcessId> = told.iter().map(|(process, ..)| *process).collect();
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
        let ready = exactly(&ready, 200, TEXT, "ok\n");
        ready.map_err(|what| format!("machine {slot}, /readyz: {what}"))?;
    }
    Ok(())
}

fn at_rest(shared: &Shared, told: &[(ProcessId, Glance, Inspection)]) -> Result<(), String> {
    let first = &told[0].2.second;
    let mut leaders = 0;
    for (process, before, told) in told {
        let slot = &process.0;
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
        nothing_vanished(&world, *process, before, told).map_err(wrong)?;
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
