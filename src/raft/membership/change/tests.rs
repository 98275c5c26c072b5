use crate::codec::{DecodeError, to_bytes};
use crate::raft::membership::change::{MEMBER_TEXT_BYTES_MAX, MEMBERS_MAX};
use crate::raft::membership::members::{Change, Member, Membership, Promotion};
use crate::raft::quorum::reached;
use crate::raft::types::{NodeId, StoreId};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq, prop_oneof};
use std::collections::{BTreeMap, BTreeSet};

fn id(id: u64) -> NodeId {
    NodeId::new(id)
}

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId::new).collect()
}

fn member(name: &str, store: u128) -> Member {
    Member {
        name: name.into(),
        raft_addr: format!("{name}:1"),
        http_addr: format!("{name}:2"),
        store_id: StoreId(store),
    }
}

fn add(name: &str, store: u128, replaces: &[u64]) -> Change {
    Change::AddMembers { members: vec![member(name, store)], replaces: ids(replaces), promote: true }
}

fn remove(members: &[u64]) -> Change {
    Change::Remove { members: ids(members) }
}

/// A cluster of the voters 1, 2, 3 named a, b, c on the stores 1, 2, 3.
fn three() -> Membership {
    let mut membership = Membership::bootstrap([member("a", 1)]).unwrap();
    for (name, store) in [("b", 2), ("c", 3)] {
        let (next, added) = membership.apply_change(&add(name, store, &[])).unwrap();
        membership = next.promote(added[0]).unwrap().leave_joint();
    }
    membership
}

fn refusal(membership: &Membership, change: &Change) -> &'static str {
    membership.apply_change(change).unwrap_err()
}

#[test]
fn bootstrap_is_a_cluster_of_one() {
    let membership = Membership::bootstrap([member("a", 1)]).unwrap();
    assert_eq!(membership.validate(), Ok(()));
    assert_eq!((membership.voters.clone(), membership.next_member_id), (ids(&[1]), id(2)));
    assert!(membership.is_voter(id(1)) && membership.contains(id(1)) && !membership.is_joint());
    assert!(!membership.contains(id(2)));
}

#[test]
fn a_new_member_is_a_learner_then_joint_then_a_voter() {
    let start = three();
    let (learning, added) = start.apply_change(&add("d", 4, &[])).unwrap();
    assert_eq!(added, [id(4)]);
    assert!(learning.contains(id(4)) && !learning.is_voter(id(4)) && !learning.is_joint());
    assert_eq!((&learning.voters, learning.next_member_id), (&start.voters, id(5)));
    let joint = learning.promote(id(4)).unwrap();
    assert_eq!((&joint.voters, &joint.outgoing), (&ids(&[1, 2, 3, 4]), &Some(ids(&[1, 2, 3]))));
    let done = joint.leave_joint();
    assert_eq!((&done.voters, &done.outgoing), (&ids(&[1, 2, 3, 4]), &None));
    assert!(done.learners.is_empty());
}

#[test]
fn replacing_is_one_change_of_voters() {
    let (learning, added) = three().apply_change(&add("b", 20, &[2])).unwrap();
    let joint = learning.promote(added[0]).unwrap();
    assert_eq!((&joint.voters, &joint.outgoing), (&ids(&[1, 3, 4]), &Some(ids(&[1, 2, 3]))));
    assert_eq!(joint.validate(), Ok(()));
    let done = joint.leave_joint();
    assert!(!done.contains(id(2)) && done.is_voter(id(4)));
    assert_eq!(done.validate(), Ok(()));
}

/// A node that is wiped again while its second self still learns.
#[test]
fn a_learner_that_replaces_can_itself_be_replaced() {
    let (one, _) = three().apply_change(&add("b", 20, &[2])).unwrap();
    assert!(refusal(&one, &add("b", 21, &[4])).contains("name"), "voter 2 has the name as well");
    let (two, _) = one.apply_change(&add("b", 21, &[2, 4])).unwrap();
    let done = two.promote(id(5)).unwrap().leave_joint();
    assert_eq!(done.members.keys().copied().collect::<BTreeSet<_>>(), ids(&[1, 3, 5]));
    let other = two.promote(id(4)).unwrap().leave_joint();
    assert_eq!(other.learners[&id(5)], Promotion::WhenCaughtUp { replaces: ids(&[4]), together: ids(&[]) });
}

