use crate::runtime::watch::{Closed, channel};
use std::sync::{Arc, Mutex};

#[tokio::test]
async fn waiters_are_woken_in_the_order_in_which_they_came() {
    let (sender, receiver) = channel(0);
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (receiver, woken) = (receiver.clone(), woken.clone());
        tasks.spawn(async move {
            drop(receiver.wait_for(|value| *value == 7).await.unwrap());
            woken.lock().unwrap().push(number);
        });
    }
    tokio::task::yield_now().await;
    assert_eq!(sender.send_replace(3), 0);
    tokio::task::yield_now().await;
    assert_eq!(*woken.lock().unwrap(), [0; 0]);
    assert_eq!(sender.send_replace(7), 3);
    while tasks.join_next().await.is_some() {}
    assert_eq!(*woken.lock().unwrap(), (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_sender_that_is_gone_leaves_its_value_and_keeps_nobody_waiting() {
    let (sender, receiver) = channel(1);
    let waiting = {
        let receiver = receiver.clone();
        tokio::spawn(async move { receiver.wait_for(|value| *value == 2).await.map(drop) })
    };
    tokio::task::yield_now().await;
    drop(sender);
    assert_eq!(waiting.await.unwrap(), Err(Closed));
    assert_eq!(receiver.wait_for(|value| *value == 1).await.as_deref(), Ok(&1));
}
