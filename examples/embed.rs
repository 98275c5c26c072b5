//! A replicated counter: three members of one cluster, a thread each, over channels.
//! Their disks are in memory here; a `LogWrite` says what a real one would write and sync.
//!
//!     cargo run --example embed

use infinitystore::raft::{
    Config, EntryKind, Incarnation, Input, Member, Message, NodeId, Raft, Restored, RoleName, Setup, StoreId,
    Time, bootstrap_log,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How often the counter is raised.
const RAISES: u64 = 1_000;

fn main() {
    let member = |n: u64| Member::named(&n.to_string(), StoreId(n.into()));
    let disk = bootstrap_log((1..=3).map(member)).expect("three sound members");
    let (peers, inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| channel()).unzip();
    let (done, counted) = channel();
    for (id, inbox) in (1..=3).map(NodeId::new).zip(inboxes) {
        let (disk, peers, done) = (disk.clone(), peers.clone(), done.clone());
        std::thread::spawn(move || run(id, disk, &inbox, &peers, &done));
    }
    for (id, count) in counted.iter().take(3) {
        println!("member {id} counted to {count}");
    }
}

/// One member: feeds its core what happens, and carries its output out.
fn run(
    id: NodeId,
    mut disk: Restored,
    inbox: &Receiver<Message>,
    peers: &[Sender<Message>],
    done: &Sender<(NodeId, u64)>,
) {
    let started = Instant::now();
    let now = || Time::new(u64::try_from(started.elapsed().as_micros()).expect("a short run"));
    let (incarnation, seed, config) = (Incarnation::new(1), id.get(), Config::default());
    let setup = Setup { id, incarnation, seed, config, restored: disk.clone(), now: now() };
    let mut raft = Raft::new(setup).expect("the state is sound");
    let (mut counter, mut proposed, mut wake_at) = (0, 0, Some(now()));
    loop {
        let patience = wake_at.map_or(u64::MAX, |at: Time| at.since(now()));
        let input = inbox.recv_timeout(Duration::from_micros(patience)).map_or(Input::Wake, Input::Message);
        raft.step(now(), input).expect("messages and the clock are always taken in");
        while raft.role() == RoleName::Leader
            && proposed < RAISES
            && raft.propose(now(), &"+1".into()).is_ok()
        {
            proposed += 1;
        }
        loop {
            let output = raft.take_output();
            wake_at = output.wake_at;
            for message in output.messages {
                let to = usize::try_from(message.to.get() - 1).expect("a small number");
                peers[to].send(message).expect("all members live as long as this process");
            }
            if let Some(write) = output.write {
                disk.apply(write.records());
                raft.step(now(), Input::Durable(write.into_durable())).expect("receipts are taken in");
            } else if let Some(last) = output.committed.last() {
                raft.step(now(), Input::Applied(last.index())).expect("receipts are taken in");
            } else {
                break;
            }
            let commands = output.committed.iter().filter(|entry| entry.kind() == EntryKind::Command);
            counter += commands.count() as u64;
        }
        if counter >= RAISES {
            done.send((id, counter)).expect("main waits");
            counter = 0;
        }
    }
}
