use super::Elections;
use infinitystore::raft::{
    AnswerClock, AppendClock, Body, LogId, LogIndex, Membership, Message, NodeId, ReadRound, RoleName,
    Session, Term, Time,
};
use std::collections::BTreeMap;

const TIMEOUT: u64 = 100;
const TERM: Term = Term::new(3);
const NEXT: Term = Term::new(4);

fn message(from: u64, to: u64, term: Term, body: Body) -> Message {
    Message { from: NodeId::new(from), to: NodeId::new(to), term, body }
}

fn three() -> Membership {
    Membership {
        voters: (1..=3).map(NodeId::new).collect(),
        outgoing: None,
        learners: BTreeMap::new(),
        next_member_id: NodeId::new(4),
        members: BTreeMap::new(),
    }
}

fn follower(elections: &mut Elections, message: &Message, at: u64) {
    elections.taken_in(message, Time::new(at), (TERM, RoleName::Follower), TIMEOUT);
}

#[test]
fn a_campaign_without_pre_votes_is_refused_and_one_with_a_majority_is_not() {
    let mut elections = Elections::default();
    elections.started(NodeId::new(1));
    let campaign = message(1, 2, NEXT, Body::RequestVote { last_log: LogId::ZERO, transfer: false });
    assert!(elections.sent(&campaign, &three(), Time::new(1_000_000), TIMEOUT).is_err());
    let other = Body::PreVoteGranted { campaign_term: TERM };
    follower(&mut elections, &message(2, 1, TERM, other), 1);
    assert!(
        elections.sent(&campaign, &three(), Time::new(1_000_000), TIMEOUT).is_err(),
        "a grant for another term"
    );
    let granted = Body::PreVoteGranted { campaign_term: NEXT };
    follower(&mut elections, &message(2, 1, TERM, granted), 2);
    assert!(elections.sent(&campaign, &three(), Time::new(1_000_000), TIMEOUT).is_ok());
    let joint = Membership { outgoing: Some([1, 4, 5].map(NodeId::new).into()), ..three() };
    assert!(
        elections.sent(&campaign, &joint, Time::new(1_000_000), TIMEOUT).is_err(),
        "of one set of voters alone"
    );
}

#[test]
fn who_takes_over_without_being_told_is_refused() {
    let mut elections = Elections::default();
    elections.started(NodeId::new(1));
    let campaign = message(1, 2, NEXT, Body::RequestVote { last_log: LogId::ZERO, transfer: true });
    assert!(elections.sent(&campaign, &three(), Time::new(1_000_000), TIMEOUT).is_err());
    follower(&mut elections, &message(3, 1, TERM, Body::TimeoutNow), 1);
    assert!(elections.sent(&campaign, &three(), Time::new(1_000_000), TIMEOUT).is_ok());
}

#[test]
fn a_grant_by_a_node_that_hears_a_leader_is_refused() {
    let mut elections = Elections::default();
    elections.started(NodeId::new(1));
    let heartbeat = Body::AppendEntries {
        session: Session::new(1),
        prev: LogId::ZERO,
        acknowledged: LogId::ZERO,
        entries: Vec::new(),
        commit: LogIndex::ZERO,
        round: ReadRound::ZERO,
        clock: AppendClock::default(),
    };
    follower(&mut elections, &message(3, 1, TERM, heartbeat), 1_000);
    let (pre, vote) = (
        Body::PreVote { campaign_term: NEXT, last_log: LogId::ZERO },
        Body::RequestVote { last_log: LogId::ZERO, transfer: false },
    );
    let grants = [
        message(1, 2, TERM, Body::PreVoteGranted { campaign_term: NEXT }),
        message(1, 2, NEXT, Body::VoteGranted),
    ];
    follower(&mut elections, &message(2, 1, TERM, pre.clone()), 1_000 + TIMEOUT - 1);
    follower(&mut elections, &message(2, 1, NEXT, vote.clone()), 1_000 + TIMEOUT - 1);
    assert!(
        grants.iter().all(|grant| elections.sent(grant, &three(), Time::new(1_000_000), TIMEOUT).is_err())
    );
    follower(&mut elections, &message(2, 1, TERM, pre), 1_000 + TIMEOUT);
    follower(&mut elections, &message(2, 1, NEXT, vote), 1_000 + TIMEOUT);
    assert!(
        grants.iter().all(|grant| elections.sent(grant, &three(), Time::new(1_000_000), TIMEOUT).is_ok())
    );
}

