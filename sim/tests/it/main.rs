//! What makes a user trust the store: `cargo test -p sim`.

mod determinism;
mod exhaustive;
mod history;
#[path = "../model/mod.rs"]
mod model;
mod panics;
mod timeline;

use sim::run::campaign::{Campaign, Line, Shard, Summary};
use sim::run::engine::Engine;
use sim::schedule::Schedule;
use std::path::Path;

/// Enough that each fault and each rare path is met many times.
const QUEUE_SEEDS: u64 = 400;
/// Whole nodes take longer.
const MADSIM_SEEDS: u64 = 300;

fn campaign(engine: Engine, seeds: u64) -> Summary {
    let shard = Shard { index: 0, count: 1 };
    let campaign = Campaign { engine, seeds, from: 0, shard, limit: None, jobs: 0, voters: None };
    let summary = campaign.run(|line| match line {
        Line::Violation { line, .. } | Line::Progress(line) => eprintln!("{line}"),
    });
    println!("{summary}");
    summary
}

#[test]
fn no_seed_of_the_queue_engine_violates_anything_and_every_fault_strikes() {
    let summary = campaign(Engine::Queue, QUEUE_SEEDS);
    assert_eq!(summary.violations, 0, "the lines above name the seeds, and the command that replays each");
    assert_eq!(summary.missing, [""; 0], "never met");
}

#[test]
fn no_seed_of_the_madsim_engine_violates_anything_and_every_fault_strikes() {
    let summary = campaign(Engine::Madsim, MADSIM_SEEDS);
    assert_eq!(summary.violations, 0, "the lines above name the seeds, and the command that replays each");
    assert_eq!(summary.missing, [""; 0], "never met");
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
    let mut replayed = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let schedule: Schedule = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for engine in [Engine::Queue, Engine::Madsim] {
                let outcome = engine.run(schedule.clone(), false);
                assert_eq!(outcome.violation, None, "{} in the {engine} engine", path.display());
            }
            replayed += 1;
        }
    }
    assert!(replayed >= 2, "the files are part of the repository");
}
