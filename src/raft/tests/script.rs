//! Runs the text scripts of `scripts/`: a command behind `>`, and what it brought about on the
//! lines below it.
//!
//! With `INFINITYSTORE_BLESS=1` the transcripts are written anew instead of compared: read the
//! difference before it is committed. `expect` commands fail either way.

mod checks;
mod cluster;
mod describe;
mod random;

use crate::raft::tests::script::cluster::{Cluster, Node};
use crate::raft::{
    Change, ChangeOrder, Config, Entry, EntryKind, HardState, Input, LogId, LogIndex, Member, Membership,
    NodeId, Raft, ReadId, Restored, RoleName, StoreId, Term,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// Runs one script and compares its transcript.
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/tests/scripts").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let found = run(&text);
    if std::env::var_os("INFINITYSTORE_BLESS").is_some() {
        std::fs::write(&path, found).expect("the script can be written");
    } else if found != text {
        let line = text.lines().zip(found.lines()).take_while(|(text, found)| text == found).count();
        let from = line.saturating_sub(3);
        let excerpt = |text: &str| text.lines().skip(from).take(12).collect::<Vec<_>>().join("\n");
        panic!(
            "{name} differs at line {}\n--- expected\n{}\n--- found\n{}",
            line + 1,
            excerpt(&text),
            excerpt(&found)
        );
    }
}

/// The script with the transcript of each command below it. Comments and empty lines stay.
fn run(text: &str) -> String {
    let mut script = Script { cluster: Cluster::new(Config::default()), next_store: 1, leader_hint: None };
    let mut found = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(found, "{line}").expect("a string takes everything");
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script.command(command)));
            let transcript = std::mem::take(&mut script.cluster.transcript);
            if let Err(panic) = failed {
                eprintln!("{found}{transcript}failed: {command}");
                std::panic::resume_unwind(panic);
            }
            if !command.starts_with("quiet ") {
                found.push_str(&transcript);
            }
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(found, "{line}").expect("a string takes everything");
        }
    }
    found
}

struct Script {
    cluster: Cluster,
    next_store: u128,
    leader_hint: Option<NodeId>,
}

fn id(word: &str) -> NodeId {
    NodeId::new(word.parse().unwrap_or_else(|_| panic!("{word} is no node")))
}

