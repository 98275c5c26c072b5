//! Fields of a status that only the run knows: levels, certificates, the age of answers, what is
//! found on the disk.

use crate::checks::answer_times::age_is_right;
use crate::madsim_engine::certificates::{NOT_AFTER_SECONDS, wall_seconds};
use crate::madsim_engine::glance::{Glance, Inspection, between, number};
use crate::madsim_engine::laws::same;
use crate::madsim_engine::rulers::figure;
use crate::madsim_engine::world::World;
use infinitystore::codec::FeatureLevels;
use infinitystore::raft::Time;
use serde_json::{Value, json};
use std::time::Duration;

/// A node may read so many bytes a second of what is at rest, and rests for so long after a pass.
pub(super) const SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;
/// What is read in one go counts before the pause that it costs.
const SCRUB_BURST_BYTES: u64 = 8 << 20;
const MICROS: f64 = 1e6;
/// Clocks are no more than so much faster or slower than ours.
const DRIFT: f64 = 0.06;

/// What one status says of what only the run knows.
pub(super) fn fields_are_right(
    world: &World,
    before: &Glance,
    status: &Value,
    after: &Glance,
) -> Result<(), String> {
    let slot = before.process.0;
    let (then, later) = (&before.view, &after.view);
    if then.configuration == later.configuration && then.turns == later.turns {
        same("the configuration", &number(status, "/configuration")?, &later.configuration.get())?;
    }
    levels_are_right(world, slot, status)?;
    // Of one term of its lead what members have only grows.
    if then.leads && later.leads && then.turns == later.turns {
        for member in status["members"].as_array().into_iter().flatten() {
            let id = number(member, "/id")?;
            let of = |glance: &Glance| {
                let known = glance.view.matched.iter().find(|(known, _)| known.get() == id);
                known.map(|(_, index)| index.get())
            };
            if let (Some(low), Some(high)) = (of(before), of(after)) {
                between(&format!("the match index of {id}"), low, number(member, "/match_index")?, high)?;
            }
        }
    }
    let is_still = then.last_applied == later.last_applied;
    if is_still && !world.machines[slot].has_jumped {
        let told = status["oldest_answer_seconds"].as_f64();
        let told = told.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let told = told.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
        let clocks = (Time::new(before.clock), Time::new(after.clock));
        same("the oldest answer", &before.oldest_answer, &after.oldest_answer)?;
        age_is_right(before.oldest_answer, told, clocks)?;
    }
    disk_is_right(world, before, status, after)?;
    tls_is_right(world, before, status, after)
}

fn levels(of: FeatureLevels) -> Value {
    json!({ "lowest": of.lowest().get(), "highest": of.highest().get() })
}

/// The levels that nodes speak are those of their releases, and two of them talk at the highest
/// one that both speak.
fn levels_are_right(world: &World, slot: usize, status: &Value) -> Result<(), String> {
    let own = world.machines[slot].speaks;
    same("the levels that it speaks", &status["speaks"], &levels(own))?;
    for member in status["members"].as_array().into_iter().flatten() {
        let (speaks, spoken) = (&member["speaks"], &member["spoken_level"]);
        if member["id"] == status["id"] {
            same("its own levels", speaks, &levels(own))?;
            same("the level at which it talks to itself", spoken, &Value::Null)?;
            continue;
        }
        same("a member that it talks to", &speaks.is_null(), &spoken.is_null())?;
        if speaks.is_null() {
            continue;
        }
        let is_old = world.schedule.mixed && *speaks == levels(FeatureLevels::OF_THE_OLDEST);
        if !is_old {
            same("a member's levels", speaks, &levels(FeatureLevels::OF_THIS_RELEASE))?;
        }
        let highest = figure(&speaks["highest"]).min(own.highest().get().into());
        same("the level at which it talks to a member", &figure(spoken), &highest)?;
    }
    Ok(())
}

/// The lowest level at which it talks to any member is that of the statuses around it.
pub(super) fn lowest_level_is_right(told: &Inspection) -> Result<(), String> {
    let spoken = |status: &Value| -> Vec<u64> {
        let members = status["members"].as_array().into_iter().flatten();
        members.filter_map(|member| member["spoken_level"].as_u64()).collect()
    };
    let (first, second) = (spoken(&told.first), spoken(&told.second));
    if first != second {
        return Ok(());
    }
    let lowest = first.into_iter().min().unwrap_or(0);
    same("lowest_spoken_level", &told.metrics.get("lowest_spoken_level")?, &lowest)
}

