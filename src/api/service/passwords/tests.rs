use crate::api::service::passwords::{Busy, PasswordCost, Passwords};
use crate::runtime::TokioEnv;
use crate::runtime::faulty_env::FaultyEnv;
use crate::storage::MemoryDisk;
use std::sync::atomic::Ordering;

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