fn ids(words: &[&str]) -> BTreeSet<NodeId> {
    words.iter().map(|word| id(word)).collect()
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

/// `900ms` or `2s` in microseconds.
fn micros(word: &str) -> u64 {
    if let Some(millis) = word.strip_suffix("ms") {
        number(millis) * 1_000
    } else {
        number(word.strip_suffix('s').unwrap_or_else(|| panic!("{word} has no unit"))) * 1_000_000
    }
}

fn link(word: &str) -> (NodeId, NodeId) {
    let (from, to) = word.split_once("->").unwrap_or_else(|| panic!("{word} is no link"));
    (id(from), id(to))
}

fn member(name: &str, store: u128) -> Member {
    Member {
        name: name.to_owned(),
        raft_addr: format!("{name}:1"),
        http_addr: format!("{name}:2"),
        store_id: StoreId(store),
    }
}

/// The disk of a node that starts with `count` voters: their membership is the first entry.
fn first_disk(count: u64) -> Restored {
    let voters: BTreeSet<NodeId> = (1..=count).map(NodeId::new).collect();
    let members: BTreeMap<NodeId, Member> =
        voters.iter().map(|id| (*id, member(&format!("n{id}"), u128::from(id.get())))).collect();
    let next_member_id = NodeId::new(count + 1);
    let membership =
        Membership { voters, outgoing: None, learners: BTreeMap::new(), members, next_member_id };
    let first = LogId::new(Term::new(1), LogIndex::new(1));
    Restored {
        hard_state: HardState { term: first.term, voted_for: None },
        snapshot: None,
        entries: vec![Entry::new(first, EntryKind::Membership, &membership.encode())],
        commit: LogIndex::ZERO,
        promised_micros: 0,
    }
}

impl Script {
    fn command(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (name, arguments) = words.split_first().expect("a command");
        match (*name, arguments) {
            ("quiet", rest) => self.command(&rest.join(" ")),
            ("cluster", [count, options @ ..]) => self.new_cluster(number(count), options),
            ("log", [node, rest @ ..]) => self.set_log(id(node), rest),
            ("start", nodes) => nodes.iter().for_each(|node| self.cluster.start(id(node))),
            ("crash", nodes) => nodes.iter().for_each(|node| self.cluster.crash(id(node))),
            ("restart", [node]) => {
                self.cluster.crash(id(node));
                self.cluster.start(id(node));
            }
            ("wipe", [node]) => *self.cluster.node_mut(id(node)) = Node::default(),
            ("tick", [node, time]) => self.cluster.tick(id(node), micros(time)),
            ("pass", [node, time]) => self.pass(id(node), micros(time)),
            ("wake", [node]) => self.input(id(node), Input::Wake),
            ("gone", [node, peer]) => self.input(id(node), Input::PeerGone(id(peer))),
            ("run", [time]) => self.cluster.run(micros(time)),
            ("campaign", [node]) => self.campaign(id(node)),
            ("elect", [node]) => self.elect(id(node)),
            ("persist", [node]) => self.persist(id(node), usize::MAX),
            ("persist", [node, count]) => {
                self.persist(id(node), usize::try_from(number(count)).expect("small"))
            }
            ("hold-writes", [node]) => self.cluster.node_mut(id(node)).holds_writes = true,
            ("release-writes", [node]) => {
                self.cluster.node_mut(id(node)).holds_writes = false;
                self.persist(id(node), usize::MAX);
            }
            ("propose", [node, commands @ ..]) => {
                for data in commands {
                    let _ = self.cluster.propose(id(node), &Bytes::copy_from_slice(data.as_bytes()));
                }
            }
            ("batch", [node, commands @ ..]) => self.batch(id(node), commands),
            ("read", [node, read]) => {
                self.cluster.truth.read_asked(number(read));
                self.input(id(node), Input::Read(ReadId::new(number(read))));
            }
            ("snapshot", [node]) => self.cluster.snapshot(id(node)),
            ("spoil", [node]) => drop(self.cluster.spoils.insert(id(node))),
            ("add" | "add-learner", [leader, name, replaced @ ..]) => {
                self.next_store += 1;
                let member = member(name, self.next_store);
                let (replaces, promote) = (ids(replaced), words[0] == "add");
                self.input(
                    id(leader),
                    Input::ChangeMembership(
                        Change::AddMembers { members: vec![member], replaces, promote }.into(),
                    ),
                );
            }
            ("remove", [leader, leaving @ ..]) => {
                let members = ids(leaving);
                self.input(id(leader), Input::ChangeMembership(Change::Remove { members }.into()));
            }
            ("add-together", [leader, names, replaced @ ..]) => {
                let mut new = || {
                    self.next_store += 1;
                    self.next_store
                };
                let members = names.split(',').map(|name| member(name, new())).collect();
                let change = Change::AddMembers { members, replaces: ids(replaced), promote: true };
                self.input(id(leader), Input::ChangeMembership(change.into()));
            }
            ("promote", [leader, learners @ ..]) => {
                let change = Change::Promote { members: ids(learners) };
                self.input(id(leader), Input::ChangeMembership(change.into()));
            }
            ("force-remove", [leader, leaving @ ..]) => {
                let change = Change::Remove { members: ids(leaving) };
                let order = ChangeOrder { force: true, ..change.into() };
                self.input(id(leader), Input::ChangeMembership(order));
            }
            ("remove-if", [leader, index, leaving @ ..]) => {
                let change = Change::Remove { members: ids(leaving) };
                let expected = Some(LogIndex::new(number(index)));
                self.input(id(leader), Input::ChangeMembership(ChangeOrder { expected, ..change.into() }));
            }
            ("transfer", [leader, to]) => self.input(id(leader), Input::TransferLeadership(Some(id(to)))),
            ("transfer", [leader]) => self.input(id(leader), Input::TransferLeadership(None)),
            ("expect", what) => self.expect(what),
            ("show", _) => self.show(),
            _ => self.network(name, arguments),
        }
    }

    /// Commands of the network.
    fn network(&mut self, name: &str, arguments: &[&str]) {
        let cluster = &mut self.cluster;
        match (name, arguments) {
            ("deliver", []) => cluster.deliver_all(),
            ("deliver", [word]) => self.deliver(link(word), usize::MAX),
            ("deliver", [word, count]) => {
                self.deliver(link(word), usize::try_from(number(count)).expect("small"))
            }
            ("drop", []) => cluster.network.clear(),
            ("drop", [word]) => {
                let link = link(word);
                cluster.network.retain(|message| (message.from, message.to) != link);
            }
            ("delay", [word]) => {
                let link = link(word);
                let all: Vec<_> = cluster.network.drain(..).collect();
                let (late, rest): (Vec<_>, Vec<_>) =
                    all.into_iter().partition(|message| (message.from, message.to) == link);
                cluster.network.extend(rest);
                cluster.delayed.extend(late);
            }
            ("undelay", []) => cluster.network.extend(cluster.delayed.drain(..)),
            ("duplicate", [word]) => {
                let link = link(word);
                let copies: Vec<_> = cluster
                    .network
                    .iter()
                    .filter(|message| (message.from, message.to) == link)
                    .cloned()
                    .collect();
                cluster.network.extend(copies);
            }
            ("partition", groups) => {
                cluster.cut.clear();
                let groups: Vec<_> = groups.split(|word| *word == "|").map(ids).collect();
                for (a, group) in groups.iter().enumerate() {
                    for (_, other) in groups.iter().enumerate().filter(|(b, _)| *b != a) {
                        cluster.cut.extend(group.iter().flat_map(|from| other.iter().map(|to| (*from, *to))));
                    }
                }
            }
            ("cut", links) => cluster.cut.extend(links.iter().map(|word| link(word))),
            ("heal", []) => cluster.cut.clear(),
            ("pending", []) => {
                for message in &cluster.network {
                    writeln!(cluster.transcript, "{}", describe::message(message)).expect("a string");
                }
            }
            _ => panic!("no such command: {name} {arguments:?}"),
        }
    }

    fn input(&mut self, node: NodeId, input: Input) {
        // A refusal is in the transcript.
        let _ = self.cluster.step(node, input);
    }

    /// Several proposals between two outputs.
    fn batch(&mut self, node: NodeId, commands: &[&str]) {
        let now = self.cluster.node(node).now;
        let raft = self.cluster.node_mut(node).raft.as_mut().expect("it is up");
        for data in commands {
            raft.propose(now, &Bytes::copy_from_slice(data.as_bytes())).expect("taken in");
        }
        self.cluster.settle(node);
    }

    fn new_cluster(&mut self, count: u64, options: &[&str]) {
        // Nothing is kept for laggards unless a script asks for it: a snapshot is what it says.
        let mut config = Config { laggard_log_bytes_max: 1, ..Config::default() };
        let mut starts = true;
        for option in options {
            let (key, value) = option.split_once('=').unwrap_or((option, "1"));
            match key {
                "stopped" => starts = false,
                "seed" => self.cluster.seed = number(value),
                "laggards" => config.laggard_log_bytes_max = number(value),
                "tail" => config.log_tail_entries = number(value),
                "chunk" => config.snapshot_chunk_bytes = number(value),
                "chunks-bytes" => config.snapshot_inflight_bytes_max = number(value),
                "inflight" => config.inflight_messages_max = usize::try_from(number(value)).expect("small"),
                "inflight-bytes" => config.inflight_bytes_max = number(value),
                "append" => config.append_bytes_max = number(value),
                "uncommitted" => config.uncommitted_bytes_max = number(value),
                "reads" => config.pending_reads_max = usize::try_from(number(value)).expect("small"),
                "lag" => config.promote_lag_entries = number(value),
                _ => panic!("no such option: {option}"),
            }
        }
        let seed = self.cluster.seed;
        self.cluster = Cluster::new(config);
        self.cluster.seed = seed;
        self.next_store = u128::from(count);
        let durable = first_disk(count);
        for id in (1..=count).map(NodeId::new) {
            self.cluster.nodes.insert(id, Node { durable: durable.clone(), ..Node::default() });
            if starts {
                self.cluster.start(id);
            }
        }
    }

    /// `log 1 1 1 4 4 term=6`: terms of the entries after the first, and the term on record.
    fn set_log(&mut self, node: NodeId, words: &[&str]) {
        let disk = &mut self.cluster.node_mut(node).durable;
        for word in words {
            if let Some(term) = word.strip_prefix("term=") {
                disk.hard_state.term = Term::new(number(term));
                continue;
            }
            let (term, index) = (Term::new(number(word)), LogIndex::new(disk.entries.len() as u64 + 1));
            let data = format!("{term}.{index}");
            disk.entries.push(Entry::new(LogId::new(term, index), EntryKind::Command, data.as_bytes()));
            disk.hard_state.term = disk.hard_state.term.max(term);
        }
    }

    /// Delivers what is on one link now (not what is sent in answer).
    fn deliver(&mut self, link: (NodeId, NodeId), count: usize) {
        let on_link =
            |cluster: &Cluster| cluster.network.iter().position(|message| (message.from, message.to) == link);
        let there = self.cluster.network.iter().filter(|message| (message.from, message.to) == link).count();
        for _ in 0..there.min(count) {
            let position = on_link(&self.cluster).expect("counted");
            self.cluster.deliver_at(position);
        }
    }

    fn persist(&mut self, node: NodeId, count: usize) {
        self.cluster.persist(node, count);
        self.cluster.settle(node);
    }

    /// A clock moves on, but its node does not look at it.
    fn pass(&mut self, node: NodeId, micros: u64) {
        let node = self.cluster.node_mut(node);
        node.now = node.now.plus(micros);
    }

    /// Lets time pass on one node until it campaigns.
    fn campaign(&mut self, node: NodeId) {
        for _ in 0..1_000 {
            let at = self.cluster.node(node).wake_at.expect("a follower waits for its timeout");
            let left = at.since(self.cluster.node(node).now);
            self.cluster.tick(node, left);
            if matches!(
                self.cluster.raft(node).role(),
                RoleName::PreCandidate | RoleName::Candidate | RoleName::Leader
            ) {
                return;
            }
        }
        panic!("node {node} does not campaign");
    }

    /// Makes a node the leader: the others have not heard of one for long enough.
    fn elect(&mut self, node: NodeId) {
        let others: Vec<NodeId> = self.cluster.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            let patience = self.cluster.config.election_timeout_micros;
            self.pass(other, patience);
        }
        self.campaign(node);
        self.cluster.deliver_all();
        assert_eq!(self.cluster.raft(node).role(), RoleName::Leader, "{node} is elected");
    }

    fn expect(&mut self, what: &[&str]) {
        let cluster = &self.cluster;
        match what {
            ["leader", node] => {
                self.leader_hint = Some(id(node));
                let leaders: Vec<NodeId> =
                    up(cluster).filter(|raft| raft.role() == RoleName::Leader).map(Raft::id).collect();
                assert_eq!(leaders, [id(node)], "the leaders");
            }
            ["no", "leader"] => {
                assert!(up(cluster).all(|raft| raft.role() != RoleName::Leader), "nobody leads");
            }
            ["role", node, role] => {
                assert_eq!(format!("{:?}", cluster.raft(id(node)).role()).to_lowercase(), *role);
            }
            ["term", node, term] => assert_eq!(cluster.raft(id(node)).term().get(), number(term)),
            ["commit", index, nodes @ ..] => {
                for node in nodes {
                    assert_eq!(
                        cluster.raft(id(node)).commit_index().get(),
                        number(index),
                        "commit of {node}"
                    );
                }
            }
            ["log", node, rest @ ..] => {
                let log = cluster.raft(id(node)).log_after(LogIndex::ZERO);
                assert_eq!(describe::entries(&log), rest.join(" "), "log of {node}");
            }
            ["same", "logs"] => {
                let mut logs = up(cluster).map(|raft| (raft.last_log(), raft.commit_index()));
                let first = logs.next();
                assert!(logs.all(|log| Some(log) == first), "logs differ");
            }
            ["applied", node, rest @ ..] => {
                let applied = cluster.node(id(node)).applied.iter();
                let data: Vec<_> = applied
                    .filter(|entry| entry.kind() == EntryKind::Command)
                    .map(|entry| String::from_utf8_lossy(&entry.data()).into_owned())
                    .collect();
                assert_eq!(data, rest, "applied by {node}");
            }
            ["membership", node, rest @ ..] => {
                assert_eq!(describe::membership(cluster.raft(id(node)).membership()), rest.join(" "));
            }
            ["silence"] => {
                assert!(cluster.network.is_empty(), "messages are on their way: {:?}", cluster.network)
            }
            _ => panic!("cannot expect {what:?}"),
        }
    }

    fn show(&mut self) {
        let cluster = &mut self.cluster;
        for (id, node) in &cluster.nodes {
            let Some(raft) = &node.raft else {
                writeln!(cluster.transcript, "{id}: down").expect("a string");
                continue;
            };
            let role = format!("{:?}", raft.role()).to_lowercase();
            let log = describe::entries(&raft.log_after(LogIndex::ZERO));
            writeln!(
                cluster.transcript,
                "{id}: {role} t{} commit {} log {log}",
                raft.term(),
                raft.commit_index()
            )
            .expect("a string");
            for peer in raft.progress() {
                let (matched, next) = (peer.match_index, peer.next_index);
                writeln!(cluster.transcript, "   {}: {} match {matched} next {next}", peer.id, peer.state)
                    .expect("a string");
            }
        }
    }
}

