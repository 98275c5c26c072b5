use crate::raft::quorum::{VoteResult, committed, reached, tally};
use crate::raft::types::{LogIndex, NodeId};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq};
use std::collections::{BTreeMap, BTreeSet};

type Set = BTreeSet<NodeId>;

fn set(ids: &[u64]) -> Set {
    ids.iter().copied().map(NodeId::new).collect()
}

/// Sets of up to 12 voters out of 14: below and above what is counted on the stack.
fn sets() -> impl Strategy<Value = Set> {
    prop::collection::btree_set((1_u64..15).prop_map(NodeId::new), 1..13)
}

/// By definition: more than half of the set, for each set there is.
fn naive_reached(voters: &Set, outgoing: Option<&Set>, has: impl Fn(NodeId) -> bool) -> bool {
    [Some(voters), outgoing]
        .into_iter()
        .flatten()
        .all(|set| set.iter().filter(|id| has(**id)).count() * 2 > set.len())
}

#[test]
fn committed_is_the_index_a_majority_has() {
    let at = |indices: &'static [u64]| {
        move |id: NodeId| LogIndex::new(indices[usize::try_from(id.get()).unwrap() - 1])
    };
    for (voters, indices, expected) in [
        (&[1][..], &[7][..], 7),
        (&[1, 2], &[7, 3], 3),
        (&[1, 2, 3], &[7, 3, 5], 5),
        (&[1, 2, 3, 4], &[9, 3, 5, 7], 5),
        (&[1, 2, 3, 4, 5], &[9, 3, 5, 7, 1], 5),
    ] {
        assert_eq!(committed(&set(voters), None, at(indices)).get(), expected, "{voters:?} {indices:?}");
    }
}

#[test]
fn joint_state_needs_a_majority_of_each_set_not_of_the_union() {
    let (incoming, outgoing) = (set(&[1, 2, 3]), set(&[3, 4, 5]));
    let four_of_five = |id: NodeId| id.get() != 3 && id.get() != 4;
    assert!(!reached(&incoming, Some(&outgoing), four_of_five));
    assert_eq!(
        committed(&incoming, Some(&outgoing), |id| LogIndex::new(if id.get() <= 3 { 9 } else { 2 })).get(),
        2
    );
    assert_eq!(
        tally(&incoming, Some(&outgoing), |id| (id.get() >= 3).then_some(true)),
        VoteResult::Pending,
        "the outgoing set alone elects nobody"
    );
    assert_eq!(
        tally(&incoming, Some(&outgoing), |id| Some(id.get() > 2)),
        VoteResult::Lost,
        "one set that says no is enough"
    );
}

#[test]
fn a_set_without_voters_decides_nothing() {
    let none = set(&[]);
    assert!(!reached(&none, None, |_| true));
    assert_eq!(committed(&none, None, |_| LogIndex::new(5)), LogIndex::ZERO);
    assert_eq!(tally(&none, None, |_| Some(true)), VoteResult::Lost);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn committed_agrees_with_its_definition(
        voters in sets(), outgoing in prop::option::of(sets()), indices in prop::collection::vec(0_u64..20, 15),
    ) {
        let matched = |id: NodeId| LogIndex::new(indices[usize::try_from(id.get()).unwrap()]);
        let naive = (0..20)
            .map(LogIndex::new)
            .filter(|index| naive_reached(&voters, outgoing.as_ref(), |id| matched(id) >= *index))
            .max();
        prop_assert_eq!(Some(committed(&voters, outgoing.as_ref(), matched)), naive);
    }

    #[test]
    fn reached_agrees_with_its_definition(
        voters in sets(), outgoing in prop::option::of(sets()), answered in sets(),
    ) {
        let has = |id: NodeId| answered.contains(&id);
        prop_assert_eq!(reached(&voters, outgoing.as_ref(), has), naive_reached(&voters, outgoing.as_ref(), has));
    }

    /// Won: already a quorum. Lost: not even if all voters that are out say yes. Pending: the rest.
    #[test]
    fn tally_agrees_with_its_definition(
        voters in sets(), outgoing in prop::option::of(sets()),
        votes in prop::collection::btree_map((1_u64..15).prop_map(NodeId::new), any::<bool>(), 0..14),
    ) {
        let votes: BTreeMap<NodeId, bool> = votes;
        let vote = |id: NodeId| votes.get(&id).copied();
        let outgoing = outgoing.as_ref();
        let expected = if naive_reached(&voters, outgoing, |id| vote(id) == Some(true)) {
            VoteResult::Won
        } else if naive_reached(&voters, outgoing, |id| vote(id) != Some(false)) {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        };
        prop_assert_eq!(tally(&voters, outgoing, vote), expected);
    }

    /// What is committed stays committed while match indices grow.
    #[test]
    fn committed_never_goes_back(
        voters in sets(), outgoing in prop::option::of(sets()),
        indices in prop::collection::vec(0_u64..20, 15), grow in 1_usize..15, by in 0_u64..5,
    ) {
        let matched = |id: NodeId| LogIndex::new(indices[usize::try_from(id.get()).unwrap()]);
        let grown = |id: NodeId| {
            if id.get() == grow as u64 { matched(id).plus(by) } else { matched(id) }
        };
        let outgoing = outgoing.as_ref();
        prop_assert!(committed(&voters, outgoing, grown) >= committed(&voters, outgoing, matched));
    }
}
