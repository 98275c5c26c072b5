use super::{Kind, Promptness, Stand, Traffic};
use crate::schedule::{MILLI, Schedule, Settings};
use infinitystore::raft::{
    AnswerClock, AppendClock, Body, Entry, EntryKind, Incarnation, LogId, LogIndex, Message, NodeId,
    ReadRound, Session, Term,
};
use infinitystore::replica::PeerMessage;

const BEAT: u64 = 50 * MILLI;

#[test]
fn answers_most_of_which_are_late_are_refused_and_a_few_late_ones_are_not() {
    let kind = Kind { leader: false, write: true };
    let due = Promptness::of(100, 200, 0.0).due(kind, 0);
    let judge = |late: u64| {
        let mut promptness = Promptness::of(100, 200, 0.0);
        (0..30).try_for_each(|number| {
            let took = due + u64::from(number % 10 + late >= 10);
            promptness.answered(kind, number * MILLI, number * MILLI + took, 0)
        })
    };
    assert_eq!(judge(3), Ok(()));
    assert!(judge(6).is_err());
    let mut lossy = Promptness::of(100, 200, 0.1);
    assert_eq!((0..30).try_for_each(|_| lossy.answered(kind, 0, due + 1, 0)), Ok(()));
}

#[test]
fn late_answers_that_one_lost_message_may_explain_count_once() {
    let kind = Kind { leader: false, write: true };
    let judge = |loss: f64, apart: u64| {
        let mut promptness = Promptness::of(100, 200, loss);
        let late = promptness.due(kind, 0) + 1;
        (0..30).try_for_each(|number| promptness.answered(kind, number * apart, number * apart + late, 0))
    };
    // All waited at the same time, or one after the other.
    assert_eq!(judge(0.01, 1), Ok(()));
    assert!(judge(0.01, 10 * MILLI).is_err());
    assert!(judge(0.0, 1).is_err());
}

fn traffic() -> Traffic {
    let settings =
        Settings { heartbeat_interval_micros: BEAT, duplicate_ppm: 0, ..Schedule::generate(0).settings };
    let mut traffic = Traffic::of(&settings);
    assert_eq!(traffic.look(0, true, stand(5)), Ok(false));
    traffic
}

fn stand(last: u64) -> Stand {
    Stand { last: LogIndex::new(last), commit: LogIndex::new(last), followers: 1, ..Stand::default() }
}

fn message(body: Body) -> PeerMessage {
    PeerMessage::Raft(Message { from: NodeId::new(1), to: NodeId::new(2), term: Term::new(3), body })
}

fn append(count: u64, commit: u64) -> PeerMessage {
    let entry = |index| Entry::new(LogId::new(Term::new(3), LogIndex::new(index)), EntryKind::Empty, &[]);
    message(Body::AppendEntries {
        session: Session::new(1),
        prev: LogId::new(Term::new(3), LogIndex::new(5)),
        acknowledged: LogId::ZERO,
        entries: (6..6 + count).map(entry).collect(),
        commit: LogIndex::new(commit),
        round: ReadRound::ZERO,
        clock: AppendClock::default(),
    })
}

/// Sends `count` of them in a window in which `appended` entries are appended. Returns whether
/// that is refused.
fn refuses(count: u64, said: &PeerMessage, appended: u64) -> bool {
    let mut traffic = traffic();
    (0..count).for_each(|_| traffic.said(said));
    traffic.look(20 * BEAT, true, stand(5 + appended)).is_err()
}

#[test]
fn entries_that_are_sent_again_are_refused() {
    assert!(!refuses(8, &append(1, 5), 8));
    assert!(refuses(21, &append(1, 5), 8));
}

/// An append of the entries 6 to 5 + `count`, sent twice, with these answers in between, in a
/// window in which they are appended. Whether that is refused.
fn refuses_again(times: u64, between: &[Body]) -> bool {
    let mut traffic = traffic();
    let back = |body: &Body| {
        let (from, to, body) = (NodeId::new(2), NodeId::new(1), body.clone());
        PeerMessage::Raft(Message { from, to, term: Term::new(3), body })
    };
    for _ in 0..times {
        traffic.said(&append(8, 5));
        between.iter().for_each(|body| traffic.said(&back(body)));
    }
    traffic.look(20 * BEAT, true, stand(5 + 8)).is_err()
}

