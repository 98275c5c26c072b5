use crate::api::http::rates::{Bucket, Empty, UserBuckets};
use crate::kv::Subject;
use crate::raft::Time;
use std::num::NonZeroU32;

const SECOND: u64 = 1_000_000;

fn rate(per_second: u32) -> NonZeroU32 {
    NonZeroU32::new(per_second).expect("a rate")
}

#[test]
fn a_bucket_has_the_requests_of_a_second_and_those_of_another_one_wait() {
    let bucket = Bucket::default();
    let now = Time::new(5 * SECOND);
    let taken: Vec<_> = (0..9).map(|_| bucket.take(now, rate(4)).map(|at| at.since(now))).collect();
    let waits = [0, 0, 0, 0, SECOND / 4, SECOND / 2, SECOND / 4 * 3, SECOND];
    assert_eq!(taken[..8], waits.map(Ok));
    assert_eq!(taken[8], Err(Empty));
    // What was refused took nothing.
    let later = now.plus(SECOND / 4);
    assert_eq!(bucket.take(later, rate(4)), Ok(later.plus(SECOND)));
    assert!(!bucket.is_full(now.plus(2 * SECOND)));
    assert!(bucket.is_full(now.plus(3 * SECOND)));
    assert_eq!(bucket.take(now.plus(9 * SECOND), rate(4)), Ok(now.plus(9 * SECOND)));
}

#[test]
fn users_and_certificates_have_buckets_of_their_own() {
    let users = UserBuckets::default();
    let now = Time::new(SECOND);
    let is_at_once = |taken: Result<Time, Empty>| taken == Ok(now);
    for subject in [Subject::User(1), Subject::User(2), Subject::Token(1)] {
        assert!(is_at_once(users.take(subject, now, rate(1))), "{subject:?}");
        assert!(!is_at_once(users.take(subject, now, rate(1))), "{subject:?}");
    }
    for name in ["one", "other"] {
        assert!(is_at_once(users.take_of_certificate(name, now, rate(1))), "{name}");
        assert!(!is_at_once(users.take_of_certificate(name, now, rate(1))), "{name}");
    }
    users.forget_full(now.plus(SECOND));
    assert!(!is_at_once(users.take(Subject::User(1), now, rate(1))), "it is not full yet");
    users.forget_full(now.plus(10 * SECOND));
    assert!(users.lock().by_subject.is_empty() && users.lock().by_certificate.is_empty());
}
