use super::{Health, Service, Shows, Surroundings};
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND, Schedule, Settings};
use infinitystore::kv::{Outcome, Revision};
use infinitystore::raft::{Body, LogIndex, Message, NodeId, RoleName, Term};
use infinitystore::replica::{ClientError, ClientReply, PeerMessage, RequestId};

const TERM: Term = Term::new(3);

fn settings() -> Settings {
    Settings {
        delay_min_micros: 100,
        delay_max_micros: 200,
        loss_ppm: 0,
        duplicate_ppm: 0,
        corrupt_ppm: 0,
        straggler_ppm: 0,
        link_spread: 1,
        sync_min_micros: 100,
        sync_max_micros: 200,
        settle_max_micros: 0,
        drift_ppm: 0,
        election_timeout_micros: 200 * MILLI,
        heartbeat_interval_micros: 50 * MILLI,
        ..Schedule::generate(0).settings
    }
}

fn well() -> Surroundings {
    Surroundings { health: vec![Health::Well; 3], severed: vec![0; 3], voters: 0b111, surgery: false }
}

fn shows(slot: usize, last: u64, commit: u64) -> Option<Shows> {
    let role = if slot == 0 { RoleName::Leader } else { RoleName::Follower };
    let (last, commit) = (LogIndex::new(last), LogIndex::new(commit));
    Some(Shows { role, term: TERM, leader: Some(0), last, commit, applied: commit, behind: 0 })
}

/// Machine 0 leads three machines, all well, from the start on.
fn service() -> Service {
    let mut service = Service::new(&settings(), 3);
    service.surroundings(0, &well());
    service.stepped(0, 0, RoleName::Leader, TERM).unwrap();
    service
}

/// Looks again and again at what does not change.
fn look(service: &mut Service, micros: u64, shown: &[Option<Shows>; 3]) -> Result<(), Violation> {
    (0..=micros / (10 * MILLI)).try_for_each(|step| service.look(step * 10 * MILLI, shown, 0).map(|_| ()))
}

#[track_caller]
fn refuses<T: std::fmt::Debug + PartialEq>(check: &str, result: Result<T, Violation>) {
    assert_eq!(result.map_err(|violation| violation.check), Err(check));
}

#[test]
fn a_majority_that_elects_nobody_is_refused_and_one_that_is_cut_is_not() {
    let none = shows(1, 1, 1).map(|shows| Shows { leader: None, ..shows });
    let mut service = Service::new(&settings(), 3);
    service.surroundings(0, &well());
    let long = 2 * service.bounds.elect;
    refuses("a majority elects a leader", look(&mut service, long, &[none; 3]));
    for surroundings in [
        Surroundings { severed: vec![0b110, 0b001, 0b001], ..well() },
        Surroundings { health: vec![Health::Absent, Health::Well, Health::Well], ..well() },
    ] {
        let mut service = Service::new(&settings(), 3);
        service.surroundings(0, &surroundings);
        refuses("a majority elects a leader", look(&mut service, long, &[none; 3]));
    }
    for surroundings in [
        Surroundings { severed: vec![0b110, 0b101, 0b011], ..well() },
        Surroundings { health: vec![Health::Absent, Health::Absent, Health::Well], ..well() },
        Surroundings { severed: vec![0b010, 0, 0], ..well() },
        Surroundings { surgery: true, ..well() },
    ] {
        let mut service = Service::new(&settings(), 3);
        service.surroundings(0, &surroundings);
        assert_eq!(look(&mut service, long, &[none; 3]), Ok(()), "{surroundings:?}");
    }
}

#[test]
fn entries_that_are_not_committed_are_refused_while_a_majority_is_in_touch() {
    let stands = [shows(0, 5, 4), shows(1, 5, 4), shows(2, 5, 4)];
    let long = 2 * service().bounds.stall;
    refuses("what is proposed is committed", look(&mut service(), long, &stands));
    let mut one_off = service();
    one_off.surroundings(0, &Surroundings { severed: vec![0b100, 0b100, 0b011], ..well() });
    refuses("what is proposed is committed", look(&mut one_off, long, &stands));
    let mut two_off = service();
    two_off.surroundings(0, &Surroundings { severed: vec![0b110, 0b001, 0b001], ..well() });
    assert_eq!(look(&mut two_off, service().bounds.elect / 2, &stands), Ok(()));
}

#[test]
fn who_is_connected_and_does_not_keep_up_is_refused() {
    let behind = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 4)];
    let elsewhere = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 5).map(|it| Shows { leader: None, ..it })];
    let long = 2 * service().bounds.stall;
    for shown in [behind, elsewhere] {
        refuses("a connected member keeps up", look(&mut service(), long, &shown));
        let mut off = service();
        off.surroundings(0, &Surroundings { severed: vec![0b100, 0, 0], ..well() });
        assert_eq!(look(&mut off, long, &shown), Ok(()));
    }
}

