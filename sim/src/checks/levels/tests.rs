use crate::checks::levels::LevelChecks;
use crate::schedule::SECOND;
use infinitystore::codec::{FeatureLevel, FeatureLevels};
use infinitystore::raft::NodeId;

const OLD: FeatureLevel = FeatureLevel::OLDEST;
const NEW: FeatureLevel = FeatureLevel::NEWEST;

#[test]
fn a_level_that_one_member_has_never_spoken_is_not_raised() {
    let mut checks = LevelChecks::default();
    checks.started(0, NEW);
    checks.started(1, NEW);
    checks.started(2, OLD);
    assert!(checks.raised(NEW, &[0, 1], SECOND).is_ok());
    assert!(checks.raised(NEW, &[0, 1, 2], SECOND).is_err());
    checks.ended(2, SECOND);
    checks.started(2, NEW);
    assert!(checks.raised(NEW, &[0, 1, 2], SECOND).is_ok());
    assert!(checks.raised(NEW, &[0, 3], SECOND).is_err(), "nobody has heard of it");
}

#[test]
fn a_member_that_went_back_counts_for_a_while() {
    let mut checks = LevelChecks::default();
    checks.started(0, NEW);
    checks.ended(0, 5 * SECOND);
    checks.started(0, OLD);
    assert!(checks.raised(NEW, &[0], 6 * SECOND).is_ok(), "it may have said so just before");
    assert!(checks.raised(NEW, &[0], 16 * SECOND).is_err());
}

#[test]
fn what_a_member_said_when_it_connected_last_bounds_the_level() {
    let checks = LevelChecks::default();
    let newer = (NodeId::new(1), FeatureLevels::OF_THIS_RELEASE);
    let older = (NodeId::new(2), FeatureLevels::OF_THE_OLDEST);
    assert!(checks.raised_after(NEW, &[newer]).is_ok());
    assert!(checks.raised_after(OLD, &[newer, older]).is_ok());
    assert!(checks.raised_after(NEW, &[newer, older]).is_err());
}

#[test]
fn an_older_release_refuses_nothing_before_a_level_is_raised() {
    let mut checks = LevelChecks::default();
    assert!(checks.refuses(0).is_err());
    checks.started(0, NEW);
    checks.raised(NEW, &[0], SECOND).expect("all speak it");
    assert!(checks.refuses(0).is_ok());
}
