//! The checks of `/readyz` against what the machine was: each holds, or does not, for a reason.

#[cfg(test)]
mod tests;

use crate::madsim_engine::glance::{Glance, Inspection};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::world::{View, World};
use crate::schedule::MILLI;
use infinitystore::raft::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// What `/readyz` looks at.
const CHECKS: [&str; 8] =
    ["storage", "disk-room", "trusted", "member", "started", "leader", "caught-up", "quorum"];
/// With more committed entries that it has not applied, a node is not caught up.
const BACKLOG_MAX: u64 = 10_000;
/// What a quorum has said counts for so long, and it may take so long to say it.
const QUORUM_MICROS: u64 = 1_100 * MILLI;

/// Whether each check holds, and what the answer says in all.
fn read(text: &str) -> Result<BTreeMap<&str, bool>, String> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let good = line.strip_prefix("[+] ").and_then(|rest| rest.strip_suffix(" ok"));
        let wrong = line.strip_prefix("[-] ").map(|rest| rest.split(':').next().unwrap_or(""));
        match (good.map(|it| (it, true)).or(wrong.map(|it| (it, false))), line) {
            (Some((check, holds)), _) => {
                found.insert(check, holds);
            }
            (None, "ok" | "not ready") => {}
            (None, _) => return Err(format!("/readyz says {line:?}")),
        }
    }
    let known: BTreeSet<&str> = CHECKS.into_iter().collect();
    let told: BTreeSet<&str> = found.keys().copied().collect();
    same("the checks of /readyz", &told, &known)?;
    Ok(found)
}

pub(super) fn ready_agrees(
    world: &World,
    before: &Glance,
    told: &Inspection,
    after: &Glance,
) -> Result<(), String> {
    let text = told.ready.text();
    let found = read(&text)?;
    let is_ready = found.values().all(|holds| *holds);
    let (code, end) = if is_ready { (200, "\nok\n") } else { (503, "not ready\n") };
    same("the code of /readyz", &told.ready.code, &code)?;
    if !text.ends_with(end) {
        return Err(format!("/readyz ends so: {text:?}"));
    }
    for (check, holds) in found {
        let (may_hold, may_not) = may_be(world, before, told, after, check);
        if holds && !may_hold {
            return Err(format!("/readyz says that {check} holds, and it does not"));
        }
        if !holds && !may_not {
            return Err(format!("/readyz says that {check} does not hold, and it does"));
        }
    }
    Ok(())
}

/// Whether it may hold, and whether it may not.
fn may_be(world: &World, before: &Glance, told: &Inspection, after: &Glance, check: &str) -> (bool, bool) {
    let (then, later) = (&before.view, &after.view);
    let (done, done_later) = (before.done, after.done);
    let is_still = then.turns == later.turns;
    let id = after.member.map(NodeId::new);
    let has_left = id.is_some_and(|id| world.checks.orders.has_left(id));
    match check {
        // What has stopped does not go on.
        "storage" => (told.second["stopped"].is_null(), !world.is_well(before.process.0)),
        "disk-room" => {
            let is_certain = done.full_turns == done_later.full_turns;
            let full = world.full_at.is_some();
            (!(is_certain && done.is_full), full && (done.is_full || !is_certain))
        }
        // One that has withdrawn does not come back. It may have been told before its own log says
        // so, or be called by another cluster.
        "trusted" => (!before.is_withdrawn, after.is_withdrawn || has_left || world.has_reverted()),
        "member" => {
            let is_in = |view: &View| {
                let members = view.membership.as_ref().map(|it| &it.members);
                id.is_some_and(|id| members.is_some_and(|members| members.contains_key(&id)))
            };
            (is_in(then) || is_in(later), !(is_in(then) && is_in(later)) || has_left)
        }
        "started" => (later.has_started, !then.has_started),
        "leader" => {
            // A leader whose disk fails steps down when it ends.
            let is_troubled = world.machines[before.process.0].disk.is_troubled();
            let has = then.leader.is_some();
            (has || !is_still, !(has && is_still) || is_troubled)
        }
        "caught-up" => {
            let backlog = |commit: &View, applied: &View| commit.commit.since(applied.last_applied.index);
            (backlog(then, later) <= BACKLOG_MAX, backlog(later, then) > BACKLOG_MAX)
        }
        "quorum" => (has_quorum(world, before, after), true),
        _ => (true, true),
    }
}

/// Whether a majority of each set of voters has said anything since a quorum had to. Where members
/// do not agree on who votes, nobody can say.
fn has_quorum(world: &World, before: &Glance, after: &Glance) -> bool {
    let (Some(one), Some(other)) = (&before.view.membership, &after.view.membership) else { return true };
    let members = world.machines.iter().filter(|machine| machine.member.is_some());
    if one != other || !members.clone().all(|it| it.view.membership.as_ref().is_none_or(|it| it == one)) {
        return true;
    }
    let timeout = world.schedule.settings.election_timeout_micros;
    // Clocks are off.
    let within = (QUORUM_MICROS + timeout) * 11 / 10 + 100 * MILLI;
    let since = before.at.saturating_sub(within);
    let has_spoken = |id: &&NodeId| {
        let mut hosts = members.clone().filter(|machine| machine.member == Some(**id));
        Some(id.get()) == after.member || hosts.next().is_none_or(|machine| machine.spoke_at >= since)
    };
    let is_majority = |voters: &BTreeSet<NodeId>| 2 * voters.iter().filter(has_spoken).count() > voters.len();
    std::iter::once(&one.voters).chain(&one.outgoing).all(is_majority)
}