#[test]
fn who_is_left_alone_with_a_snapshot_for_longer_than_its_disk_justifies_is_refused() {
    let behind = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 4)];
    let stall = service().bounds.stall;
    let told_at = |refused: bool, times: u32| {
        let mut service = service();
        if refused {
            service.snapshot_refused(2);
        }
        service.snapshot_not_taken(0, 2, times);
        service
    };
    refuses("a connected member keeps up", look(&mut told_at(false, 1), 2 * stall, &behind));
    for (times, pause) in [(1, SECOND), (3, 4 * SECOND), (40, 60 * SECOND)] {
        assert_eq!(look(&mut told_at(true, times), pause, &behind), Ok(()), "{times}");
        let long = 2 * (pause + stall);
        refuses("a connected member keeps up", look(&mut told_at(true, times), long, &behind));
    }
}

#[test]
fn leadership_that_changes_without_a_cause_is_refused() {
    let doubt = service().bounds.doubt;
    let stand = |service: &mut Service, now| service.stepped(now, 1, RoleName::Candidate, TERM.next());
    let step_down = |service: &mut Service, now| service.stepped(now, 0, RoleName::Follower, TERM);
    refuses("an election has a cause", stand(&mut service(), doubt + 1));
    refuses("a leader that is heard leads on", step_down(&mut service(), doubt + 1));
    let strike: [fn(&mut Service, u64); 3] = [
        |service, now| service.struck(0, now),
        |service, now| service.transfer_asked(now, 0, None),
        |service, now| {
            service.surroundings(now, &Surroundings { severed: vec![0b110, 0, 0], ..well() });
            service.surroundings(now, &well());
        },
    ];
    for strike in strike {
        let (mut one, mut other) = (service(), service());
        strike(&mut one, 2);
        strike(&mut other, 2);
        assert_eq!(stand(&mut one, doubt + 1), Ok(()));
        assert_eq!(step_down(&mut other, doubt + 1), Ok(()));
    }
}

#[test]
fn an_order_to_take_over_without_a_cause_is_refused() {
    let doubt = service().bounds.doubt;
    let order = |service: &Service, now| service.orders(now, 0, 1, TERM);
    refuses("an order to take over has a cause", order(&service(), doubt + 1));
    let mut slow = service();
    slow.disk_slow(0, 1);
    assert_eq!(order(&slow, doubt + 2), Ok(()));
    refuses("an order to take over has a cause", order(&slow, 2 * doubt + 2 * SECOND));
    let mut other = service();
    other.disk_slow(1, 1);
    refuses("an order to take over has a cause", order(&other, doubt + 2));
    let mut asked = service();
    asked.transfer_asked(2, 0, None);
    assert_eq!(order(&asked, doubt + 1), Ok(()));
    // One that does not lead any more may not know it.
    assert_eq!(service().orders(doubt + 1, 2, 1, TERM), Ok(()));
}

#[test]
fn a_machine_that_was_told_to_take_over_may_stand() {
    let doubt = service().bounds.doubt;
    let told = |term, at| {
        let mut service = service();
        let (from, to, body) = (NodeId::new(1), NodeId::new(2), Body::TimeoutNow);
        service.heard(at, 1, &PeerMessage::Raft(Message { from, to, term, body }));
        service.stepped(2 * doubt, 1, RoleName::Candidate, TERM.next())
    };
    assert_eq!(told(TERM, 2 * doubt), Ok(()));
    refuses("an election has a cause", told(TERM, doubt));
    refuses("an election has a cause", told(Term::ZERO, 2 * doubt));
}

#[test]
fn an_order_to_take_over_may_be_found_by_a_machine_that_stood_still() {
    let doubt = service().bounds.doubt;
    let asleep = Surroundings { health: vec![Health::Well, Health::Absent, Health::Well], ..well() };
    let stands = |ordered: bool| {
        let mut service = service();
        service.surroundings(1, &asleep);
        if ordered {
            service.transfer_asked(2, 0, Some(1));
        }
        service.surroundings(2 * doubt, &well());
        service.stepped(2 * doubt, 1, RoleName::Candidate, TERM.next())
    };
    assert_eq!(stands(true), Ok(()));
    refuses("an election has a cause", stands(false));
}

#[test]
fn a_transfer_that_does_not_succeed_is_refused() {
    let stands = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 5)];
    let mut waits = service();
    waits.transfer_asked(1, 0, Some(1));
    let long = 2 * waits.bounds.transfer;
    refuses("a transfer succeeds", look(&mut waits, long, &stands));
    let mut struck = service();
    struck.transfer_asked(1, 0, Some(1));
    struck.struck(1, 2);
    assert_eq!(look(&mut struck, long, &stands), Ok(()));
    let mut done = service();
    done.transfer_asked(1, 0, Some(1));
    done.stepped(2, 1, RoleName::Leader, TERM.next()).unwrap();
    assert_eq!(done.look(3, &stands, 0), Ok(true));
}

