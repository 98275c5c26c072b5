//! The same seed is the same run: twice, in another process, watched or not. And a stray source of
//! randomness is noticed.

use sim::run::engine::Engine;
use sim::schedule::Schedule;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::process::Command;

const ENGINES: [Engine; 2] = [Engine::Queue, Engine::Madsim];

fn hash(engine: Engine, seed: u64) -> u64 {
    engine.run(Schedule::generate(seed), false).trace_hash
}

/// The first seed whose runs differ.
fn first_difference(seeds: u64, run: impl Fn(u64) -> u64) -> Option<u64> {
    (0..seeds).find(|&seed| run(seed) != run(seed))
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for engine in ENGINES {
        let forwards: Vec<u64> = (0..25).map(|seed| hash(engine, seed)).collect();
        for (seed, forwards) in forwards.into_iter().enumerate().rev() {
            assert_eq!(forwards, hash(engine, seed as u64), "{engine} engine, seed {seed}");
        }
        for seed in 0..3 {
            let verbose = engine.run(Schedule::generate(seed), true).trace_hash;
            assert_eq!(hash(engine, seed), verbose, "watching seed {seed} changes it ({engine})");
        }
    }
}

#[test]
fn another_process_gives_the_same_trace() {
    for engine in ENGINES {
        let replay = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
            let output = command.args(["replay", "7", "--engine", &engine.to_string()]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().find(|line| line.starts_with("trace ")).unwrap().to_owned()
        };
        let here = format!("trace {:016x}", hash(engine, 7));
        assert_eq!([replay(), replay()], [here.clone(), here], "{engine}");
    }
}

#[test]
fn different_seeds_give_different_traces() {
    for engine in ENGINES {
        let hashes: BTreeSet<u64> = (0..10).map(|seed| hash(engine, seed)).collect();
        assert_eq!(hashes.len(), 10, "{engine}");
    }
}

#[test]
fn a_stray_source_of_randomness_would_be_noticed() {
    // One draw that does not come from the seed: the delay of a heartbeat, by a microsecond or so.
    for engine in ENGINES {
        let stray = |seed| {
            let mut schedule = Schedule::generate(seed);
            schedule.settings.heartbeat_interval_micros += RandomState::new().hash_one(seed) % 1_000;
            engine.run(schedule, false).trace_hash
        };
        assert!(first_difference(10, stray).is_some(), "{engine}");
    }
}
