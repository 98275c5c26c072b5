//! Three members in one thread, on a network that loses, delays and repeats messages. The same seed
//! gives the same run, to the last message.
//!
//!     cargo run --example deterministic 7

use infinitystore::raft::{
    Config, Incarnation, Input, Member, NodeId, Raft, RoleName, Setup, StoreId, Time, bootstrap_log,
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

fn main() {
    let seed = std::env::args().nth(1).map_or(7, |seed| seed.parse().expect("the seed is a number"));
    let mut random = SmallRng::seed_from_u64(seed);
    let member = |n: u64| Member::named(&n.to_string(), StoreId(n.into()));
    let restored = bootstrap_log((1..=3).map(member)).expect("three sound members");
    let start = |id: u64| {
        let (id, seed, incarnation) = (NodeId::new(id), seed + id, Incarnation::new(1));
        let (config, restored, now) = (Config::default(), restored.clone(), Time::new(0));
        Raft::new(Setup { id, incarnation, seed, config, restored, now }).expect("the state is sound")
    };
    let mut nodes = [1, 2, 3].map(start);
    let (mut wake_at, mut applied, mut sent) = ([Some(Time::new(0)); 3], [0; 3], 0);
    // Messages and receipts under way, by arrival time and a number: two may arrive at once.
    let mut under_way: std::collections::BTreeMap<(Time, u64), (usize, Input)> = <_>::default();
    for now in (0..10_000).map(|millis| Time::new(millis * 1_000)) {
        let later = under_way.split_off(&(now.plus(1), 0));
        let mut inputs: Vec<_> = std::mem::replace(&mut under_way, later).into_values().collect();
        inputs
            .extend((0..3).filter(|at| wake_at[*at].is_some_and(|at| at <= now)).map(|at| (at, Input::Wake)));
        for (at, input) in inputs {
            let is_wake = matches!(input, Input::Wake);
            nodes[at].step(now, input).expect("nothing is refused here");
            if is_wake && nodes[at].role() == RoleName::Leader {
                nodes[at].propose(now, &"a command".into()).ok();
            }
            let output = nodes[at].take_output();
            wake_at[at] = output.wake_at;
            applied[at] += output.committed.len();
            let mut next: Vec<_> =
                output.write.map(|write| (at, Input::Durable(write.into_durable()))).into_iter().collect();
            next.extend(output.committed.last().map(|last| (at, Input::Applied(last.index()))));
            for message in output.messages {
                // One in ten is lost, one in ten arrives twice.
                let copies = [0, 2, 1][random.random_range(0..10_usize).min(2)];
                let to = usize::try_from(message.to.get() - 1).expect("a small number");
                next.extend((0..copies).map(|_| (to, Input::Message(message.clone()))));
                sent += 1;
            }
            for arrival in next {
                let delay = random.random_range(50..20_000);
                under_way.insert((now.plus(delay), random.random()), arrival);
            }
        }
    }
    let terms = nodes.map(|node| node.term().get());
    println!("seed {seed}: {sent} messages, entries applied {applied:?}, terms {terms:?}");
}