#[test]
fn a_refusal_without_a_reason_and_a_client_that_is_not_served_are_refused() {
    let answer = |error: Option<ClientError>, after: u64, strike: fn(&mut Service)| {
        let mut service = service();
        service.asked(10, RequestId(1), 1, true, 0, 0);
        strike(&mut service);
        let reply = error.map(ClientReply::Failed);
        service.answered(after, RequestId(1), reply.as_ref(), 1_000_000)
    };
    let early = 20;
    for error in [ClientError::NotLeader(None), ClientError::Reserved, ClientError::Refused(String::new())] {
        refuses("a refusal has a reason", answer(Some(error), early, |_| ()));
    }
    for error in [ClientError::NoLeader, ClientError::NoQuorum, ClientError::Unknown, ClientError::Overloaded]
    {
        refuses("a refusal has a reason", answer(Some(error), early, |_| ()));
    }
    refuses("a refusal has a reason", answer(Some(ClientError::DiskFull), early, |_| ()));
    assert_eq!(answer(Some(ClientError::DiskFull), early, |service| service.leader_full(5)), Ok(false));
    assert_eq!(answer(Some(ClientError::DiskFull), early, |service| service.log_full(1, 5)), Ok(false));
    refuses(
        "a refusal has a reason",
        answer(Some(ClientError::DiskFull), early, |service| service.log_full(2, 5)),
    );
    assert_eq!(answer(Some(ClientError::Overloaded), early, |service| service.loaded(15)), Ok(false));
    assert_eq!(answer(Some(ClientError::Unknown), early, |service| service.installed(1, 15)), Ok(false));
    let late = 1_000_000;
    refuses("a client that can be served is served", answer(Some(ClientError::NoLeader), late, |_| ()));
    refuses("a client that can be served is served", answer(Some(ClientError::Unknown), late, |_| ()));
    assert_eq!(answer(Some(ClientError::Unknown), late, |service| service.write_lost(1, 0, 15)), Ok(false));
    refuses(
        "a client that can be served is served",
        answer(Some(ClientError::Unknown), late, |it| it.struck(2, 15)),
    );
    assert_eq!(answer(Some(ClientError::Unknown), late, |service| service.struck(1, 1_000_000)), Ok(false));
    refuses("a refusal has a reason", answer(None, late, |_| ()));
}

#[test]
fn a_write_that_is_answered_by_another_leader_has_survived_the_first() {
    let mut service = service();
    service.asked(10, RequestId(1), 1, true, 0, 0);
    service.stepped(20, 2, RoleName::Leader, TERM.next()).unwrap();
    let reply = ClientReply::Written(Outcome::Put { revision: Revision(1), version: 1 });
    assert_eq!(service.answered(30, RequestId(1), Some(&reply), 1_000_000), Ok(true));
}

/// A leader has committed nothing in its term yet. Machine 1 is asked, and its client gives up.
fn gives_up(stands: &[Option<Shows>; 3]) -> Result<bool, Violation> {
    let mut service = service();
    let long = 3 * service.bounds.answer;
    service.asked(10, RequestId(1), 1, true, 0, 0);
    look(&mut service, long, stands).unwrap();
    let unknown = ClientReply::Failed(ClientError::Unknown);
    service.answered(long, RequestId(1), Some(&unknown), long)
}

#[test]
fn a_leader_that_has_to_bring_a_majority_up_to_date_does_not_serve_yet_and_any_other_does() {
    let behind = |slot: usize, behind: u64| shows(slot, 5, 5).map(|shows| Shows { behind, ..shows });
    let served = "a client that can be served is served";
    refuses(served, gives_up(&[behind(0, 0), behind(1, 0), behind(2, 0)]));
    refuses(served, gives_up(&[behind(0, 0), behind(1, 0), behind(2, 9)]));
    assert_eq!(gives_up(&[behind(0, 0), behind(1, 9), behind(2, 9)]), Ok(false));
}

#[test]
fn a_member_that_lacks_what_was_committed_before_its_leader_was_supported_does_not_keep_up() {
    let mut service = service();
    let begin = service.bounds.answer;
    let stands = [shows(0, 5, 5), shows(1, 5, 5), shows(2, 5, 4)];
    service.surroundings(0, &Surroundings { severed: vec![0b110, 0b101, 0b011], ..well() });
    look(&mut service, begin, &stands).unwrap();
    service.surroundings(begin, &well());
    let later = begin + 10 * MILLI;
    service.look(later, &stands, 0).unwrap();
    assert!(service.keeping_since[1] < later);
    assert_eq!(service.keeping_since[2], later);
}