fn up(cluster: &Cluster) -> impl Iterator<Item = &Raft> {
    cluster.nodes.values().filter_map(|node| node.raft.as_ref())
}

/// One test for each script, by its name.
macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { check(concat!(stringify!($name), ".txt")); })*

        #[test]
        fn every_script_is_run() {
            let known = [$(concat!(stringify!($name), ".txt")),*];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/tests/scripts");
            for file in std::fs::read_dir(folder).expect("the scripts are there") {
                let name = file.expect("readable").file_name();
                if name == "README.md" {
                    continue;
                }
                assert!(known.iter().any(|known| *known == name), "{name:?} is not run: list it");
            }
        }
    };
}

#[test]
fn the_grammar_has_every_command_and_option_that_a_script_uses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/raft/tests/scripts");
    let grammar = std::fs::read_to_string(folder.join("README.md")).expect("it is there");
    let is_known = |word: &str| [" ", "`", "="].iter().any(|end| grammar.contains(&format!("`{word}{end}")));
    for file in std::fs::read_dir(folder).expect("the scripts are there") {
        let path = file.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        for command in text.lines().filter_map(|line| line.strip_prefix("> ")) {
            let mut words = command.split_whitespace().skip_while(|word| *word == "quiet");
            let name = words.next().expect("a command");
            let name = if name == "expect" { &format!("expect {}", words.next().unwrap()) } else { name };
            assert!(is_known(name), "{name} of {} is not in the grammar", path.display());
            if name == "cluster" {
                for option in words.skip(1) {
                    let option = option.split('=').next().expect("a word");
                    assert!(is_known(option), "option {option} of {} is not in it", path.display());
                }
            }
        }
    }
}

