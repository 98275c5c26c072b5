use crate::codec::FeatureLevels;
use crate::peer::address_book::{AddressBook, Closing, Me};
use crate::peer::greeting::SpokenLevels;
use crate::peer::hello::{PeerHello, Starts};
use crate::peer::orders::MembersView;
use crate::peer::refusal::Refusal;
use crate::peer::vouched::Voucher;
use crate::raft::{Change, ClusterId, Incarnation, Member, Membership, NodeId, StoreId, Time};
use crate::tls::{Certificate, PeerCertificate};
use std::collections::BTreeSet;

const OURS: ClusterId = ClusterId(1);
const LEVELS: SpokenLevels = SpokenLevels::of_any_cluster(FeatureLevels::OF_THIS_RELEASE);

fn member(id: u64) -> Member {
    Member {
        name: format!("n{id}"),
        raft_addr: format!("n{id}:1"),
        http_addr: format!("n{id}:2"),
        store_id: StoreId(u128::from(id) * 100),
    }
}

/// Members 1 and 3; 2 was one; 4 was never given.
fn membership() -> Membership {
    let add = |id| Change::AddMembers { members: vec![member(id)], replaces: [].into(), promote: false };
    let one = Membership::bootstrap([member(1)]).unwrap();
    let (two, _) = one.apply_change(&add(2)).unwrap();
    let (three, _) = two.apply_change(&add(3)).unwrap();
    let (removed, _) = three.apply_change(&Change::Remove { members: [NodeId::new(2)].into() }).unwrap();
    removed
}

fn address_book(committed: bool) -> AddressBook {
    let me = Me {
        cluster: OURS,
        id: NodeId::new(1),
        store: StoreId(100),
        starts: Starts { number: 1, nonces: vec![1] },
        name: "n1".to_owned(),
        raft_addr: "n1:1".to_owned(),
        http_addr: "n1:2".to_owned(),
        speaks: FeatureLevels::OF_THIS_RELEASE,
    };
    let address_book = AddressBook::new(me, membership());
    if committed {
        address_book.set_membership(membership(), true);
    }
    address_book
}

fn hello(from: u64, store: u128) -> PeerHello {
    PeerHello {
        cluster: OURS,
        from: NodeId::new(from),
        store: StoreId(store),
        raft_addr: format!("told{from}:1"),
        to: NodeId::new(1),
        starts: Starts { number: 1, nonces: vec![from] },
    }
}

fn admit(address_book: &AddressBook, hello: &PeerHello) -> Result<(), Refusal> {
    address_book.admit((hello, LEVELS), None, Time::new(0)).map(drop)
}

#[test]
fn who_is_let_in() {
    let id = NodeId::new;
    let (known, found) = (StoreId(300), StoreId(7));
    let table = [
        ("a member", hello(3, 300), Ok(())),
        ("a member with another store", hello(3, 7), Err(Refusal::WrongStore { id: id(3), known, found })),
        ("one that was removed", hello(2, 200), Err(Refusal::Removed { id: id(2) })),
        ("one whose entry has not arrived here yet", hello(4, 400), Ok(())),
        (
            "one of another cluster",
            PeerHello { cluster: ClusterId(9), ..hello(3, 300) },
            Err(Refusal::OtherCluster { called: "n1".to_owned(), ours: OURS, theirs: ClusterId(9) }),
        ),
        (
            "one that wants somebody else",
            PeerHello { to: id(5), ..hello(3, 300) },
            Err(Refusal::NotMe { called: "n1".to_owned(), me: id(1), wanted: id(5) }),
        ),
    ];
    for (who, hello, verdict) in table {
        assert_eq!(admit(&address_book(true), &hello), verdict, "{who}");
    }
}

#[test]
fn only_a_committed_membership_proves_a_removal() {
    assert_eq!(admit(&address_book(false), &hello(2, 200)), Ok(()));
}

