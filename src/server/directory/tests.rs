use crate::raft::{Change, ClusterId, Member, Membership, NodeId, StoreId};
use crate::server::directory::{Directory, Me, Refusal};
use crate::server::hello::PeerHello;
use std::collections::BTreeSet;

const OURS: ClusterId = ClusterId(1);

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
    let add = |id| Change::AddMember { member: member(id), replaces: [].into(), promote: false };
    let one = Membership::bootstrap(member(1));
    let (two, _) = one.apply_change(&add(2)).unwrap();
    let (three, _) = two.apply_change(&add(3)).unwrap();
    let (removed, _) = three.apply_change(&Change::Remove { members: [NodeId::new(2)].into() }).unwrap();
    removed
}

fn directory(committed: bool) -> Directory {
    let me = Me {
        cluster: OURS,
        id: NodeId::new(1),
        store: StoreId(100),
        name: "n1".to_owned(),
        raft_addr: "n1:1".to_owned(),
        http_addr: "n1:2".to_owned(),
    };
    let directory = Directory::new(me, membership());
    if committed {
        directory.set_membership(membership(), true);
    }
    directory
}

fn hello(from: u64, store: u128) -> PeerHello {
    PeerHello {
        cluster: OURS,
        from: NodeId::new(from),
        store: StoreId(store),
        raft_addr: format!("told{from}:1"),
        to: NodeId::new(1),
    }
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
        assert_eq!(directory(true).admit(&hello), verdict, "{who}");
    }
}

#[test]
fn only_a_committed_membership_proves_a_removal() {
    assert_eq!(directory(false).admit(&hello(2, 200)), Ok(()));
}

#[test]
fn the_cluster_to_come_is_asked_to_wait() {
    let (directory, theirs) = (directory(true), ClusterId(9));
    let hello = PeerHello { cluster: theirs, ..hello(3, 300) };
    directory.set_promised(Some(theirs));
    assert_eq!(directory.admit(&hello), Err(Refusal::NotYet { called: "n1".to_owned(), theirs }));
    directory.set_promised(None);
    assert!(matches!(directory.admit(&hello), Err(Refusal::OtherCluster { .. })));
}

#[test]
fn addresses_come_from_hellos_or_else_from_the_membership() {
    let directory = directory(true);
    assert_eq!(directory.address(NodeId::new(4)), None);
    directory.admit(&hello(4, 400)).unwrap();
    directory.admit(&hello(3, 300)).unwrap();
    assert_eq!(directory.address(NodeId::new(4)).as_deref(), Some("told4:1"));
    assert_eq!(
        directory.address(NodeId::new(3)).as_deref(),
        Some("told3:1"),
        "it may have come back at another address"
    );
    let mut moved = membership();
    moved.members.get_mut(&NodeId::new(3)).unwrap().raft_addr = "new3:1".to_owned();
    directory.set_membership(moved, true);
    assert_eq!(
        directory.addresses(NodeId::new(3)),
        ["new3:1", "told3:1"],
        "news of the membership, or of long ago"
    );
    directory.admit(&hello(3, 300)).unwrap();
    assert_eq!(directory.addresses(NodeId::new(3)), ["told3:1", "new3:1"], "it says so again");
}

#[test]
fn an_address_that_was_told_outlives_memberships_of_long_ago() {
    let directory = directory(true);
    directory.admit(&hello(4, 400)).unwrap();
    let mut joined = membership();
    let member = Member { raft_addr: "old4:1".to_owned(), ..joined.members[&NodeId::new(3)].clone() };
    joined.members.insert(NodeId::new(4), member);
    directory.set_membership(joined, true);
    assert_eq!(directory.addresses(NodeId::new(4)), ["old4:1", "told4:1"]);
    directory.set_membership(membership(), true);
    let told = vec!["old4:1".to_owned(), "told4:1".to_owned()];
    assert_eq!(directory.addresses(NodeId::new(4)), told, "it has to be told that it was removed");
    directory.retain_left(&BTreeSet::new());
    assert_eq!(directory.addresses(NodeId::new(4)), [""; 0], "it was removed");
}

#[test]
fn strangers_cannot_fill_the_memory_with_addresses() {
    let directory = directory(true);
    for id in 4..1000 {
        directory.admit(&hello(id, 1)).unwrap();
    }
    let known = (4..1000).filter(|&id| directory.address(NodeId::new(id)).is_some()).count();
    assert_eq!(known, 64);
}
