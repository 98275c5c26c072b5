use crate::api::service::authenticator::{Authenticator, FREE_FAILURES};
use crate::api::service::passwords::PasswordCost;
use crate::raft::Time;
use crate::runtime::door::Caller;

fn authenticator() -> Authenticator {
    Authenticator::new(PasswordCost { memory_kib: 8, passes: 1 })
}

/// Somebody who has a password of his own guesses at another's in between.
#[test]
fn a_right_password_takes_back_its_own_try_alone() {
    let (authenticator, caller) = (authenticator(), Caller::of("10.0.0.7:1"));
    let mut now = Time::new(1_000_000);
    for _ in 1..FREE_FAILURES {
        assert!(authenticator.may_try(now, &caller).is_ok());
        authenticator.note_failure(now, &caller);
        let own = authenticator.note_failure(now, &caller);
        authenticator.take_back(&caller, own);
    }
    assert!(authenticator.may_try(now, &caller).is_ok());
    authenticator.note_failure(now, &caller);
    assert!(authenticator.may_try(now, &caller).is_err(), "it was one too many");
    now = now.plus(1_000_000);
    assert!(authenticator.may_try(now, &caller).is_ok());
    let own = authenticator.note_failure(now, &caller);
    assert!(authenticator.may_try(now, &caller).is_err(), "nobody guesses while it is tried");
    authenticator.take_back(&caller, own);
    assert!(authenticator.may_try(now, &caller).is_ok());
    authenticator.note_failure(now, &caller);
    assert!(authenticator.may_try(now.plus(400_000), &caller).is_err(), "what was wrong before counts");
}

#[test]
fn who_was_never_wrong_leaves_no_trace() {
    let (authenticator, caller) = (authenticator(), Caller::of("10.0.0.7:1"));
    for _ in 0..100 {
        let own = authenticator.note_failure(Time::new(1), &caller);
        authenticator.take_back(&caller, own);
    }
    assert!(authenticator.lock().is_empty());
}
