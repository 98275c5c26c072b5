//! How old the oldest answer is.

use crate::raft::Time;
use crate::replica::answer_ages::AnswerAges;

const SECOND: u64 = 1_000_000;

#[test]
fn an_answer_is_as_old_as_the_first_note_that_has_it() {
    let mut ages = AnswerAges::default();
    for (seconds, last) in [(10, 0), (11, 50), (20, 50), (30, 80), (31, 90)] {
        ages.note(Time::new(seconds * SECOND), last, || Some(1));
    }
    let now = Time::new(40 * SECOND);
    for (number, age) in [(1, 29), (50, 29), (51, 10), (80, 10), (81, 9), (90, 9), (91, 0)] {
        assert_eq!(ages.age_micros(number, now), age * SECOND, "{number}");
    }
}

/// No note is due then, and no answer follows that would bring one.
#[test]
fn the_last_answers_before_a_rest_become_older_too() {
    let mut ages = AnswerAges::default();
    ages.note(Time::new(10 * SECOND), 50, || Some(1));
    ages.note(Time::new(10 * SECOND + SECOND / 4), 60, || Some(1));
    ages.note(Time::new(10 * SECOND + SECOND / 2), 70, || Some(1));
    ages.note(Time::new(20 * SECOND), 70, || Some(61));
    let now = Time::new(40 * SECOND);
    for number in [51, 60, 61, 70] {
        let told = ages.age_micros(number, now);
        assert_eq!(told, 29 * SECOND + SECOND / 2, "{number}");
    }
}

/// What is told is never more than what is true.
#[test]
fn notes_are_few_however_long_and_fast_answers_come() {
    let mut ages = AnswerAges::default();
    let day = 24 * 3600;
    for second in 0..day {
        let last = second * 1000;
        // The last hour's answers are remembered.
        ages.note(Time::new(second * SECOND), last, || Some(last.saturating_sub(3600 * 1000) + 1));
        assert!(ages.len() < 3000, "{} notes after {second} s", ages.len());
    }
    let now = Time::new((day - 1) * SECOND);
    for age in [1, 10, 100, 1000, 3500] {
        let told = ages.age_micros((day - 1 - age) * 1000, now) / SECOND;
        assert!(told <= age && told + 1 + 3600 / 256 >= age, "{age} s are told as {told}");
    }
}

#[test]
fn another_state_begins_anew() {
    let mut ages = AnswerAges::default();
    ages.note(Time::new(0), 1000, || Some(1));
    ages.note(Time::new(50 * SECOND), 7, || Some(1));
    assert_eq!(ages.age_micros(1, Time::new(60 * SECOND)), 10 * SECOND);
}
