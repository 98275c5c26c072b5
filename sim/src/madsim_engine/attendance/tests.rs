use super::{STREAK_LOSSY, STREAK_MICROS, STREAK_QUIET, Streak};
use crate::schedule::MILLI;

/// Failures of questions, one after the other: the first whose streak is no accident.
fn first_of(was_quiet: impl Fn(usize) -> bool) -> Option<usize> {
    let mut streak = Streak::default();
    (1..100).find(|count| streak.failed(was_quiet(*count), *count as u64 * 400 * MILLI).is_some())
}

#[test]
fn where_no_packets_are_lost_few_failures_are_enough() {
    assert_eq!(first_of(|_| true), Some(STREAK_QUIET));
    assert_eq!(first_of(|_| false), Some(STREAK_LOSSY));
}

/// What failed while packets were lost is no sign of anything when the faults have ended.
#[test]
fn failures_of_before_the_calm_count_among_those_of_then() {
    assert_eq!(first_of(|count| count > 3), Some(3 + STREAK_QUIET));
    assert_eq!(first_of(|count| count > 10), Some(STREAK_LOSSY));
}

#[test]
fn failures_that_come_all_at_once_are_one_accident() {
    let mut streak = Streak::default();
    assert!((0..100).all(|_| streak.failed(true, 7).is_none()));
    assert!(streak.failed(true, 7 + STREAK_MICROS).is_some());
}