scripts! {
    election_basic,
    election_candidate_follows,
    election_check_quorum,
    election_delayed_request_of_a_higher_term,
    election_higher_term_in_a_rejection,
    election_leader_is_gone,
    election_leader_is_not_gone,
    election_own_vote_is_durable,
    election_prevote_of_a_partitioned_node,
    election_repeated_grant,
    election_slow_voter,
    election_slow_voter_dies,
    election_slow_voter_of_five,
    election_single_node,
    election_slow_disk,
    election_slow_follower_disk,
    election_split_vote,
    election_stickiness,
    election_up_to_date_logs,
    election_vote_is_durable_before_it_is_sent,
    membership_add,
    membership_dead_learner,
    membership_joint_state_needs_both_majorities,
    membership_joint_state_needs_the_outgoing_majority,
    membership_late_answer_of_a_former_self,
    membership_leader_change_in_joint_state,
    membership_learner,
    membership_learner_never_campaigns,
    membership_promoted_learner_does_not_know,
    membership_quorum_at_risk,
    membership_refused_before_own_commit,
    membership_remove_follower,
    membership_remove_leader,
    membership_removed_leader_alone_has_the_entry,
    membership_replace,
    membership_rollback,
    membership_rollback_at_restart,
    membership_several_at_once,
    reads_before_own_commit,
    reads_delayed_answer_of_an_older_round,
    reads_follower,
    reads_forwarded_when_leadership_is_lost,
    reads_late_read_starts_another_round,
    reads_leader,
    reads_limit,
    reads_minority_leader,
    reads_question_lost,
    reads_restarted_follower,
    reads_single_node,
    reads_while_disk_is_slow,
    reads_without_a_leader,
    replication_batch,
    replication_duplicates_and_disorder,
    replication_figure_7,
    replication_figure_8,
    replication_follower_disk,
    replication_gap,
    replication_idle,
    replication_late_answers_to_a_probe,
    replication_late_receipt,
    replication_late_rejection,
    replication_leader_disk,
    replication_pipeline,
    replication_uncommitted_limit,
    snapshot_below_commit,
    snapshot_crash_before_it_is_durable,
    snapshot_damaged,
    snapshot_follower_restarts,
    snapshot_kept_log_for_laggards,
    snapshot_kept_tail,
    snapshot_leader_change,
    snapshot_leader_restarts_with_an_empty_log,
    snapshot_lost_answer,
    snapshot_lost_chunk,
    snapshot_newer_one_meanwhile,
    snapshot_purged_leader,
    snapshot_refused_twice,
    snapshot_replaces_a_conflicting_tail,
    snapshot_slow_disk,
    snapshot_slow_learner_is_not_promoted,
    snapshot_while_the_term_changes,
    snapshot_window,
    transfer,
    transfer_given_up,
    transfer_refused,
    transfer_to_the_most_advanced,
    transfer_waits_for_the_target,
}
