use crate::api::service::passwords::{Busy, PasswordCost, Passwords};
use crate::runtime::TokioEnv;
use crate::runtime::door::Caller;
use crate::runtime::faulty_env::FaultyEnv;
use crate::storage::MemoryDisk;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

fn waits<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn without_a_thread_nobody_waits_for_ever() {
    let env = FaultyEnv::new(MemoryDisk::new());
    env.has_no_thread.store(true, Ordering::Relaxed);
    let passwords = Passwords::new(PasswordCost { memory_kib: 8, passes: 1 });
    assert_eq!(passwords.hash(&env, b"secret".to_vec()).await, Err(Busy));
    assert_eq!(passwords.is_right(&env, b"secret", None).await, Err(Busy));
    // It has not given up for ever, and the place in the queue is free again.
    env.has_no_thread.store(false, Ordering::Relaxed);
    for _ in 0..100 {
        let hash = passwords.hash(&env, b"secret".to_vec()).await.unwrap();
        assert_eq!(passwords.is_right(&env, b"secret", Some(&hash)).await, Ok(true));
    }
}

#[tokio::test]
async fn a_password_is_remembered_by_the_hash_that_it_was_compared_with() {
    let env = TokioEnv::new(MemoryDisk::new());
    let passwords = Passwords::new(PasswordCost { memory_kib: 8, passes: 1 });
    let first = passwords.hash(&env, b"secret".to_vec()).await.unwrap();
    let again = passwords.hash(&env, b"secret".to_vec()).await.unwrap();
    passwords.remember(&env, 7, &first, b"secret");
    assert!(passwords.is_remembered(7, &first, b"secret"));
    assert!(!passwords.is_remembered(7, &first, b"secret2"));
    assert!(!passwords.is_remembered(7, &again, b"secret"), "it was changed, to the same one");
    assert!(!passwords.is_remembered(8, &first, b"secret"), "another user");
}

/// A caller that guesses keeps no other caller from being let in.
#[tokio::test]
async fn a_caller_has_two_passwords_compared_at_once() {
    let passwords = Passwords::new(PasswordCost { memory_kib: 8, passes: 1 });
    let (one, other) = (Caller::of("10.0.0.7:1"), Caller::of("10.0.0.8:1"));
    let first = passwords.turn(&one).await.unwrap();
    let second = passwords.turn(&one).await.unwrap();
    let mut third = Box::pin(passwords.turn(&one));
    assert!(waits(&mut third));
    let mut waiting: Vec<_> = (3..64).map(|_| Box::pin(passwords.turn(&one))).collect();
    assert!(waiting.iter_mut().all(waits));
    assert!(matches!(passwords.turn(&one).await, Err(Busy)), "too many wait");
    assert!(passwords.turn(&other).await.is_ok(), "another does not");
    drop(first);
    assert!(third.await.is_ok());
    drop((waiting, second));
    assert!(passwords.turn(&one).await.is_ok());
    assert!(passwords.turns.lock().unwrap().is_empty(), "nothing is left of them");
}

/// As many as wait to be compared: a password can be changed all the same.
#[tokio::test]
async fn a_new_password_has_a_place_of_its_own() {
    let env = TokioEnv::new(MemoryDisk::new());
    let passwords = Passwords::new(PasswordCost { memory_kib: 8, passes: 1 });
    let _all = passwords.places.clone().try_acquire_many_owned(64).unwrap();
    assert_eq!(passwords.is_right(&env, b"guess", None).await, Err(Busy));
    assert!(passwords.hash(&env, b"secret".to_vec()).await.is_ok());
}