/// Nobody has asked for another voter.
#[test]
fn a_learner_that_stays_one_takes_the_place_of_one_at_once() {
    let learner = |name: &str, store, replaces: &[u64]| Change::AddMembers {
        members: vec![member(name, store)],
        replaces: ids(replaces),
        promote: false,
    };
    let (one, _) = three().apply_change(&learner("d", 4, &[])).unwrap();
    let (two, added) = one.apply_change(&learner("d", 40, &[4])).unwrap();
    assert_eq!(added, [id(5)]);
    assert_eq!((&two.voters, &two.outgoing), (&one.voters, &None), "no quorum is another one");
    assert_eq!(two.learners, BTreeMap::from([(id(5), Promotion::Never)]));
    assert!(two.proves_removed(id(4)) && two.validate() == Ok(()));
    // One that waits to be a voter is somebody's order.
    let (waits, _) = three().apply_change(&add("d", 4, &[])).unwrap();
    for (membership, replaced) in [(&waits, 4), (&one, 2)] {
        assert!(refusal(membership, &learner("e", 50, &[replaced])).contains("let it be promoted"));
    }
    // A voter that was to replace it replaces nobody then.
    let (replacing, _) = one.apply_change(&add("d", 40, &[4])).unwrap();
    let (other, _) = replacing.apply_change(&learner("e", 50, &[4])).unwrap();
    assert_eq!(other.promoted_with(id(5)), ids(&[5]));
    assert!(!other.contains(id(4)) && other.validate() == Ok(()));
}

#[test]
fn removing_voters_is_joint_and_removing_learners_is_direct() {
    let joint = three().apply_change(&remove(&[2])).unwrap().0;
    assert_eq!((&joint.voters, &joint.outgoing), (&ids(&[1, 3]), &Some(ids(&[1, 2, 3]))));
    assert!(joint.contains(id(2)), "the old voter is needed until the joint state is left");
    assert!(!joint.leave_joint().contains(id(2)));
    let (learning, _) = three().apply_change(&add("d", 4, &[])).unwrap();
    let direct = learning.apply_change(&remove(&[4])).unwrap().0;
    assert!(!direct.is_joint() && !direct.contains(id(4)));
    assert_eq!(direct.next_member_id, id(5), "ids are never used twice");
}

#[test]
fn refusals_name_the_remedy() {
    let start = three();
    for (change, word) in [
        (remove(&[1, 2, 3]), "add another voter"),
        (remove(&[]), "name the members that leave"),
        (remove(&[9]), "see the status"),
        (add("b", 4, &[]), "choose another node id"),
        (add("b", 4, &[1]), "choose another node id"),
        (add("d", 2, &[]), "need not be added"),
        (add("b", 2, &[2]), "need not be added"),
        (add("d", 4, &[9]), "name members that are"),
        (add("", 4, &[]), "empty"),
        (add(&"x".repeat(MEMBER_TEXT_BYTES_MAX + 1), 4, &[]), "shorten"),
        (
            Change::AddMembers { members: vec![member("b", 4)], replaces: ids(&[2]), promote: false },
            "let it be promoted",
        ),
        (Change::Update { id: id(2), member: member("b", 9) }, "join as a new member"),
        (Change::Update { id: id(9), member: member("z", 9) }, "add it"),
        (Change::Update { id: id(2), member: member("c", 2) }, "choose another node id"),
    ] {
        let why = refusal(&start, &change);
        assert!(why.contains(word), "{change:?}: {why}");
    }
}

#[test]
fn everything_is_refused_while_joint() {
    let (learning, _) = three().apply_change(&add("d", 4, &[])).unwrap();
    let joint = learning.apply_change(&remove(&[2])).unwrap().0;
    for change in [add("e", 5, &[]), remove(&[1]), Change::Update { id: id(1), member: member("z", 1) }] {
        assert!(refusal(&joint, &change).contains("under way"));
    }
    assert_eq!(joint.promote(id(4)), None);
    assert!(joint.leave_joint().promote(id(4)).is_some());
}

#[test]
fn only_a_waiting_learner_is_promoted() {
    let change = Change::AddMembers { members: vec![member("d", 4)], replaces: ids(&[]), promote: false };
    let (learning, _) = three().apply_change(&change).unwrap();
    for candidate in [1, 4, 9] {
        assert_eq!(learning.promote(id(candidate)), None);
    }
}

#[test]
fn update_changes_the_description_and_nothing_else() {
    let moved = Member { raft_addr: "elsewhere:1".into(), ..member("b", 2) };
    let (next, added) = three().apply_change(&Change::Update { id: id(2), member: moved.clone() }).unwrap();
    assert_eq!((added, next.is_joint(), &next.members[&id(2)]), (vec![], false, &moved));
    assert_eq!(next.voters, three().voters);
}

#[test]
fn a_member_being_replaced_may_still_announce_its_address() {
    let (learning, _) = three().apply_change(&add("b", 20, &[2])).unwrap();
    let moved = Member { raft_addr: "elsewhere:1".into(), ..member("b", 2) };
    assert!(learning.apply_change(&Change::Update { id: id(2), member: moved }).is_ok());
}

