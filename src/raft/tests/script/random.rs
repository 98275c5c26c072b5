//! Random schedules under the same checks as the scripts: whatever happens nothing false is said,
//! and when the faults end the cluster agrees and serves.
//!
//! `INFINITYSTORE_SEED=n` runs one schedule, `INFINITYSTORE_SEEDS=n` that many.

use crate::raft::tests::script::cluster::{Cluster, Node};
use crate::raft::tests::script::{describe, first_disk, member};
use crate::raft::{Change, Config, Input, LogIndex, Message, NodeId, Raft, ReadId, RoleName};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const SEEDS: u64 = 150;
const STEPS: u64 = 1_500;

struct Schedule {
    cluster: Cluster,
    random: u64,
    /// For data, reads and stores: never the same twice.
    number: u64,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut schedule = Self { cluster: Cluster::new(Config::default()), random: seed, number: 100 };
        let tail = [0, 3, 100][schedule.below(3)];
        let config = Config {
            log_tail_entries: tail,
            laggard_log_bytes_max: [1, 1 << 20][schedule.below(2)],
            snapshot_chunk_bytes: [40, 1_000, 1 << 20][schedule.below(3)],
            snapshot_inflight_bytes_max: [1, 100, 8 << 20][schedule.below(3)],
            inflight_messages_max: [1, 3, 64][schedule.below(3)],
            append_bytes_max: [1, 80, 1 << 20][schedule.below(3)],
            promote_lag_entries: [1, 5, 1_000][schedule.below(3)],
            ..Config::default()
        };
        schedule.cluster = Cluster::new(config);
        schedule.cluster.seed = seed;
        let count = [1, 2, 3, 3, 4, 5][schedule.below(6)];
        let disk = first_disk(count);
        for id in (1..=count).map(NodeId::new) {
            schedule.cluster.nodes.insert(id, Node { durable: disk.clone(), ..Node::default() });
            schedule.cluster.start(id);
        }
        schedule
    }

    /// A number below `bound` (xorshift).
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        usize::try_from(self.random >> 33).expect("31 bits") % bound
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn any_node(&mut self) -> NodeId {
        let position = self.below(self.cluster.nodes.len());
        *self.cluster.nodes.keys().nth(position).expect("below the length")
    }

    fn any_live_node(&mut self) -> Option<NodeId> {
        let id = self.any_node();
        self.cluster.node(id).raft.is_some().then_some(id)
    }

    fn input(&mut self, input: Input) {
        if let Some(id) = self.likely_leader() {
            let _ = self.cluster.step(id, input);
        }
    }

    /// Mostly a node that leads: others would refuse all the proposals and changes.
    fn likely_leader(&mut self) -> Option<NodeId> {
        let leader = up(&self.cluster).find(|raft| raft.role() == RoleName::Leader).map(Raft::id);
        if self.below(4) > 0 { leader } else { self.any_live_node() }
    }

    fn step(&mut self) {
        match self.below(100) {
            0..45 => self.deliver(),
            45..60 => {
                let (id, micros) = (self.any_node(), [1_000, 20_000, 100_000, 400_000][self.below(4)]);
                self.cluster.tick(id, micros);
            }
            60..72 => {
                let data = self.next_number().to_string();
                if let Some(id) = self.likely_leader() {
                    let _ = self.cluster.propose(id, &Bytes::from(data));
                }
            }
            72..76 => self.read(),
            76..86 => self.disk(),
            86..88 => self.crash_or_start(),
            88..91 => self.network(),
            91..94 => self.change(),
            94 => {
                let to = if self.below(2) == 0 { None } else { Some(self.any_node()) };
                self.input(Input::TransferLeadership(to));
            }
            95 => {
                if let Some(id) = self.any_live_node()
                    && !self.cluster.node(id).applied.is_empty()
                {
                    self.cluster.snapshot(id);
                }
            }
            _ => {
                // The common case: everything that is on its way arrives.
                for _ in 0..self.cluster.network.len().min(30) {
                    self.deliver();
                }
            }
        }
        self.start_new_members();
    }

    fn deliver(&mut self) {
        let there = self.cluster.network.len();
        if there == 0 {
            return;
        }
        let position = if self.below(3) == 0 { self.below(there.min(8)) } else { 0 };
        match self.below(40) {
            0 => drop(self.cluster.network.remove(position)),
            1 => {
                let copy: Message = self.cluster.network[position].clone();
                self.cluster.network.push_back(copy);
            }
            _ => self.cluster.deliver_at(position),
        }
    }

    fn read(&mut self) {
        if let Some(id) = self.any_live_node() {
            let read = self.next_number();
            self.cluster.truth.read_asked(read);
            let _ = self.cluster.step(id, Input::Read(ReadId::new(read)));
        }
    }

    fn disk(&mut self) {
        let id = self.any_node();
        match self.below(8) {
            0 | 1 => self.cluster.node_mut(id).holds_writes = true,
            2 => {
                self.cluster.node_mut(id).holds_writes = false;
            }
            3 => drop(self.cluster.spoils.insert(id)),
            _ => {}
        }
        if self.cluster.node(id).raft.is_some() {
            let count = 1 + self.below(3);
            self.cluster.persist(id, count);
            self.cluster.settle(id);
        }
    }

    fn crash_or_start(&mut self) {
        let id = self.any_node();
        if self.cluster.node(id).raft.is_some() {
            // Some of what was under way became durable, unheard of.
            let count = self.below(3);
            self.cluster.persist(id, count);
            self.cluster.crash(id);
        } else {
            self.cluster.start(id);
        }
    }

    fn network(&mut self) {
        self.cluster.cut.clear();
        if self.below(2) == 0 {
            return;
        }
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        let side: BTreeSet<NodeId> = ids.iter().copied().filter(|_| self.below(2) == 0).collect();
        let one_way = self.below(4) == 0;
        for from in &ids {
            for to in ids.iter().filter(|to| side.contains(from) != side.contains(to)) {
                if !one_way || side.contains(from) {
                    self.cluster.cut.insert((*from, *to));
                }
            }
        }
    }

    fn change(&mut self) {
        let change = match self.below(3) {
            0 if self.cluster.nodes.len() < 8 => {
                let number = self.next_number();
                let replaces =
                    if self.below(3) == 0 { BTreeSet::from([self.any_node()]) } else { BTreeSet::new() };
                let promote = self.below(4) > 0;
                let member = member(&format!("n{number}"), u128::from(number));
                Change::AddMembers { members: vec![member], replaces, promote }
            }
            1 => Change::Remove { members: BTreeSet::from([self.any_node()]) },
            2 => Change::Remove { members: BTreeSet::from([self.any_node(), self.any_node()]) },
            _ => return,
        };
        self.input(Input::ChangeMembership(change.into()));
    }

    /// A node gets its id, and starts, once the entry that adds it is committed: ids of changes
    /// that were rolled back are given again.
    fn start_new_members(&mut self) {
        let committed = up(&self.cluster).flat_map(|raft| {
            let (membership, _) = raft.membership_at(raft.commit_index());
            membership.members.keys().copied()
        });
        let new: BTreeSet<NodeId> = committed.filter(|id| !self.cluster.nodes.contains_key(id)).collect();
        for id in new {
            self.cluster.start(id);
        }
    }

    /// The faults end: one leader, the same log everywhere, no joint state, and reads and writes
    /// are served.
    fn converge(&mut self) {
        self.cluster.cut.clear();
        self.cluster.spoils.clear();
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for id in ids {
            self.cluster.node_mut(id).holds_writes = false;
            if self.cluster.node(id).raft.is_none() {
                self.cluster.start(id);
            }
            self.cluster.persist(id, usize::MAX);
            self.cluster.settle(id);
        }
        for _ in 0..20 {
            self.cluster.run(1_000_000);
            self.start_new_members();
        }
        let highest =
            up(&self.cluster).filter(|raft| raft.role() == RoleName::Leader).max_by_key(|raft| raft.term());
        let leader = highest.expect("there is a leader").id();
        let read = self.next_number();
        self.cluster.truth.read_asked(read);
        self.cluster.step(leader, Input::Read(ReadId::new(read))).expect("taken in");
        self.cluster.propose(leader, &Bytes::from_static(b"last")).expect("taken in");
        self.cluster.run(1_000_000);
        assert!(!self.cluster.truth.is_read_open(read), "the read is answered");
        let leader = self.cluster.raft(leader);
        assert!(!leader.membership().is_joint(), "the joint state is left");
        assert_eq!(leader.last_log().index, leader.commit_index(), "everything is committed");
        for id in leader.membership().members.keys() {
            let raft = self.cluster.raft(*id);
            assert_eq!(raft.last_log(), leader.last_log(), "the log of {id}");
            assert_eq!(raft.commit_index(), leader.commit_index(), "the commit index of {id}");
            let applied = self.cluster.node(*id).applied.last().map(crate::raft::Entry::index);
            assert_eq!(applied, Some(leader.commit_index()), "what {id} applied");
        }
        assert!(leader.commit_index() > LogIndex::new(1));
    }
}