#[test]
fn what_a_follower_lacks_by_its_own_word_is_sent_again_and_what_it_has_is_not() {
    let round = ReadRound::ZERO;
    let id = |index| LogId::new(Term::new(3), LogIndex::new(index));
    let rejected = |rejected, hint| Body::AppendRejected {
        session: Session::new(1),
        rejected: id(rejected),
        hint: id(hint),
        round,
        clock: AnswerClock::default(),
    };
    let accepted = Body::AppendAccepted {
        session: Session::new(1),
        match_index: LogIndex::new(13),
        round,
        clock: AnswerClock::default(),
    };
    assert!(refuses_again(4, &[]));
    assert!(!refuses_again(4, &[rejected(13, 5)]));
    assert!(!refuses_again(4, &[rejected(12, 5), rejected(13, 5)]));
    assert!(refuses_again(4, &[rejected(13, 11)]), "it lacks two of them");
    assert!(refuses_again(4, &[accepted, rejected(13, 5)]), "it has them");
}

#[test]
fn heartbeats_twice_as_often_are_refused() {
    assert!(!refuses(21, &append(0, 5), 0));
    assert!(refuses(40, &append(0, 5), 0));
}

#[test]
fn what_clients_ask_excuses_no_heartbeat() {
    let mut traffic = traffic();
    (0..100).for_each(|_| traffic.asked(false));
    (0..40).for_each(|_| traffic.said(&append(0, 5)));
    assert!(traffic.look(20 * BEAT, true, stand(5)).is_err());
}

#[test]
fn news_that_nobody_has_reason_for_are_refused() {
    let tell = |appended: u64| {
        let mut traffic = traffic();
        (6..26).for_each(|commit| traffic.said(&append(0, commit)));
        traffic.look(20 * BEAT, true, stand(5 + appended)).is_err()
    };
    assert!(!tell(20));
    assert!(tell(2));
}

#[test]
fn answers_questions_and_campaigns_without_a_reason_are_refused() {
    let accepted = Body::AppendAccepted {
        session: Session::new(1),
        match_index: LogIndex::new(5),
        round: ReadRound::ZERO,
        clock: AnswerClock::default(),
    };
    assert!(refuses(40, &message(accepted), 0));
    assert!(refuses(
        5,
        &message(Body::ReadIndexReady {
            incarnation: Default::default(),
            sequence: 1,
            index: LogIndex::new(5)
        }),
        0
    ));
    assert!(refuses(1, &message(Body::VoteGranted), 0));
}

#[test]
fn a_late_copy_of_a_request_for_a_vote_is_answered_once_and_by_the_process_that_got_it() {
    let campaign_term = Term::new(2);
    let request = message(Body::PreVote { campaign_term, last_log: LogId::ZERO });
    let answer = |from, to| {
        let body = Body::PreVoteRejected { campaign_term };
        let (from, to, term) = (NodeId::new(from), NodeId::new(to), Term::new(3));
        PeerMessage::Raft(Message { from, to, term, body })
    };
    let mut traffic = traffic();
    assert!(!traffic.settles(&answer(2, 1)), "nobody has asked");
    traffic.heard(&request);
    assert!(!traffic.settles(&answer(2, 3)), "another has asked");
    assert!(!traffic.settles(&request), "it does not answer itself");
    assert!(traffic.settles(&answer(2, 1)));
    assert!(!traffic.settles(&answer(2, 1)), "it was asked once");
    traffic.heard(&request);
    traffic.started(NodeId::new(2));
    assert!(!traffic.settles(&answer(2, 1)), "that was another life");
}

#[test]
fn a_window_in_which_something_struck_is_not_judged() {
    let mut traffic = traffic();
    (0..100).for_each(|_| traffic.said(&append(1, 5)));
    assert_eq!(traffic.look(10 * BEAT, false, stand(5)), Ok(false));
    assert_eq!(traffic.look(11 * BEAT, true, stand(5)), Ok(false));
    assert_eq!(traffic.look(31 * BEAT, true, stand(5)), Ok(true));
}

#[test]
fn a_question_for_a_read_index_is_repeated_as_long_as_its_answer_may_take_and_no_longer() {
    let asks = |hop: u64, copies: u64| {
        let settings = Settings {
            heartbeat_interval_micros: BEAT,
            duplicate_ppm: 0,
            delay_max_micros: hop,
            link_spread: 1,
            settle_max_micros: 0,
            ..Schedule::generate(0).settings
        };
        let mut traffic = Traffic::of(&settings);
        traffic.look(0, true, stand(5)).unwrap();
        let incarnation = Incarnation::new(1);
        let index = LogIndex::new(5);
        for sequence in 0..20 {
            traffic.asked(false);
            for _ in 0..copies {
                traffic.said(&message(Body::ReadIndex { incarnation, sequence }));
                traffic.said(&message(Body::ReadIndexReady { incarnation, sequence, index }));
            }
        }
        traffic.look(20 * BEAT, true, stand(5))
    };
    assert_eq!(asks(BEAT / 10, 1), Ok(true));
    assert!(asks(BEAT / 10, 2).is_err());
    assert_eq!(asks(BEAT / 2, 4), Ok(true));
    assert!(asks(BEAT / 2, 5).is_err());
}