fn disk_is_right(world: &World, before: &Glance, status: &Value, after: &Glance) -> Result<(), String> {
    let disk = &status["disk"];
    let (then, later) = (before.done, after.done);
    if then.slow_turns == later.slow_turns {
        same("whether its disk is slow", &disk["slow"].as_bool(), &Some(later.is_slow))?;
    }
    let took = disk["write_seconds"].as_f64().unwrap_or(-1.0) * MICROS;
    let least = world.schedule.settings.sync_min_micros as f64 * (1.0 - DRIFT);
    let uptime = status["uptime_seconds"].as_f64().unwrap_or(0.0) * MICROS;
    if took != 0.0 && (took < least - 1.0 || took > uptime) {
        return Err(format!("a write takes {took} µs; a sync takes {least} at least"));
    }
    let (Some(one), Some(other)) = (&before.scrub, &after.scrub) else { return Ok(()) };
    let scrub = &disk["scrub"];
    between("bytes that were read again", one.bytes, number(scrub, "/bytes")?, other.bytes)?;
    between("passes over what is at rest", one.passes, number(scrub, "/passes")?, other.passes)?;
    if one.mended == other.mended && one.damaged == other.damaged {
        let (damaged, mended) = (figure(&scrub["damaged"]), figure(&scrub["mended"]));
        same("damaged and mended files", &(damaged, mended), &(one.damaged.len() as u64, one.mended))?;
    }
    if number(scrub, "/pass_read")? > number(scrub, "/pass_bytes")? {
        return Err(format!("more is read than there is: {scrub}"));
    }
    let ago = scrub["last_pass_seconds_ago"].as_f64();
    same("whether a pass has ended", &ago.is_some(), &(figure(&scrub["passes"]) > 0))?;
    if ago.is_some_and(|ago| ago < 0.0 || ago * MICROS > uptime) {
        return Err(format!("the last pass ended {ago:?} s ago"));
    }
    if world.machines[before.process.0].has_jumped {
        return Ok(());
    }
    let lived = (after.at - before.started_at) as f64 / MICROS * (1.0 + DRIFT);
    let most = SCRUB_BURST_BYTES as f64 + SCRUB_BYTES_PER_SECOND as f64 * lived;
    if number(scrub, "/bytes")? as f64 > most {
        return Err(format!("{} bytes were read again in {lived} s", scrub["bytes"]));
    }
    Ok(())
}

/// Certificates that are looked at again and again, and handshakes.
fn tls_is_right(world: &World, before: &Glance, status: &Value, after: &Glance) -> Result<(), String> {
    let slot = before.process.0;
    let number_of = world.machines[slot].namesake.unwrap_or(slot);
    for (position, port) in ["peer", "client"].into_iter().enumerate() {
        let told = &status["tls"][port];
        let (Some(then), Some(later)) = (before.certificates[position], after.certificates[position]) else {
            same(&format!("TLS of the port for {port}s"), told, &Value::Null)?;
            continue;
        };
        let name = format!("node{number_of}");
        same("a certificate's name", &told["name"].as_str(), &Some(name.as_str()))?;
        let left = number(told, "/expires_in_seconds")?;
        let ends = |at: u64| NOT_AFTER_SECONDS - wall_seconds(at);
        between("a certificate's time", ends(after.at), left, ends(before.at))?;
        let reloads = number(told, "/reloads")?;
        between("certificates taken into use", then.reloads, reloads, later.reloads)?;
        if then.looks == later.looks {
            same("trouble with a certificate", &!told["trouble"].is_null(), &then.is_bad)?;
        }
        let (good, failed) = (number(told, "/handshakes")?, number(told, "/handshakes_failed")?);
        let (least, most) = match port {
            "client" => (before.spoken_to, world.book.turned_away(before.process).1),
            _ => (0, world.connections.ends_at(before.process)),
        };
        if good < least || good + failed > most {
            return Err(format!("{good} handshakes went well, {failed} failed; {least} to {most} were made"));
        }
    }
    Ok(())
}
