//! The age of the oldest answer, told rightly and wrongly.

use super::{AnswerTimes, age_is_right};
use infinitystore::raft::Time;

const SECOND: u64 = 1_000_000;

fn at(seconds: u64) -> Time {
    Time::new(seconds * SECOND)
}

/// Looked at from the second 100 on; the answers 1 to 5 come in the second 110, others later, and
/// the oldest that is kept is number 3.
fn times() -> AnswerTimes {
    let mut times = AnswerTimes::default();
    for (seconds, last, oldest) in [(100, 0, None), (109, 0, None), (110, 5, Some(1)), (115, 9, Some(3))] {
        times.note_numbers(at(seconds), last, oldest);
    }
    times
}

#[test]
fn an_age_is_right_within_a_second() {
    let oldest = times().oldest();
    for seconds in [9, 10, 11] {
        age_is_right(oldest, Some(seconds * SECOND), (at(120), at(120))).unwrap();
    }
}

/// As if it were the first note's, another unit's, that of another answer, or none at all.
#[test]
fn a_wrong_age_is_refused() {
    let oldest = times().oldest();
    for told in [20 * SECOND, 10, 5 * SECOND, 0] {
        age_is_right(oldest, Some(told), (at(120), at(120))).unwrap_err();
    }
    age_is_right(oldest, None, (at(120), at(120))).unwrap_err();
    age_is_right(None, Some(0), (at(120), at(120))).unwrap_err();
    age_is_right(None, None, (at(120), at(120))).unwrap();
}

/// Of what was there at the start only the least age is known.
#[test]
fn an_earlier_answer_is_at_least_as_old_as_the_start() {
    let mut times = AnswerTimes::default();
    times.note_numbers(at(100), 5, Some(2));
    age_is_right(times.oldest(), Some(30 * SECOND), (at(120), at(120))).unwrap();
    age_is_right(times.oldest(), Some(15 * SECOND), (at(120), at(120))).unwrap_err();
}

/// A node that joins another cluster has its state.
#[test]
fn another_state_begins_anew() {
    let mut times = times();
    times.note_numbers(at(130), 2, Some(1));
    age_is_right(times.oldest(), Some(10 * SECOND), (at(140), at(140))).unwrap();
    age_is_right(times.oldest(), Some(2 * SECOND), (at(140), at(140))).unwrap_err();
}