fn say_state(cluster: &mut Cluster) {
    for (id, node) in &cluster.nodes {
        let Some(raft) = &node.raft else { continue };
        let (role, term, commit, last) = (raft.role(), raft.term(), raft.commit_index(), raft.last_log());
        let membership = describe::membership(raft.membership());
        writeln!(cluster.transcript, "{id}: {role:?} t{term} commit {commit} log {last} {membership}")
            .expect("a string");
        for peer in raft.progress() {
            writeln!(cluster.transcript, "   {peer:?}").expect("a string");
        }
    }
}

fn up(cluster: &Cluster) -> impl Iterator<Item = &Raft> {
    cluster.nodes.values().filter_map(|node| node.raft.as_ref())
}

fn run(seed: u64) {
    let mut schedule = Schedule::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            schedule.step();
        }
        schedule.converge();
    }));
    if let Err(panic) = result {
        say_state(&mut schedule.cluster);
        let lines: Vec<&str> = schedule.cluster.transcript.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(tail())..].join("\n"));
        eprintln!("INFINITYSTORE_SEED={seed} runs this schedule again");
        resume_unwind(panic);
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn random_schedules_keep_every_promise() {
    if let Some(seed) = setting("INFINITYSTORE_SEED") {
        return run(seed);
    }
    for seed in 0..setting("INFINITYSTORE_SEEDS").unwrap_or(SEEDS) {
        run(seed);
    }
}

/// Lines of the transcript that a failure prints.
fn tail() -> usize {
    usize::try_from(setting("INFINITYSTORE_TAIL").unwrap_or(150)).expect("small")
}
