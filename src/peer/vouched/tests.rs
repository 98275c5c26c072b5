use crate::peer::orders::MembersView;
use crate::peer::vouched::{VOUCHED_MAX, Vouched, Voucher};
use crate::raft::{Membership, NodeId};

fn voucher(id: u64, name: &str) -> Voucher {
    Voucher { id: Some(NodeId::new(id)), name: Some(name.to_owned()), addr: String::new() }
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
    vouched.take(&voucher(1, "a"), &MembersView::naming(&[(100, "a")]));
    vouched.take(&voucher(100, "a"), &MembersView::naming(&[(101, "a")]));
    vouched.take(&voucher(2, "b"), &MembersView::naming(&[(7, "g")]));
    vouched.settle(&given_below(2));
    assert_eq!(vouched.names(NodeId::new(101)).count(), 0);
    let left: Vec<_> = vouched.vouchers().filter_map(|voucher| voucher.id).collect();
    assert_eq!(left, [NodeId::new(7)], "the word of others stands");
}

#[test]
fn what_is_told_again_takes_nobody_elses_place() {
    let mut vouched = Vouched::default();
    let all: Vec<_> = (0..VOUCHED_MAX as u64).map(|id| (10 + id, "x")).collect();
    for some in all.chunks(crate::raft::MEMBERS_MAX) {
        vouched.take(&voucher(1, "a"), &MembersView::naming(some));
    }
    assert_eq!(vouched.vouchers().count(), VOUCHED_MAX);
    vouched.take(&voucher(1, "a"), &MembersView::naming(&all[..3]));
    assert_eq!(vouched.vouchers().count(), VOUCHED_MAX);
}