#[test]
fn the_cluster_to_come_is_asked_to_wait() {
    let (address_book, theirs) = (address_book(true), ClusterId(9));
    let hello = PeerHello { cluster: theirs, ..hello(3, 300) };
    address_book.set_promised(Some((theirs, Time::new(5))));
    assert_eq!(admit(&address_book, &hello), Err(Refusal::NotYet { called: "n1".to_owned(), theirs }));
    let late = address_book.admit((&hello, LEVELS), None, Time::new(5)).map(drop);
    assert!(matches!(late, Err(Refusal::OtherCluster { .. })), "the reservation is over: {late:?}");
    address_book.set_promised(None);
    assert!(matches!(admit(&address_book, &hello), Err(Refusal::OtherCluster { .. })));
}

#[test]
fn a_caller_that_cannot_be_remembered_is_not_heard() {
    let (address_book, now) = (address_book(true), Time::new(0));
    let calls = |id| address_book.admit((&hello(id, u128::from(id) * 100), LEVELS), None, now).unwrap();
    let strangers: Vec<_> = (4..516).map(calls).collect();
    assert!(strangers.iter().all(|stranger| stranger.heard(now).is_ok()));
    assert!(calls(600).heard(now).is_err(), "nothing would close it when its member is removed");
    assert!(calls(3).heard(now).is_ok(), "there is room for a member");
    strangers[0].end();
    // Its place is free.
    assert!(calls(600).heard(now).is_ok());
}

#[test]
fn addresses_come_from_hellos_or_else_from_the_membership() {
    let address_book = address_book(true);
    assert_eq!(address_book.address(NodeId::new(4)), None);
    admit(&address_book, &hello(4, 400)).unwrap();
    admit(&address_book, &hello(3, 300)).unwrap();
    assert_eq!(address_book.address(NodeId::new(4)).as_deref(), Some("told4:1"));
    assert_eq!(
        address_book.address(NodeId::new(3)).as_deref(),
        Some("told3:1"),
        "it may have come back at another address"
    );
    let mut moved = membership();
    moved.members.get_mut(&NodeId::new(3)).unwrap().raft_addr = "new3:1".to_owned();
    address_book.set_membership(moved, true);
    assert_eq!(
        address_book.addresses(NodeId::new(3)),
        ["new3:1", "told3:1"],
        "news of the membership, or of long ago"
    );
    admit(&address_book, &hello(3, 300)).unwrap();
    assert_eq!(address_book.addresses(NodeId::new(3)), ["told3:1", "new3:1"], "it says so again");
}

#[test]
fn a_loopback_address_that_a_member_tells_is_tried_after_its_other_one() {
    let address_book = address_book(true);
    let guessed = PeerHello { raft_addr: "127.0.0.1:8000".to_owned(), ..hello(3, 300) };
    admit(&address_book, &guessed).unwrap();
    let (on_record, told) = (address_book.addresses(NodeId::new(3)), guessed.raft_addr);
    assert_eq!(on_record.last(), Some(&told), "{on_record:?}");
    assert_eq!(on_record.len(), 2);
}

#[test]
fn an_address_that_was_told_outlives_memberships_of_long_ago() {
    let address_book = address_book(true);
    admit(&address_book, &hello(4, 400)).unwrap();
    let mut joined = membership();
    let member = Member { raft_addr: "old4:1".to_owned(), ..joined.members[&NodeId::new(3)].clone() };
    joined.members.insert(NodeId::new(4), member);
    address_book.set_membership(joined, true);
    assert_eq!(address_book.addresses(NodeId::new(4)), ["old4:1", "told4:1"]);
    address_book.set_membership(membership(), true);
    let told = vec!["old4:1".to_owned(), "told4:1".to_owned()];
    assert_eq!(address_book.addresses(NodeId::new(4)), told, "it has to be told that it was removed");
    address_book.retain_left(&BTreeSet::new(), Time::new(0));
    assert_eq!(address_book.addresses(NodeId::new(4)), [""; 0], "it was removed");
}

#[test]
fn strangers_cannot_fill_the_memory_with_addresses() {
    let address_book = address_book(true);
    for id in 4..1000 {
        admit(&address_book, &hello(id, 1)).unwrap();
    }
    let known = (4..1000).filter(|&id| address_book.address(NodeId::new(id)).is_some()).count();
    assert_eq!(known, 64);
}

/// Member 3 with its own data directory, in its start `number`.
fn start_of_3(nonces: &[u64]) -> PeerHello {
    let starts = Starts { number: nonces.len() as u64, nonces: nonces.to_vec() };
    PeerHello { starts, ..hello(3, 300) }
}

