//! What one inspection brought, and what the machine was before and after it.

use crate::checks::answer_times::OldestAnswer;
use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::certificate_files::Looks;
use crate::madsim_engine::http::Answer;
use crate::madsim_engine::metrics::Metrics;
use crate::madsim_engine::pipes::MessageBytes;
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::{Done, View, World};
use infinitystore::runtime::{ScrubProgress, ScrubStatus};
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
    /// When that was, and when its process started.
    pub at: u64,
    pub started_at: u64,
    /// How many clients have had an answer from it on a connection of their own.
    pub spoken_to: u64,
    /// Whether its replica had withdrawn.
    pub is_withdrawn: bool,
    /// When the oldest answer was made that it remembers.
    pub oldest_answer: Option<OldestAnswer>,
    /// What it has found of what is at rest.
    pub scrub: Option<ScrubStatus>,
    /// How often the certificate files of its ports were read, and what they were then.
    pub certificates: [Option<Looks>; 2],
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
            at: now(),
            started_at: machine.started_at,
            spoken_to: self.book.spoken_to((slot, machine.life)),
            is_withdrawn: machine.is_withdrawn,
            oldest_answer: machine.shown.answers.oldest(),
            scrub: machine.scrub.as_ref().map(ScrubProgress::status),
            certificates: machine.certificates.each_ref().map(|it| it.as_ref().map(|it| it.looks())),
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
