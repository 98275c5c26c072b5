//! What makes a user trust the store: `cargo test -p sim`.

use sim::campaign::{Campaign, Shard};
use sim::engine::Engine;
use sim::queue::run;
use sim::schedule::Schedule;
use std::path::Path;

/// Enough that each fault and each rare path is met many times.
const SEEDS: u64 = 400;

#[test]
fn no_seed_violates_anything_and_every_fault_strikes() {
    let campaign = Campaign {
        engine: Engine::Queue,
        seeds: SEEDS,
        from: 0,
        shard: Shard { index: 0, count: 1 },
        limit: None,
        jobs: 0,
    };
    let summary = campaign.run(|line| eprintln!("{line}"));
    println!("{summary}");
    assert_eq!(summary.violations, 0, "the lines above name the seeds, and the command that replays each");
    for mark in MARKS {
        assert!(
            summary.marks.contains_key(mark),
            "{mark:?} was never met: the simulation has lost its teeth"
        );
    }
}

/// Faults and rare paths that a campaign of this size has to meet.
const MARKS: [&str; 31] = [
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
    "message corrupted",
    "message duplicated",
    "message lost",
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
];

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        let hashes: Vec<u64> = (0..2).map(|_| run(Schedule::generate(seed), false).trace_hash).collect();
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
        let verbose = run(Schedule::generate(seed), true).trace_hash;
        assert_eq!(hashes[0], verbose, "watching seed {seed} changes it");
    }
}

#[test]
fn different_seeds_give_different_traces() {
    let hashes: std::collections::BTreeSet<u64> =
        (0..10).map(|seed| run(Schedule::generate(seed), false).trace_hash).collect();
    assert_eq!(hashes.len(), 10);
}

#[test]
fn a_schedule_survives_its_file() {
    let schedule = Schedule::generate(7);
    let text = serde_json::to_string(&schedule).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
}

#[test]
fn schedules_that_once_failed_hold() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let schedule: Schedule = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let outcome = run(schedule, false);
            assert_eq!(outcome.violation, None, "{}", path.display());
        }
    }
}
