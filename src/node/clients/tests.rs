use crate::node::clients::{Clients, Waiting};
use crate::raft::Time;
use crate::replica::ClientReply;
use tokio::sync::oneshot;

fn waiting() -> (Waiting, oneshot::Receiver<ClientReply>) {
    let (reply, answer) = oneshot::channel();
    (Waiting { since: Time::new(0), write: true, reply }, answer)
}

#[test]
fn each_is_found_once_by_its_name() {
    let mut clients = Clients::default();
    let ids: Vec<_> = (0..10).map(|_| clients.insert(waiting().0)).collect();
    for id in &ids {
        assert!(clients.remove(*id).is_some());
        assert!(clients.remove(*id).is_none(), "a second answer finds nobody");
    }
}

#[test]
fn a_late_answer_does_not_reach_the_next_user_of_a_slot() {
    let mut clients = Clients::default();
    let first = clients.insert(waiting().0);
    assert!(clients.remove(first).is_some());
    let second = clients.insert(waiting().0);
    assert_ne!(first, second);
    assert!(clients.remove(first).is_none());
    assert!(clients.remove(second).is_some());
}

#[test]
fn slots_are_reused() {
    let mut clients = Clients::default();
    for _ in 0..100 {
        let id = clients.insert(waiting().0);
        clients.remove(id);
    }
    assert_eq!(clients.drain().count(), 0);
    let (last, mut answer) = waiting();
    clients.insert(last);
    drop(clients.drain().collect::<Vec<_>>());
    assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
}