#[test]
fn members_and_ids_are_bounded() {
    let mut membership = Membership::bootstrap([member("m", 0)]).unwrap();
    for number in 1..MEMBERS_MAX {
        membership = membership.apply_change(&add(&format!("m{number}"), number as u128, &[])).unwrap().0;
    }
    assert!(refusal(&membership, &add("last", 1 << 70, &[])).contains("too many"));
    let mut membership = three();
    membership.next_member_id = id(u64::MAX);
    assert!(refusal(&membership, &add("d", 4, &[])).contains("used up"));
}

#[test]
fn each_broken_invariant_is_refused_by_the_decoder() {
    let (sound, _) = three().apply_change(&add("d", 4, &[])).unwrap();
    let breakers: [fn(&mut Membership); 9] =
        [
            |m| m.voters.clear(),
            |m| m.outgoing = Some(BTreeSet::new()),
            |m| m.next_member_id = NodeId::new(4),
            |m| drop(m.members.remove(&NodeId::new(2))),
            |m| drop(m.learners.remove(&NodeId::new(4))),
            |m| m.voters.extend(ids(&[4])),
            |m| {
                drop(m.learners.insert(
                    NodeId::new(4),
                    Promotion::WhenCaughtUp { replaces: ids(&[9]), together: ids(&[]) },
                ))
            },
            |m| m.members.get_mut(&NodeId::new(3)).unwrap().name = "a".into(),
            |m| m.members.get_mut(&NodeId::new(3)).unwrap().store_id = StoreId(1),
        ];
    assert_eq!(Membership::decode(&sound.encode()), Ok(sound.clone()));
    for (number, breaker) in breakers.iter().enumerate() {
        let mut broken = sound.clone();
        breaker(&mut broken);
        let decoded = Membership::decode(&to_bytes(&broken));
        assert!(matches!(decoded, Err(DecodeError::Inconsistent { .. })), "{number}: {decoded:?}");
    }
}

/// A step that a leader might try, with small random arguments; most are refused, some are not.
#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    Promote(NodeId),
    Leave,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some_id = || (1_u64..9).prop_map(NodeId::new);
    let some_ids = || prop::collection::btree_set((1_u64..9).prop_map(NodeId::new), 0..3);
    let some_member = || ("[a-d]", 1_u128..12).prop_map(|(name, store)| member(&name, store));
    let step = prop_oneof![
        4 => (prop::collection::vec(some_member(), 1..3), some_ids(), any::<bool>()).prop_map(|(members, replaces, promote)| {
            Step::Change(Change::AddMembers { members, replaces, promote })
        }),
        2 => some_ids().prop_map(|members| Step::Change(Change::Remove { members })),
        1 => some_ids().prop_map(|members| Step::Change(Change::Promote { members })),
        1 => (some_id(), some_member()).prop_map(|(id, member)| Step::Change(Change::Update { id, member })),
        4 => some_id().prop_map(Step::Promote),
        3 => Just(Step::Leave),
    ];
    prop::collection::vec(step, 0..40)
}

/// Whether some quorum of `a` and some quorum of `b` have no member in common: tries every split of
/// the members.
fn quorums_may_miss(a: &Membership, b: &Membership) -> bool {
    let all: Vec<NodeId> = a.members.keys().chain(b.members.keys()).copied().collect();
    (0_u32..1 << all.len()).any(|split| {
        let left =
            |id: NodeId| all.iter().position(|other| *other == id).is_some_and(|at| split & 1 << at != 0);
        reached(&a.voters, a.outgoing.as_ref(), left)
            && reached(&b.voters, b.outgoing.as_ref(), |id| !left(id))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn transitions_keep_the_invariants(steps in steps()) {
        let mut now = Membership::bootstrap([member("a", 1)]).unwrap();
        let mut ever: BTreeSet<NodeId> = now.members.keys().copied().collect();
        for step in steps {
            let next = match &step {
                Step::Change(change) => match now.apply_change(change) {
                    Ok((next, added)) => {
                        for added in added {
                            prop_assert!(ever.insert(added), "{} is used twice", added);
                        }
                        next
                    }
                    Err(_) => continue,
                },
                Step::Promote(id) => match now.promote(*id) {
                    Some(next) => next,
                    None => continue,
                },
                Step::Leave => now.leave_joint(),
            };
            prop_assert_eq!(next.validate(), Ok(()), "{:?} on {:?}", step, now);
            prop_assert_eq!(Membership::decode(&next.encode()), Ok(next.clone()));
            if now.members.len() + next.members.len() <= 14 {
                prop_assert!(!quorums_may_miss(&now, &next), "{:?} on {:?}", step, now);
            }
            now = next;
        }
    }

    #[test]
    fn arbitrary_bytes_never_decode_to_an_invalid_configuration(
        bytes in prop::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let _ = Membership::decode(&bytes);
        let mut encoded = three().encode();
        let at = flip.index(encoded.len());
        encoded[at] ^= 1 << bit;
        if let Ok(membership) = Membership::decode(&encoded) {
            prop_assert_eq!(membership.validate(), Ok(()));
        }
    }
}
