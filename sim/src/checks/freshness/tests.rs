use super::*;

#[test]
fn a_state_that_lacks_what_was_committed_is_not_fresh() {
    let mut freshness = Freshness::default();
    for (at, through) in [(0, 1), (1_000_000, 2), (2_000_000, 3)] {
        freshness.committed(at, LogIndex::new(through));
    }
    let judge = |now, age, applied| freshness.judge(1, now, age, LogIndex::new(applied)).is_ok();
    assert!(judge(2_500_000, 100_000, 3));
    assert!(!judge(2_500_000, 100_000, 2), "what was committed half a second ago is missing");
    assert!(judge(2_500_000, 600_000, 2), "it says that it is older");
    assert!(!judge(2_500_000, 600_000, 1));
    // The clock may be off.
    assert!(judge(2_500_000, 480_000, 2));
    assert!(judge(500, 0, 0), "what has just been committed may not have come");
}
