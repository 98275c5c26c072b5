//! Random schedules: loss, reordering, duplication, slow disks, crashes, changes of membership,
//! snapshots. Whatever happens, the safety properties hold after each step; and once it stops
//! happening, the cluster serves again.

use crate::raft::tests::harness::{Cluster, id, member};
use crate::raft::{Change, Config, Input, Membership, Restored};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_oneof, proptest};

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Action {
    Deliver(usize),
    DeliverInOrder(usize),
    Lose(usize),
    Duplicate(usize),
    Tick(u64),
    /// Everything is delivered and synced.
    Calm,
    /// A while without faults.
    Advance(u64),
    Isolate(usize),
    Heal,
    Sync(usize),
    SyncOne(usize),
    Crash(usize),
    Restart(usize),
    Propose(usize),
    Read(usize),
    Add(usize),
    Remove(usize, usize),
    Snapshot(usize),
    RefuseSnapshot(usize),
    ServeChunks,
    Transfer(usize, usize),
}

fn action() -> impl Strategy<Value = Action> {
    let node = 0..8_usize;
    prop_oneof![
        20 => (0..16_usize).prop_map(Action::Deliver),
        40 => (1..12_usize).prop_map(Action::DeliverInOrder),
        3 => (0..16_usize).prop_map(Action::Lose),
        3 => (0..16_usize).prop_map(Action::Duplicate),
        8 => (1..30_u64).prop_map(Action::Tick),
        2 => (100..500_u64).prop_map(Action::Tick),
        6 => Just(Action::Calm),
        3 => (50..400_u64).prop_map(Action::Advance),
        1 => node.clone().prop_map(Action::Isolate),
        2 => Just(Action::Heal),
        30 => node.clone().prop_map(Action::Sync),
        6 => node.clone().prop_map(Action::SyncOne),
        1 => node.clone().prop_map(Action::Crash),
        3 => node.clone().prop_map(Action::Restart),
        20 => node.clone().prop_map(Action::Propose),
        8 => node.clone().prop_map(Action::Read),
        2 => node.clone().prop_map(Action::Add),
        2 => (node.clone(), node.clone()).prop_map(|(at, who)| Action::Remove(at, who)),
        4 => node.clone().prop_map(Action::Snapshot),
        1 => node.clone().prop_map(Action::RefuseSnapshot),
        5 => Just(Action::ServeChunks),
        1 => (node.clone(), node).prop_map(|(at, to)| Action::Transfer(at, to)),
    ]
}

/// Limits so small that every one of them matters in a short run.
fn tight() -> Config {
    Config {
        heartbeat_interval_micros: 50_000,
        election_timeout_micros: 200_000,
        inflight_messages_max: 3,
        inflight_bytes_max: 200,
        append_bytes_max: 80,
        uncommitted_bytes_max: 1_000,
        pending_reads_max: 8,
        snapshot_chunk_bytes: 10,
        snapshot_inflight_bytes_max: 35,
        snapshot_bytes_per_second_max: 300,
        apply_entries_max: 2,
        apply_bytes_max: 100,
        log_bytes_max: 300,
        snapshot_backoff_min_micros: 1_000_000,
        snapshot_backoff_max_micros: 4_000_000,
        disk_stall_micros: 1_000_000,
        log_tail_entries: 3,
        log_tail_bytes: 1 << 20,
        laggard_log_bytes_max: 2_000,
        promote_lag_entries: 2,
        lease_drift_ppm: None,
    }
}

/// How far clocks are off in runs with lease reads: a twentieth.
const DRIFT_PPM: u32 = 50_000;

struct Run {
    cluster: Cluster,
    count: u64,
}

impl Run {
    fn new(count: u64) -> Self {
        Self { cluster: Cluster::with(count, tight()), count: 0 }
    }

    /// The same with lease reads, and clocks that are off by as much as they may.
    fn with_leases(count: u64) -> Self {
        let config = Config { lease_drift_ppm: Some(DRIFT_PPM), ..tight() };
        let mut cluster = Cluster::with(count, config);
        let drift = i64::from(DRIFT_PPM);
        cluster.drift_ppm = (1..=6).zip([-drift, drift, drift, 0, -drift, drift]).collect();
        for number in 1..=count {
            cluster.restart(number);
        }
        Self { cluster, count: 0 }
    }

    /// A node; half of the time the leader, if there is one.
    fn pick(&self, at: usize) -> u64 {
        let numbers: Vec<u64> = self.cluster.nodes.keys().copied().collect();
        if let Some(leader) = self.cluster.leader()
            && at >= 4
        {
            return leader;
        }
        numbers[at % numbers.len()]
    }

    fn act(&mut self, action: &Action) {
        let cluster = &mut self.cluster;
        self.count += 1;
        match *action {
            Action::Deliver(at) | Action::Lose(at) | Action::Duplicate(at) if !cluster.network.is_empty() => {
                let at = at % cluster.network.len();
                match action {
                    Action::Duplicate(_) => {
                        let copy = cluster.network[at].clone();
                        cluster.network.push_back(copy);
                    }
                    Action::Lose(_) => drop(cluster.network.remove(at)),
                    _ => {
                        let message = cluster.network.remove(at).unwrap();
                        cluster.deliver(message);
                    }
                }
            }
            Action::Deliver(_) | Action::Lose(_) | Action::Duplicate(_) => {}
            Action::DeliverInOrder(count) => {
                for _ in 0..count {
                    let Some(message) = cluster.network.pop_front() else { break };
                    cluster.deliver(message);
                }
            }
            Action::Tick(millis) => self.tick(millis),
            Action::Calm => cluster.run(),
            Action::Advance(millis) => cluster.advance(millis * 1_000),
            Action::Heal => cluster.heal(),
            Action::ServeChunks => {
                for number in cluster.nodes.keys().copied().collect::<Vec<_>>() {
                    cluster.serve_snapshot_reads(number);
                }
            }
            ref other => self.act_on_node(other),
        }
    }