#[test]
fn an_older_copy_of_a_data_directory_is_not_let_in_however_often_it_is_started() {
    let address_book = address_book(true);
    let now = Time::new(0);
    address_book.admit((&start_of_3(&[20, 10]), LEVELS), None, now).unwrap().end();
    let refused = |nonces: &[u64]| {
        let (known, found) = (Incarnation::drawn(2, 20), Incarnation::drawn(nonces.len() as u64, nonces[0]));
        let error = Refusal::OlderCopy { id: NodeId::new(3), known, found };
        assert_eq!(address_book.admit((&start_of_3(nonces), LEVELS), None, now).map(drop), Err(error));
    };
    refused(&[10]);
    refused(&[21, 10]);
    refused(&[31, 21, 10]);
    // Those may have been the last words of processes that have ended.
    assert_eq!(address_book.older_copy(NodeId::new(3)), None);
    address_book.note_older_copy(NodeId::new(3), "an older copy".to_owned());
    assert_eq!(address_book.older_copy(NodeId::new(3)), Some("an older copy".to_owned()));
    address_book.admit((&start_of_3(&[30, 20, 10]), LEVELS), None, now).unwrap().end();
    assert_eq!(address_book.older_copy(NodeId::new(3)), None);
    // A member of another store is another member.
    let starts = Starts { number: 1, nonces: vec![1] };
    assert_eq!(admit(&address_book, &PeerHello { starts, ..hello(4, 400) }), Ok(()));
}

#[test]
fn of_two_processes_on_copies_of_one_directory_the_second_is_not_let_in() {
    let address_book = address_book(true);
    let at = |micros| Time::new(micros);
    let first = address_book.admit((&start_of_3(&[10]), LEVELS), None, at(0)).unwrap();
    assert!(first.heard(at(5_000_000)).is_ok());
    let twin = start_of_3(&[20, 10]);
    let refused = address_book.admit((&twin, LEVELS), None, at(6_000_000)).map(drop);
    assert!(matches!(refused, Err(Refusal::Twin { .. })), "{refused:?}");
    assert!(
        address_book.admit((&start_of_3(&[10]), LEVELS), None, at(6_000_000)).is_ok(),
        "the first may connect again"
    );
    assert!(first.heard(at(6_000_000)).is_ok());
    // A machine that lost its power never said that it went: what comes later goes on in its place.
    let second = address_book.admit((&twin, LEVELS), None, at(60_000_000)).unwrap();
    assert!(second.heard(at(60_000_000)).is_ok());
}

#[test]
fn a_connection_that_was_given_up_and_is_let_in_late_does_not_hide_the_one_that_lives() {
    let address_book = address_book(true);
    let (now, second) = (Time::new(0), start_of_3(&[20, 10]));
    let _lives = address_book.admit((&second, LEVELS), None, now).unwrap();
    address_book.admit((&second, LEVELS), None, now).unwrap().end();
    // So does one of the start before, which waited here for as long.
    let refused = address_book.admit((&start_of_3(&[10]), LEVELS), None, now).map(drop);
    assert!(matches!(refused, Err(Refusal::Twin { .. })), "{refused:?}");
    assert_eq!(address_book.older_copy(NodeId::new(3)), None, "the member has lost nothing");
}

#[test]
fn a_connection_of_an_earlier_start_is_closed_when_a_later_one_has_come() {
    let address_book = address_book(true);
    let first = address_book.admit((&start_of_3(&[10]), LEVELS), None, Time::new(0)).unwrap();
    address_book.admit((&start_of_3(&[20, 10]), LEVELS), None, Time::new(60_000_000)).unwrap();
    assert_eq!(first.heard(Time::new(60_000_001)), Err(Closing::Superseded));
}

#[test]
fn a_connection_that_is_not_remembered_any_more_is_closed() {
    let address_book = address_book(true);
    let now = Time::new(0);
    let admitted: Vec<_> =
        (0..12).map(|_| address_book.admit((&start_of_3(&[10]), LEVELS), None, now).unwrap()).collect();
    // A later start could not close it, and neither could a removal.
    assert_eq!(admitted[0].heard(now), Err(Closing::Superseded));
    assert_eq!(admitted[11].heard(now), Ok(()));
    address_book.admit((&start_of_3(&[20, 10]), LEVELS), None, Time::new(60_000_000)).unwrap();
    let later = Time::new(60_000_001);
    assert!(admitted.iter().all(|one| one.heard(later) == Err(Closing::Superseded)));
}

