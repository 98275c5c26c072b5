use crate::raft::Time;
use crate::runtime::door::Caller;
use crate::runtime::refusals::{LINES_MAX, LINES_MICROS, REFUSAL_MICROS, RefusalLog};

#[test]
fn callers_cannot_fill_the_log() {
    let mut refusals = RefusalLog::default();
    let at = |micros: u64| Time::new(micros);
    let caller = |number: u32| Caller::of(&format!("10.0.{}.{}:1", number / 256, number % 256));
    assert_eq!(refusals.is_due(at(0), caller(1), "garbage"), Some(0));
    assert_eq!(refusals.is_due(at(1), caller(1), "garbage"), None, "the same again");
    assert_eq!(refusals.is_due(at(2), caller(1), "silent"), Some(0), "another reason");
    assert_eq!(refusals.is_due(at(REFUSAL_MICROS), caller(1), "garbage"), Some(0), "much later");
    refusals.clear(&caller(1));
    assert_eq!(refusals.is_due(at(REFUSAL_MICROS + 1), caller(1), "garbage"), Some(0), "it was let in");

    let start = 2 * REFUSAL_MICROS;
    let lines = (100..10_100).filter(|&n| refusals.is_due(at(start), caller(n), "garbage").is_some()).count();
    assert_eq!(lines, LINES_MAX as usize);
    let later = at(start + LINES_MICROS);
    assert_eq!(refusals.is_due(later, caller(20_000), "garbage"), Some(10_000 - u64::from(LINES_MAX)));
}