#[test]
fn a_leader_that_never_heard_anybody_is_refused_once_its_time_is_up() {
    let mut elections = Elections::default();
    let (id, at) = (NodeId::new(1), Time::new);
    elections.started(id);
    elections.stepped(id, &three(), (RoleName::Leader, TERM), at(1_000));
    assert!(elections.leads_on(id, &three(), at(1_000 + TIMEOUT), TIMEOUT).is_ok());
    assert!(elections.leads_on(id, &three(), at(1_001 + TIMEOUT), TIMEOUT).is_err());
    follower(&mut elections, &message(2, 1, TERM, Body::VoteGranted), 1_050);
    assert!(elections.leads_on(id, &three(), at(1_001 + TIMEOUT), TIMEOUT).is_ok());
    assert!(elections.leads_on(id, &three(), at(1_051 + TIMEOUT), TIMEOUT).is_err());
}

#[test]
fn whoever_has_granted_a_vote_waits_for_an_election_timeout() {
    let mut elections = Elections::default();
    let at = Time::new;
    let (vote, pre) = (Body::VoteGranted, Body::PreVote { campaign_term: NEXT, last_log: LogId::ZERO });
    let asks = Body::RequestVote { last_log: LogId::ZERO, transfer: false };
    follower(&mut elections, &message(2, 1, TERM, asks), 1_000);
    let grant = message(1, 2, TERM, vote);
    assert!(elections.sent(&grant, &three(), at(1_500), TIMEOUT).is_ok());
    let mut campaign =
        |micros| elections.sent(&message(1, 3, TERM, pre.clone()), &three(), at(micros), TIMEOUT);
    assert!(campaign(1_000 + TIMEOUT - 1).is_err());
    assert!(campaign(1_000 + TIMEOUT).is_ok());
}

#[test]
fn a_leader_that_a_majority_answers_may_not_give_up() {
    let (id, at) = (NodeId::new(1), Time::new);
    for (answer_at, is_sound) in [(1_000, true), (1_900, false)] {
        let mut elections = Elections::default();
        elections.started(id);
        elections.stepped(id, &three(), (RoleName::Leader, TERM), at(500));
        let (round, clock) = (ReadRound::ZERO, AnswerClock::default());
        let heard = message(2, 1, TERM, Body::Heard { round, promised_micros: 0, clock });
        elections.taken_in(&heard, at(answer_at), (TERM, RoleName::Leader), TIMEOUT);
        elections.led_on(id, &three(), (RoleName::Follower, TERM), at(2_000), 500);
        assert_eq!(elections.judge_leaders().is_ok(), is_sound);
    }
}

#[test]
fn an_answer_to_a_message_of_an_earlier_term_is_no_answer() {
    let (id, at) = (NodeId::new(1), Time::new);
    for (session, is_sound) in [(Session::new(1), false), (Session::ZERO, true)] {
        let mut elections = Elections::default();
        elections.stepped(id, &three(), (RoleName::Leader, TERM), at(500));
        let (rejected, round, clock) = (LogId::ZERO, ReadRound::ZERO, AnswerClock::default());
        let rejection = Body::AppendRejected { session, rejected, hint: rejected, round, clock };
        elections.taken_in(&message(2, 1, TERM, rejection), at(1_900), (TERM, RoleName::Leader), TIMEOUT);
        elections.led_on(id, &three(), (RoleName::Follower, TERM), at(2_000), 500);
        assert_eq!(elections.judge_leaders().is_ok(), is_sound);
    }
}

#[test]
fn a_campaign_is_judged_by_the_voters_that_its_candidate_knew() {
    let campaign = message(1, 2, NEXT, Body::RequestVote { last_log: LogId::ZERO, transfer: false });
    let two = Membership { voters: [1, 2].map(NodeId::new).into(), ..three() };
    let five = Membership { voters: (1..=5).map(NodeId::new).collect(), ..three() };
    for (then, is_sound) in [(two, true), (five.clone(), false)] {
        let mut elections = Elections::default();
        follower(&mut elections, &message(2, 1, TERM, Body::PreVoteGranted { campaign_term: NEXT }), 2);
        elections.stepped(NodeId::new(1), &then, (RoleName::Candidate, NEXT), Time::new(3));
        elections.stepped(NodeId::new(1), &five, (RoleName::Follower, NEXT), Time::new(4));
        assert_eq!(elections.sent(&campaign, &five, Time::new(5), TIMEOUT).is_ok(), is_sound);
    }
}
