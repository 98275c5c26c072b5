//! What one inspection brought, and what the machine was before and after it.

use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::http::Answer;
use crate::madsim_engine::metrics::Metrics;
use crate::madsim_engine::pipes::MessageBytes;
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::{Done, View, World};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a machine was at one moment.
#[derive(Clone, Debug)]
pub(super) struct Glance {
    pub process: ProcessId,
    pub member: Option<u64>,
    pub view: View,
    pub done: Done,
    pub syncs: u64,
    /// Its own clock.
    pub clock: u64,
    /// What it has sent to others, and received.
    pub traffic: MessageBytes,
    /// How many clients know that they were turned away, and that there was no memory for them.
    pub turned_away: u64,
    pub without_room: u64,
    /// Its answers that have arrived.
    pub arrived: BTreeMap<(String, u16), u64>,
}

/// What one inspection brought.
pub(super) struct Inspection {
    pub first: Value,
    pub metrics: Metrics,
    pub ready: Answer,
    pub second: Value,
}

impl World {
    pub(super) fn glance(&self, slot: usize) -> Glance {
        let machine = &self.machines[slot];
        Glance {
            process: (slot, machine.life),
            // One that is still starting shows what it was before.
            member: machine.member.filter(|_| machine.handle.is_some()).map(|id| id.get()),
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

/// A whole number of a status, by its path.
pub(super) fn number(status: &Value, path: &str) -> Result<u64, String> {
    let found = status.pointer(path).and_then(Value::as_u64);
    found.ok_or_else(|| format!("{path} is {:?} in /v1/status", status.pointer(path)))
}

/// That a figure lies between what it was before and after.
pub(super) fn between(what: &str, low: u64, found: u64, high: u64) -> Result<(), String> {
    if (low..=high).contains(&found) {
        Ok(())
    } else {
        Err(format!("{what} is {found}; it was {low} before, and {high} after"))
    }
}
