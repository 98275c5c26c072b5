//! The rules of Raft figure 2, one test each, in its order. The last (only entries of the own term
//! are counted) is `a_prior_terms_entry_is_not_committed_by_counting` in [`super::traps`].

use crate::raft::tests::harness::{Cluster, entry, id, index, log_id, made_with, voters};
use crate::raft::{Body, LogId, LogIndex, Restored, RoleName, Term};
use alloc::vec;
use alloc::vec::Vec;

/// Three voters of which only 1 matters; it has this log (after 1@1), in this term.
fn follower(term: u64, log: &[(u64, u64)]) -> Cluster {
    let mut cluster = Cluster::new(3);
    let mut restored: Restored = made_with(&voters(1..=3));
    restored.hard_state.term = Term::new(term);
    restored.entries.extend(log.iter().map(|(at, term)| entry(*at, *term)));
    cluster.add(1, restored);
    cluster.network.clear();
    cluster
}

fn granted(cluster: &mut Cluster, candidate: u64, term: u64, last_log: LogId) -> bool {
    cluster.network.clear();
    cluster.say(candidate, 1, term, Body::RequestVote { last_log, transfer: false });
    cluster.sync(1);
    match cluster.last_said(1, candidate) {
        Some(Body::VoteGranted) => true,
        Some(Body::VoteRejected) => false,
        other => panic!("no answer to a vote request: {other:?}"),
    }
}

#[test]
fn append_entries_1_a_smaller_term_is_rejected_with_the_higher_one() {
    let mut cluster = follower(5, &[]);
    cluster.append((2, 1, 4), log_id(1, 1), vec![entry(2, 4)], 0);
    assert!(matches!(cluster.last_said(1, 2), Some(Body::AppendRejected { .. })));
    assert_eq!(cluster.network[0].term, Term::new(5));
    assert_eq!(cluster.log(1), [log_id(1, 1)]);
}

#[test]
fn append_entries_2_follower_rejects_gap() {
    let mut cluster = follower(5, &[(2, 2)]);
    cluster.append((2, 1, 5), log_id(3, 2), vec![entry(4, 5)], 0);
    let rejected = log_id(3, 2);
    let Some(Body::AppendRejected { rejected: echoed, hint, .. }) = cluster.last_said(1, 2) else { panic!() };
    assert_eq!((*echoed, *hint), (rejected, log_id(2, 2)));
}

#[test]
fn append_entries_2_follower_rejects_another_term_at_prev() {
    let mut cluster = follower(5, &[(2, 2), (3, 3)]);
    cluster.append((2, 1, 5), log_id(3, 2), vec![entry(4, 5)], 0);
    let Some(Body::AppendRejected { hint, .. }) = cluster.last_said(1, 2) else { panic!() };
    assert_eq!(*hint, log_id(2, 2), "the last entry that could match: of term 2 at most");
    assert_eq!(cluster.log(1).len(), 3, "a rejection truncates nothing");
}

#[test]
fn append_entries_3_a_conflict_removes_the_entry_and_all_after_it() {
    let mut cluster = follower(5, &[(2, 2), (3, 2), (4, 2)]);
    cluster.append((2, 1, 5), log_id(2, 2), vec![entry(3, 4)], 0);
    assert_eq!(cluster.log(1), [log_id(1, 1), log_id(2, 2), log_id(3, 4)]);
    cluster.sync(1);
    let on_disk: Vec<LogId> = cluster.node(1).disk.restored.entries.iter().map(|e| e.id()).collect();
    assert_eq!(on_disk, cluster.log(1));
}

#[test]
fn append_entries_4_only_entries_that_are_missing_are_appended() {
    let mut cluster = follower(5, &[(2, 2), (3, 3)]);
    cluster.append((2, 1, 5), log_id(1, 1), vec![entry(2, 2), entry(3, 3), entry(4, 5)], 0);
    assert_eq!(cluster.log(1).len(), 4);
    let write = cluster.node(1).writes.back().unwrap();
    assert_eq!(write.records().entries, [entry(4, 5)]);
    assert_eq!(write.records().truncate_from, None);
}

#[test]
fn append_entries_5_commit_is_the_leaders_but_not_beyond_the_messages_tail() {
    let mut cluster = follower(5, &[(2, 2), (3, 3), (4, 3)]);
    cluster.append((2, 1, 5), log_id(2, 2), vec![entry(3, 3)], 4);
    assert_eq!(cluster.raft(1).commit_index(), index(3), "4 may be another entry on the leader");
}

#[test]
fn request_vote_1_a_smaller_term_is_rejected() {
    let mut cluster = follower(5, &[]);
    assert!(!granted(&mut cluster, 2, 4, log_id(9, 4)));
}

#[test]
fn request_vote_2_one_vote_in_a_term_also_after_a_restart() {
    let mut cluster = follower(5, &[]);
    assert!(granted(&mut cluster, 2, 6, log_id(1, 1)));
    assert!(!granted(&mut cluster, 3, 6, log_id(9, 5)));
    assert!(granted(&mut cluster, 2, 6, log_id(1, 1)), "the same candidate may ask again");
    cluster.restart(1);
    assert!(!granted(&mut cluster, 3, 6, log_id(9, 5)));
    assert!(granted(&mut cluster, 3, 7, log_id(9, 5)));
}

#[test]
fn request_vote_2_the_candidates_log_must_be_at_least_as_up_to_date() {
    let own = [(2, 3), (3, 3)];
    for (last_log, expected) in [
        (log_id(3, 3), true),
        (log_id(4, 3), true),
        (log_id(2, 3), false),
        (log_id(2, 4), true),
        (log_id(9, 2), false),
        (LogId::ZERO, false),
    ] {
        let mut cluster = follower(5, &own);
        assert_eq!(granted(&mut cluster, 2, 6, last_log), expected, "{last_log} against 3@3");
    }
}

