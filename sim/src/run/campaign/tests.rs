use super::{Campaign, Shard, Summary};
use crate::run::engine::Engine;

#[test]
fn progress_counts_the_seeds_that_are_left_out_too() {
    let shard = Shard { index: 1, count: 4 };
    let all =
        Campaign { engine: Engine::Queue, seeds: 402, from: 0, shard, limit: None, jobs: 1, voters: None };
    let summary = Summary { seeds: 20, violations: 2, ..Summary::default() };
    assert_eq!(all.progress(20, &summary), "20 of 101 seeds, 2 violations so far");
    let chosen = Campaign { voters: Some(5), ..all };
    let told = "100 of 101 seeds looked at, 20 with 5 voters run, 2 violations so far";
    assert_eq!(chosen.progress(100, &summary), told);
}
