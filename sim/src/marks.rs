//! Coverage marks: faults and rare paths that a campaign has to meet, or it has lost its teeth.

use crate::engine::Engine;
use std::collections::BTreeMap;

/// A campaign of so many seeds has to meet every mark.
pub const SEEDS_ENOUGH: u64 = 300;

/// Marks of both engines.
const BOTH: [&str; 31] = [
    "bit flipped",
    "blackout",
    "clock jump",
    "crash in a write",
    "damage reported",
    "disk full",
    "disk full noticed",
    "disk wiped",
    "fsync fails",
    "join",
    "join begun",
    "kill",
    "machine joined",
    "member removed",
    "misdirected write",
    "partition",
    "pause",
    "power loss",
    "process ended by disk error",
    "remove",
    "rot",
    "slow disk",
    "slow node",
    "snapshot failed",
    "snapshot installed",
    "snapshot taken",
    "start failed by disk",
    "transfer",
    "wipe",
    "write fails",
    "write misdirected",
];

/// Marks of the queue engine, whose network carries messages.
const QUEUE: [&str; 3] = ["message corrupted", "message duplicated", "message lost"];

/// Marks of the madsim engine, whose network carries byte streams.
const MADSIM: [&str; 8] = [
    "bytes corrupted",
    "bytes held back",
    "connection broken",
    "connection half open",
    "connection reset",
    "keep-alive found a dead end",
    "packet lost",
    "write taken in part",
];

/// The marks that `met` lacks.
#[must_use]
pub fn missing(engine: Engine, met: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let own: &[&str] = match engine {
        Engine::Queue => &QUEUE,
        Engine::Madsim => &MADSIM,
    };
    BOTH.iter().chain(own).copied().filter(|mark| !met.contains_key(mark)).collect()
}

#[cfg(test)]
mod tests {
    use super::missing;
    use crate::engine::Engine;
    use std::collections::BTreeMap;

    #[test]
    fn what_was_not_met_is_named() {
        assert_eq!(missing(Engine::Queue, &BTreeMap::new()).len(), 34);
        let all = missing(Engine::Madsim, &BTreeMap::new()).into_iter().map(|mark| (mark, 1)).collect();
        assert!(missing(Engine::Madsim, &all).is_empty());
        assert_eq!(missing(Engine::Queue, &all), ["message corrupted", "message duplicated", "message lost"]);
    }
}