#[test]
fn the_connection_of_a_member_whose_removal_is_learned_later_is_closed_so_that_it_hears_of_it() {
    let (now, later, id) = (Time::new(1), Time::new(10_000_000), NodeId::new(2));
    let address_book = address_book(false);
    let removed = address_book.admit((&hello(2, 200), LEVELS), None, now).unwrap();
    let stays = address_book.admit((&hello(3, 300), LEVELS), None, now).unwrap();
    let unknown = address_book.admit((&hello(4, 400), LEVELS), None, now).unwrap();
    address_book.retain_left(&BTreeSet::new(), now);
    assert!(removed.heard(later).is_ok(), "a membership that is not committed proves nothing");
    address_book.set_committed(membership());
    address_book.retain_left(&BTreeSet::from([id]), later);
    assert!(removed.heard(Time::new(20_000_000)).is_ok(), "it is told of its removal, and answers");
    address_book.retain_left(&BTreeSet::new(), Time::new(20_000_000));
    assert!(removed.heard(Time::new(20_000_001)).is_ok(), "what it said while it was a member arrives");
    assert_eq!(address_book.addresses(id), [""; 0], "nobody calls it any more");
    address_book.retain_left(&BTreeSet::new(), Time::new(22_000_000));
    assert_eq!(removed.heard(Time::new(22_000_001)), Err(Closing::Removed));
    assert_eq!(admit(&address_book, &hello(2, 200)), Err(Refusal::Removed { id }));
    assert!(stays.heard(Time::new(30_000_000)).is_ok());
    assert!(unknown.heard(Time::new(30_000_000)).is_ok());
}

/// A certificate that was verified.
fn certificate_of(name: &str) -> PeerCertificate {
    let certificate = Certificate {
        common_name: Some(name.to_owned()),
        dns_names: vec!["n3".to_owned(), "n4".to_owned()],
        addresses: Vec::new(),
        other_names: Vec::new(),
        not_before: 0,
        not_after: u64::MAX,
    };
    PeerCertificate { name: name.to_owned(), certificate }
}

#[test]
fn a_member_is_let_in_with_its_own_certificate_alone() {
    let address_book = address_book(true);
    let admit = |from, name: &str| {
        let hello = hello(from, u128::from(from) * 100);
        address_book.admit((&hello, LEVELS), Some(&certificate_of(name)), Time::new(0)).map(drop)
    };
    let other_name = |id, found: &str| Refusal::OtherName { id: NodeId::new(id), found: found.to_owned() };
    assert_eq!(admit(3, "n1"), Err(other_name(3, "n1")));
    assert_eq!(admit(3, ""), Err(other_name(3, "")));
    assert_eq!(address_book.addresses(NodeId::new(3)), ["n3:1"], "it did not move the member");
    assert_eq!(admit(3, "n3"), Ok(()));
    // The entry may not have arrived. A member may have joined again, with another id.
    assert_eq!(admit(4, "n3"), Ok(()));
    let (called, id) = ("n1".to_owned(), NodeId::new(4));
    assert_eq!(admit(4, "n5"), Err(Refusal::Unconfirmed { called, id, found: "n5".to_owned() }));
    assert_eq!(admit(2, "n2"), Err(Refusal::Removed { id: NodeId::new(2) }), "that is known");
}

/// What a node knows that has just joined.
fn nobody() -> Membership {
    let (voters, learners, members) = Default::default();
    Membership { voters, outgoing: None, learners, members, next_member_id: NodeId::new(1) }
}

