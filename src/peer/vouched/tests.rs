use crate::peer::orders::{Health, MemberView, MembersView};
use crate::peer::vouched::{VOUCHED_MAX, Vouched, Voucher};
use crate::raft::{Membership, NodeId};
use crate::replica::Standing;

fn voucher(id: u64, name: &str) -> Voucher {
    Voucher { id: Some(NodeId::new(id)), name: Some(name.to_owned()), addr: String::new() }
}

fn view(members: impl IntoIterator<Item = (u64, String)>) -> MembersView {
    let member = |(id, name): (u64, String)| MemberView {
        id: NodeId::new(id),
        name,
        raft_addr: String::new(),
        http_addr: String::new(),
        standing: Standing::Voter,
        health: Health::Unknown,
        match_index: None,
        lag: None,
        replication: None,
        silent_micros: None,
        withdrawn: None,
    };
    MembersView {
        told_by: String::new(),
        configuration: 1,
        committed: true,
        joint: false,
        leader: None,
        members: members.into_iter().map(member).collect(),
    }
}

/// Nobody is a member, and ids below this were given.
fn given_below(id: u64) -> Membership {
    Membership {
        voters: Default::default(),
        outgoing: None,
        learners: Default::default(),
        members: Default::default(),
        next_member_id: NodeId::new(id),
    }
}

/// It had named itself under another id, and under a third one as that.
#[test]
fn the_word_of_a_removed_member_ends_however_long_its_chain() {
    let mut vouched = Vouched::default();
    vouched.take(&voucher(1, "a"), &view([(100, "a".to_owned())]));
    vouched.take(&voucher(100, "a"), &view([(101, "a".to_owned())]));
    vouched.take(&voucher(2, "b"), &view([(7, "g".to_owned())]));
    vouched.settle(&given_below(2));
    assert_eq!(vouched.names(NodeId::new(101)).count(), 0);
    let left: Vec<_> = vouched.vouchers().filter_map(|voucher| voucher.id).collect();
    assert_eq!(left, [NodeId::new(7)], "the word of others stands");
}

#[test]
fn what_is_told_again_takes_nobody_elses_place() {
    let mut vouched = Vouched::default();
    let all: Vec<_> = (0..VOUCHED_MAX as u64).map(|id| (10 + id, "x".to_owned())).collect();
    for some in all.chunks(crate::raft::MEMBERS_MAX) {
        vouched.take(&voucher(1, "a"), &view(some.iter().cloned()));
    }
    assert_eq!(vouched.vouchers().count(), VOUCHED_MAX);
    vouched.take(&voucher(1, "a"), &view(all[..3].iter().cloned()));
    assert_eq!(vouched.vouchers().count(), VOUCHED_MAX);
}