#[test]
fn all_servers_1_committed_entries_are_handed_out_once_and_in_order() {
    let mut cluster = follower(5, &[(2, 2), (3, 3)]);
    cluster.append((2, 1, 5), log_id(3, 3), vec![], 2);
    cluster.append((2, 1, 5), log_id(3, 3), vec![], 3);
    cluster.append((2, 1, 5), log_id(3, 3), vec![], 3);
    let applied: Vec<LogIndex> = cluster.node(1).applied.iter().map(|e| e.index()).collect();
    assert_eq!(applied, [index(1), index(2), index(3)]);
}

#[test]
fn all_servers_2_a_higher_term_makes_a_follower_of_anybody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.say(2, 1, 9, Body::VoteRejected);
    assert_eq!(cluster.raft(1).role(), RoleName::Follower);
    assert_eq!(cluster.raft(1).term(), Term::new(9));
    assert_eq!(cluster.raft(1).leader_hint().leader, None);
}

#[test]
fn followers_2_silence_makes_a_candidate_but_messages_and_votes_put_it_off() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.advance(3_000_000);
    assert_eq!(cluster.raft(2).role(), RoleName::Follower, "heartbeats keep it");
    assert_eq!(cluster.raft(3).role(), RoleName::PreCandidate, "silence does not");
}

#[test]
fn candidates_1_a_campaign_raises_the_term_votes_for_itself_and_asks_everybody() {
    let mut cluster = Cluster::new(3);
    cluster.time_out(1);
    for voter in [2, 3] {
        cluster.say(voter, 1, 1, Body::PreVoteGranted { campaign_term: Term::new(2) });
    }
    assert_eq!(cluster.raft(1).role(), RoleName::Candidate);
    cluster.network.clear();
    cluster.sync(1);
    let hard_state = cluster.node(1).disk.restored.hard_state;
    assert_eq!((hard_state.term, hard_state.voted_for), (Term::new(2), Some(id(1))));
    for voter in [2, 3] {
        assert!(matches!(cluster.between(1, voter)[..], [Body::RequestVote { .. }]));
    }
}

#[test]
fn candidates_2_a_majority_of_votes_makes_a_leader_and_a_repeated_vote_counts_once() {
    let mut cluster = Cluster::new(5);
    cluster.time_out(1);
    for voter in [2, 3] {
        cluster.say(voter, 1, 1, Body::PreVoteGranted { campaign_term: Term::new(2) });
    }
    cluster.sync(1);
    cluster.say(2, 1, 2, Body::VoteGranted);
    cluster.say(2, 1, 2, Body::VoteGranted);
    assert_eq!(cluster.raft(1).role(), RoleName::Candidate);
    cluster.say(3, 1, 2, Body::VoteGranted);
    assert_eq!(cluster.raft(1).role(), RoleName::Leader);
}

#[test]
fn candidates_3_a_leader_of_the_same_term_is_followed() {
    let mut cluster = Cluster::new(3);
    cluster.time_out(1);
    cluster.say(2, 1, 1, Body::PreVoteGranted { campaign_term: Term::new(2) });
    cluster.append((3, 1, 2), log_id(1, 1), vec![], 0);
    assert_eq!(cluster.raft(1).role(), RoleName::Follower);
    assert_eq!(cluster.raft(1).leader_hint().leader, Some(id(3)));
}

#[test]
fn candidates_4_without_an_outcome_the_election_starts_over() {
    let mut cluster = Cluster::new(3);
    cluster.time_out(1);
    cluster.say(2, 1, 1, Body::PreVoteGranted { campaign_term: Term::new(2) });
    cluster.sync(1);
    cluster.lose_messages();
    // It may yet win: those that granted the pre-vote may take their time to write the vote down.
    cluster.now += cluster.config.election_timeout_micros;
    cluster.step(1, crate::raft::Input::Wake).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleName::Candidate);
    assert!(matches!(cluster.between(1, 2)[..], [Body::RequestVote { .. }]), "it asks again");
    cluster.now += cluster.config.disk_stall_micros;
    cluster.time_out(1);
    assert_eq!(cluster.raft(1).role(), RoleName::PreCandidate);
    assert_eq!(cluster.raft(1).term(), Term::new(2), "asking again does not raise the term");
}

#[test]
fn leaders_1_an_append_goes_out_on_election_and_heartbeats_in_idle_periods() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(1, crate::raft::Input::Wake).unwrap();
    for peer in [2, 3] {
        let said = cluster.between(1, peer);
        assert!(matches!(said[..], [Body::AppendEntries { entries, .. }] if entries.is_empty()));
    }
}

#[test]
fn leaders_2_a_command_is_appended_and_answered_when_applied() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let before = cluster.log(1).len();
    cluster.propose(1, "a").unwrap();
    assert_eq!(cluster.log(1).len(), before + 1);
    assert!(cluster.commands(1).is_empty());
    cluster.run();
    assert_eq!(cluster.commands(1), ["a"]);
}

#[test]
fn leaders_3_a_rejection_moves_next_index_back_until_the_logs_agree() {
    let mut cluster = follower(5, &[(2, 2), (3, 2), (4, 2)]);
    let mut longer = made_with(&voters(1..=3));
    longer.hard_state.term = Term::new(5);
    longer.entries.extend([entry(2, 3), entry(3, 3), entry(4, 4), entry(5, 4)]);
    cluster.add(2, longer);
    cluster.network.clear();
    cluster.elect(2);
    assert_eq!(cluster.log(1), cluster.log(2));
    cluster.check_log_matching();
}