#[test]
fn a_member_that_another_has_named_is_let_in_as_long_as_that_one_is_a_member() {
    let address_book = address_book(true);
    let admit = |name: &str| {
        address_book.admit((&hello(4, 400), LEVELS), Some(&certificate_of(name)), Time::new(0)).map(drop)
    };
    let asked = address_book.vouchers();
    let of_3 = Voucher { id: Some(NodeId::new(3)), name: Some("n3".to_owned()), addr: "n3:1".to_owned() };
    assert_eq!(asked, std::slice::from_ref(&of_3), "itself it does not ask");
    address_book.take_view(&of_3, &MembersView::naming(&[(1, "n1"), (3, "n3"), (4, "n4")]));
    assert_eq!(admit("n4"), Ok(()));
    assert!(matches!(admit("n5"), Err(Refusal::Unconfirmed { .. })));
    assert!(address_book.vouchers().iter().any(|one| one.addr == "n4:1"), "it is believed as well");
    // The membership has arrived, and so nobody need vouch.
    let removes = Change::Remove { members: [NodeId::new(3)].into() };
    address_book.set_membership(membership().apply_change(&removes).unwrap().0, true);
    assert!(matches!(admit("n4"), Err(Refusal::Unconfirmed { .. })));
}

#[test]
fn who_was_let_in_before_any_member_was_known_has_to_be_confirmed() {
    let (known, now) = (address_book(true), Time::new(1));
    let address_book = AddressBook::new(known.me(), nobody());
    address_book.tell_addresses(["told:1".to_owned()]);
    let of_4 = address_book.admit((&hello(4, 400), LEVELS), Some(&certificate_of("n4")), now).unwrap();
    let of_3 = address_book.admit((&hello(3, 300), LEVELS), Some(&certificate_of("n3")), now).unwrap();
    let plain = address_book.admit((&hello(5, 500), LEVELS), None, now).unwrap();
    assert_eq!(of_4.heard(now), Ok(()), "there is nothing to lose yet");
    address_book.set_membership(membership(), false);
    assert_eq!((of_3.heard(now), plain.heard(now)), (Ok(()), Ok(())));
    assert_eq!(of_4.heard(now), Err(Closing::Unconfirmed));
    let told = Voucher { id: None, name: None, addr: "told:1".to_owned() };
    assert!(address_book.vouchers().contains(&told));
    address_book.take_view(&told, &MembersView::naming(&[(4, "n4")]));
    assert_eq!(of_4.heard(now), Ok(()));
}

#[test]
fn a_caller_whose_name_is_learned_later_is_looked_at_again() {
    let (known, now) = (address_book(true), Time::new(1));
    let address_book = AddressBook::new(known.me(), nobody());
    let right = address_book.admit((&hello(4, 400), LEVELS), Some(&certificate_of("n4")), now).unwrap();
    let wrong = address_book.admit((&hello(4, 400), LEVELS), Some(&certificate_of("n5")), now).unwrap();
    assert_eq!((right.heard(now), wrong.heard(now)), (Ok(()), Ok(())));
    let add = Change::AddMembers { members: vec![member(4)], replaces: [].into(), promote: false };
    address_book.set_membership(membership().apply_change(&add).unwrap().0, false);
    assert_eq!((right.heard(now), wrong.heard(now)), (Ok(()), Err(Closing::Misnamed)));
}

/// An entry that is void must not give a member another name.
#[test]
fn a_committed_membership_names_its_members() {
    let address_book = address_book(true);
    let mut void = membership();
    void.members.get_mut(&NodeId::new(3)).unwrap().name = "n9".to_owned();
    address_book.set_membership(void, false);
    assert_eq!(address_book.name(NodeId::new(3)).as_deref(), Some("n3"));
    assert!(address_book.may_speak_for(NodeId::new(3), &certificate_of("n3")));
    assert!(!address_book.may_speak_for(NodeId::new(3), &certificate_of("n9")));
    assert_eq!(address_book.name_at("n3:1").as_deref(), Some("n3"));
}

#[test]
fn strangers_keep_no_members_address_from_being_learned() {
    let address_book = address_book(true);
    // As many as may be learned, of nodes that no membership knows.
    for stranger in 1_000..2_000 {
        admit(&address_book, &hello(stranger, 7)).unwrap();
    }
    assert!(address_book.address(NodeId::new(1_000)).is_some(), "a few are learned");
    assert!(address_book.address(NodeId::new(1_999)).is_none(), "and no more");
    admit(&address_book, &hello(3, 300)).unwrap();
    assert_eq!(address_book.address(NodeId::new(3)), Some("told3:1".to_owned()));
}