    fn act_on_node(&mut self, action: &Action) {
        let count = self.count;
        let (Action::Sync(at)
        | Action::SyncOne(at)
        | Action::Crash(at)
        | Action::Restart(at)
        | Action::Isolate(at)
        | Action::Propose(at)
        | Action::Read(at)
        | Action::Add(at)
        | Action::Remove(at, _)
        | Action::Snapshot(at)
        | Action::RefuseSnapshot(at)
        | Action::Transfer(at, _)) = *action
        else {
            return;
        };
        let number = self.pick(at);
        let other =
            if let Action::Remove(_, who) | Action::Transfer(_, who) = *action { self.pick(who) } else { 0 };
        let cluster = &mut self.cluster;
        let is_up = cluster.nodes[&number].raft.is_some();
        match action {
            Action::Sync(_) if is_up => drop(cluster.sync(number)),
            Action::SyncOne(_) if is_up => drop(cluster.sync_one(number)),
            Action::Crash(_) => cluster.crash(number),
            Action::Restart(_) if !is_up => cluster.restart(number),
            Action::Isolate(_) => cluster.isolate(number),
            Action::Propose(_) => drop(cluster.propose(number, &format!("{count}"))),
            Action::Read(_) if is_up => drop(cluster.read(number, count)),
            Action::Add(_) if is_up && cluster.nodes.len() < 6 => self.add(number),
            Action::Remove(..) if is_up => {
                let members = BTreeSet::from([id(other)]);
                drop(cluster.change(number, Change::Remove { members }));
            }
            Action::Snapshot(_) if is_up => cluster.snapshot(number, 25),
            Action::RefuseSnapshot(_) => cluster.node(number).disk.refuses_snapshot = true,
            Action::Transfer(..) if is_up => {
                drop(cluster.step(number, Input::TransferLeadership(Some(id(other)))));
            }
            _ => {}
        }
    }

    fn add(&mut self, number: u64) {
        let next = self.cluster.raft(number).membership().next_member_id.get();
        let change =
            Change::AddMembers { members: vec![member(next)], replaces: BTreeSet::new(), promote: true };
        drop(self.cluster.change(number, change));
    }

    /// A new member starts once its entry is committed: then its id is its own.
    fn start_new_members(&mut self) {
        let running = self.cluster.nodes.values().filter_map(|node| node.raft.as_ref());
        let members =
            running.flat_map(|raft| raft.membership_at(raft.commit_index()).0.members.keys().copied());
        for member in members.map(crate::raft::NodeId::get).collect::<BTreeSet<_>>() {
            if !self.cluster.nodes.contains_key(&member) {
                self.cluster.add(member, Restored::default());
            }
        }
    }

    fn tick(&mut self, millis: u64) {
        self.cluster.now += millis * 1_000;
        for number in self.cluster.nodes.keys().copied().collect::<Vec<_>>() {
            let now = self.cluster.clock(number);
            if self.cluster.nodes[&number].wake_at.is_some_and(|at| at <= now) {
                self.cluster.step(number, Input::Wake).unwrap();
            }
        }
    }

    /// Faults stop: a leader is found, a write goes through, and all members have it.
    fn converge(&mut self) {
        let cluster = &mut self.cluster;
        cluster.heal();
        let numbers: Vec<u64> = cluster.nodes.keys().copied().collect();
        for number in numbers {
            cluster.node(number).disk.refuses_snapshot = false;
            if cluster.nodes[&number].raft.is_none() {
                cluster.restart(number);
            }
        }
        cluster.run();
        for _ in 0..100 {
            self.cluster.advance(200_000);
            self.start_new_members();
            let cluster = &mut self.cluster;
            let Some(leader) = cluster.leader() else { continue };
            if cluster.propose(leader, "the end").is_ok() {
                cluster.run();
                cluster.advance(100_000);
                let membership: Membership = cluster.raft(leader).membership().clone();
                let commit = cluster.raft(leader).commit_index();
                let caught_up = |member: &u64| cluster.nodes[member].applied_index >= commit;
                let members: Vec<u64> = membership.members.keys().map(|id| id.get()).collect();
                if members.iter().all(caught_up) && !membership.is_joint() {
                    cluster.check_log_matching();
                    return;
                }
            }
        }
        panic!("the cluster does not serve again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn safety_holds_and_the_cluster_recovers_from_any_schedule(
        count in 1..=5_u64,
        actions in prop::collection::vec(action(), 50..700),
    ) {
        check(Run::new(count), &actions);
    }

    #[test]
    fn reads_by_lease_see_what_was_committed_before_whatever_the_schedule(
        count in 1..=5_u64,
        actions in prop::collection::vec(action(), 50..700),
    ) {
        check(Run::with_leases(count), &actions);
    }
}

fn check(mut run: Run, actions: &[Action]) {
    for (position, action) in actions.iter().enumerate() {
        run.act(action);
        run.start_new_members();
        if position % 8 == 0 {
            run.cluster.check_log_matching();
        }
    }
    run.converge();
}
