//! Every state of three cores within small bounds. `cargo run --release -p sim --example model`
//! goes further.

use crate::model::{Bounds, Cuts, Disk, Exhaustive};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::collections::BTreeSet;

/// Two leaders, one after the other or at once, and a crash anywhere.
const ELECTIONS: Bounds = Bounds {
    terms: 2,
    campaigns: 2,
    entries: 0,
    crashes: 1,
    heartbeats: 0,
    pre_votes: false,
    single_entries: false,
};

/// One leader with a command, elected after pre-votes.
const REPLICATION: Bounds = Bounds {
    terms: 1,
    campaigns: 1,
    entries: 1,
    crashes: 0,
    heartbeats: 0,
    pre_votes: true,
    single_entries: true,
};

/// A heartbeat, which finds out what was lost, and a crash.
const RETRIES: Bounds =
    Bounds { entries: 0, crashes: 1, heartbeats: 1, single_entries: false, ..REPLICATION };

/// Three nodes that campaign. One of them may only ask for pre-votes.
const ASKING: Bounds = Bounds { campaigns: 3, crashes: 0, ..ELECTIONS };

/// Two leaders, elected after pre-votes.
const PRE_VOTES: Bounds = Bounds { crashes: 0, pre_votes: true, ..ELECTIONS };

#[test]
fn every_state_within_small_bounds_is_safe() {
    let mut happened = BTreeSet::new();
    for bounds in [ELECTIONS, ASKING, PRE_VOTES, REPLICATION, RETRIES] {
        let model = Exhaustive::new(bounds, Disk::Sound);
        let checker = model.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
        println!("{bounds:?}: {} states, {} steps of a core", checker.unique_state_count(), model.effects());
        for property in model.properties() {
            let found = checker.discovery(property.name).map(stateright::Path::into_actions);
            if property.expectation == Expectation::Always {
                assert_eq!(found, None, "{} does not hold after this, within {bounds:?}", property.name);
            } else if found.is_some() {
                happened.insert(property.name);
            }
        }
    }
    for property in Exhaustive::new(ELECTIONS, Disk::Sound).properties() {
        let is_example = property.expectation == Expectation::Sometimes;
        assert!(!is_example || happened.contains(property.name), "it never happens that {}", property.name);
    }
}

#[test]
fn what_is_cut_away_makes_no_difference() {
    // `--compare` of the example does the same within larger bounds.
    for (bounds, cuts) in [
        (REPLICATION, Cuts::Nothing),
        (RETRIES, Cuts::Nothing),
        (ELECTIONS, Cuts::Arrivals),
        (PRE_VOTES, Cuts::Arrivals),
    ] {
        let (essences_cut, states_cut) = Exhaustive::new(bounds, Disk::Sound).essences();
        let (essences, states) = Exhaustive::cutting(cuts, bounds, Disk::Sound).essences();
        println!("{bounds:?}: {states_cut} of {states} states are looked at");
        assert!(essences_cut == essences, "states are missed within {bounds:?}");
        assert!(states_cut < states, "nothing is cut away within {bounds:?}");
    }
}

/// The length of the shortest way to a violation of `property` on such disks.
fn shortest(bounds: Bounds, disk: Disk, property: &'static str) -> usize {
    let checker = Exhaustive::new(bounds, disk).checker().finish_when(HasDiscoveries::AnyFailures);
    let path = checker.spawn_bfs().join().discovery(property).expect("it is found");
    path.into_actions().len()
}

#[test]
fn a_disk_that_forgets_votes_is_found_out() {
    // Campaign and vote of one, campaign of another, a vote for the first, a crash, a vote for the
    // second by the same.
    assert_eq!(shortest(ELECTIONS, Disk::ForgetsVotes, "one leader a term"), 13);
}

#[test]
fn a_disk_that_forgets_an_entry_is_found_out() {
    // An election, an append, its receipt, a crash, and the acknowledgement that was sent before
    // it.
    assert_eq!(shortest(ELECTIONS, Disk::ForgetsAnEntry, "acknowledged entries are durable"), 11);
}
