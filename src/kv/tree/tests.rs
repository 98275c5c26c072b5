use crate::kv::leaf::{LEAF_BYTES_MAX, LEAF_PAIRS_MAX, Leaf, Slot, VersionedRef};
use crate::kv::tree::{CHILDREN_MAX, Inner, Node, Tree, TreeBuilder};
use crate::kv::types::{LeaseId, Revision};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

/// A value, and create_revision, mod_revision, version, lease and place.
type Pair = (Vec<u8>, [u64; 5]);
type Model = BTreeMap<Vec<u8>, Pair>;

fn put(tree: &mut Tree, model: &mut Model, key: &[u8], value: &[u8], at: u64) {
    // Small and large numbers, which follow from when it was put.
    let lease = if at % 7 == 3 { at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (at % 64) } else { 0 };
    let place = at * at % 100_000;
    let mut now = (value.to_vec(), [at, at, 1, lease, place]);
    tree.set(key, &mut |before| {
        let known = model.get(key);
        assert_eq!(before.map(owned), known.cloned(), "what was there");
        if let Some((_, [create, _, version, ..])) = known {
            now = (value.to_vec(), [*create, at, version + 1, lease, place]);
        }
        versioned(value, now.1)
    });
    model.insert(key.to_vec(), now);
}

fn versioned(value: &[u8], numbers: [u64; 5]) -> VersionedRef<'_> {
    let [create, modified, version, lease, place] = numbers;
    VersionedRef {
        value,
        shared: None,
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        place: u32::try_from(place).unwrap(),
        version,
        lease: LeaseId(lease),
    }
}

fn owned(found: VersionedRef<'_>) -> Pair {
    assert_eq!(found.to_bytes(), found.value);
    let VersionedRef { create_revision, mod_revision, place, version, lease, .. } = found;
    (found.value.to_vec(), [create_revision.0, mod_revision.0, version, lease.0, u64::from(place)])
}

fn content(tree: &Tree) -> Model {
    tree.iter().map(|(key, found)| (key, owned(found))).collect()
}

/// Checks what each node promises; its depth.
fn check(node: &Node, above: Option<&[u8]>, below: Option<&[u8]>) -> usize {
    match node {
        Node::Leaf(leaf) => {
            assert!(leaf.slots.len() <= LEAF_PAIRS_MAX);
            assert!(leaf.slots.len() <= 1 || leaf.bytes() <= LEAF_BYTES_MAX, "{} bytes", leaf.bytes());
            let keys: Vec<Vec<u8>> = (0..leaf.slots.len()).map(|at| leaf.key(at)).collect();
            assert!(keys.iter().all(|key| key.starts_with(&leaf.heads[..leaf.prefix_bytes as usize])));
            assert!(!keys.is_empty() || leaf.prefix_bytes == 0);
            assert!(leaf.heads.capacity() <= leaf.heads.len() + leaf.heads.len() / 8 + 8);
            assert!(leaf.values.capacity() <= leaf.values.len() + leaf.values.len() / 8 + 8);
            1
        }
        Node::Inner(inner) => {
            let keys: Vec<&[u8]> = (0..inner.separators.len()).map(|at| inner.separators.get(at)).collect();
            assert_eq!(keys.len() + 1, inner.children.len());
            assert!(inner.children.len() <= CHILDREN_MAX + 1);
            assert!(keys.is_sorted(), "separators ascend");
            let first = keys.first().is_none_or(|key| above.is_none_or(|above| above <= *key));
            let last = keys.last().is_none_or(|key| below.is_none_or(|below| below > *key));
            assert!(first && last, "separators lie between those above");
            let depths: Vec<usize> = inner
                .children
                .iter()
                .enumerate()
                .map(|(at, child)| {
                    assert!(!child.is_empty(), "no node but the root is empty");
                    let above = at.checked_sub(1).map_or(above, |left| Some(keys[left]));
                    let below = keys.get(at).map_or(below, |key| Some(*key));
                    check(child, above, below)
                })
                .collect();
            assert!(depths.iter().all(|depth| *depth == depths[0]), "all leaves are at the same depth");
            let pairs: Vec<u64> = inner.children.iter().map(count).collect();
            assert_eq!(inner.pairs, pairs, "it knows how many pairs are below each child");
            depths[0] + 1
        }
    }
}

/// Pairs below a node, one by one.
fn count(node: &Node) -> u64 {
    match node {
        Node::Leaf(leaf) => leaf.slots.len() as u64,
        Node::Inner(inner) => inner.children.iter().map(count).sum(),
    }
}

fn check_against(tree: &Tree, model: &Model) {
    assert_eq!(tree.len(), model.len());
    let keys: Vec<Vec<u8>> = tree.iter().map(|(key, _)| key).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "keys ascend");
    assert_eq!(&content(tree), model);
    check(&tree.root, None, None);
    for (key, expected) in model {
        assert_eq!(tree.get(key).map(owned).as_ref(), Some(expected));
    }
    let end: &[u8] = &[0xff; 8];
    for (rank, key) in model.keys().map(|key| &key[..]).chain([end]).enumerate() {
        assert_eq!(tree.rank(key), rank as u64);
    }
}

fn build(model: &Model) -> Tree {
    let mut builder = TreeBuilder::default();
    for (key, (value, numbers)) in model {
        builder.push(key, versioned(value, *numbers));
    }
    builder.finish()
}

#[derive(Clone, Debug)]
enum Step {
    Set(u32, usize),
    Remove(u32),
    RemoveRange(u32, u32),
    Capture,
}

/// Keys of very different lengths, in no order that their numbers show.
fn key(number: u32) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9E37_79B1);
    let mut key = format!("key/{mixed:08x}").into_bytes();
    key.resize(key.len() + (number as usize * 37) % 300 * usize::from(number.is_multiple_of(5)), b'.');
    key
}

fn any_step() -> impl Strategy<Value = Step> {
    let number = 0..600u32;
    let length = prop_oneof![4 => 0..150usize, 1 => 500..530usize, 1 => Just(5_000usize)];
    prop_oneof![
        20 => (number.clone(), length).prop_map(|(number, length)| Step::Set(number, length)),
        6 => number.clone().prop_map(Step::Remove),
        1 => (number, 0..200u32).prop_map(|(from, count)| Step::RemoveRange(from, count)),
        1 => Just(Step::Capture),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_btree_map_and_captures_stay(steps in proptest::collection::vec(any_step(), 0..600)) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        let mut captures = Vec::new();
        for (at, step) in (1..).zip(steps) {
            match step {
                Step::Set(number, length) => {
                    let value = vec![number.to_le_bytes()[0]; length];
                    put(&mut tree, &mut model, &key(number), &value, at);
                }
                Step::Remove(number) => {
                    prop_assert_eq!(tree.remove(&key(number)), model.remove(&key(number)).is_some());
                }
                Step::RemoveRange(from, count) => {
                    for number in from..from + count {
                        prop_assert_eq!(tree.remove(&key(number)), model.remove(&key(number)).is_some());
                    }
                }
                Step::Capture => captures.push((tree.clone(), model.clone())),
            }
        }
        check_against(&tree, &model);
        for (captured, model) in &captures {
            check_against(captured, model);
        }
        check_against(&build(&model), &model);
    }

    #[test]
    fn numbers_of_any_size_come_back(numbers in any::<(u64, u64, u64, u64, u32)>()) {
        let (create, later, version, lease, place) = numbers;
        let numbers = [create, create.saturating_add(later), version, lease, u64::from(place)];
        let mut tree = Tree::default();
        tree.set(b"k", &mut |_| versioned(b"v", numbers));
        prop_assert_eq!(tree.get(b"k").map(owned), Some((b"v".to_vec(), numbers)));
    }
}

#[test]
fn many_levels_grow_and_shrink_again() {
    for stride in [1u32, 7_919] {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        let count = 20_011;
        let name = |number: u32| format!("{:06}", (number * stride) % count).into_bytes();
        let value = [7; 300];
        for number in 0..count {
            put(&mut tree, &mut model, &name(number), &value, u64::from(number) + 1);
        }
        assert!(check(&tree.root, None, None) >= 3, "it has several levels");
        check_against(&tree, &model);
        let built = build(&model);
        check_against(&built, &model);
        let captured = (tree.clone(), model.clone());
        for number in (0..count).filter(|number| number % 50 != 0) {
            assert!(tree.remove(&name(number)));
            model.remove(&name(number));
        }
        check_against(&tree, &model);
        for number in (0..count).filter(|number| number % 50 == 0) {
            assert!(tree.remove(&name(number)));
        }
        assert_eq!((tree.len(), tree.iter().count()), (0, 0));
        assert!(matches!(&tree.root, Node::Leaf(leaf) if leaf.slots.is_empty()), "nothing is left behind");
        check_against(&captured.0, &captured.1);
    }
}

#[test]
fn a_tree_that_was_built_changes_like_any_other() {
    for count in [0, 1, 63, 64, 65, 64 * 11, 64 * 64 + 1, 70_000u32] {
        let name = |number: u32| format!("{number:06}").into_bytes();
        let mut model: Model =
            (0..count).map(|number| (name(number), (vec![1; 60], [1, 1, 1, 0, 0]))).collect();
        let mut tree = build(&model);
        check_against(&tree, &model);
        for number in (0..count + 10).step_by(3) {
            put(&mut tree, &mut model, &name(number), &[2; 90], 5);
        }
        for number in (1..count).step_by(3) {
            assert!(tree.remove(&name(number)));
            model.remove(&name(number));
        }
        check_against(&tree, &model);
    }
}

#[test]
fn large_values_are_shared_with_readers_and_captures() {
    let mut tree = Tree::default();
    let mut model = Model::new();
    put(&mut tree, &mut model, b"k", &[1; 10_000], 1);
    let first = tree.get(b"k").unwrap().to_bytes();
    put(&mut tree, &mut model, b"other", b"v", 2);
    let captured = tree.clone();
    put(&mut tree, &mut model, b"other", b"w", 3);
    for holder in [&tree, &captured] {
        let again = holder.get(b"k").unwrap().to_bytes();
        assert_eq!(again.as_ptr(), first.as_ptr(), "one copy in memory");
    }
    assert_eq!(first, Bytes::from(vec![1; 10_000]));
}

/// Bytes reserved for a node and all below it, but for the allocator's own.
fn reserved_bytes(node: &Node) -> usize {
    match node {
        Node::Leaf(leaf) => {
            let packed = leaf.heads.capacity() + leaf.values.capacity();
            let slots = leaf.slots.capacity() * size_of::<Slot>();
            let large: usize = leaf.large.iter().map(Bytes::len).sum();
            size_of::<Leaf>() + packed + slots + leaf.large.capacity() * size_of::<Bytes>() + large
        }
        Node::Inner(inner) => {
            let separators = inner.separators.bytes.capacity() + inner.separators.ends.capacity() * 4;
            let children = inner.children.capacity() * size_of::<Node>();
            let below: usize = inner.children.iter().map(reserved_bytes).sum();
            size_of::<Inner>() + separators + children + below
        }
    }
}

#[test]
fn a_small_pair_costs_no_more_than_a_dozen_bytes_beside_its_own() {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    for number in (0..10_000u32).map(|number| number * 7_919 % 10_000) {
        put(&mut tree, &mut model, format!("{number:016}").as_bytes(), &[1; 100], 1_000_000);
    }
    for (tree, made) in [(&tree, "by writes"), (&build(&model), "of a snapshot")] {
        let beside = reserved_bytes(&tree.root) - model.len() * 116;
        assert!(beside <= model.len() * 12, "{} bytes a pair, made {made}", beside / model.len());
    }
}

/// Leaves of a tree that another tree shares, and all leaves.
fn shared_leaves(node: &Node, is_shared: bool) -> (usize, usize) {
    match node {
        Node::Leaf(leaf) => (usize::from(is_shared || Arc::strong_count(leaf) > 1), 1),
        Node::Inner(inner) => {
            let is_shared = is_shared || Arc::strong_count(inner) > 1;
            let counts = inner.children.iter().map(|child| shared_leaves(child, is_shared));
            counts.fold((0, 0), |(shared, all), (more, one)| (shared + more, all + one))
        }
    }
}

#[test]
fn a_walk_lets_go_of_what_it_is_past() {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    for number in 0..20_000_u32 {
        put(&mut tree, &mut model, format!("{number:08}").as_bytes(), &[7; 100], 1_000_000);
    }
    let mut walk = tree.clone().into_walk();
    assert_eq!(shared_leaves(&tree.root, false).0, shared_leaves(&tree.root, false).1);
    let mut walked = Model::new();
    for part in 1..=4_usize {
        for _ in 0..5_000 {
            let (key, found) = walk.next().unwrap();
            walked.insert(key.to_vec(), owned(found));
        }
        let (shared, all) = shared_leaves(&tree.root, false);
        assert!(shared * 4 <= all * (4 - part) + 4, "{shared} of {all} are held after {part} of 4 parts");
    }
    assert!(walk.next().is_none());
    assert_eq!(walked, model);
}

#[test]
fn a_walk_sees_what_was_captured() {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    for number in 0..5_000_u32 {
        put(&mut tree, &mut model, format!("{number:08}").as_bytes(), &[7; 100], u64::from(number) + 1);
    }
    let mut walk = tree.clone().into_walk();
    let expected = model.clone();
    let mut walked = Model::new();
    while let Some((key, found)) = walk.next() {
        walked.insert(key.to_vec(), owned(found));
        let number = walked.len() as u64;
        for other in [number * 7 % 5_000, number * 13 % 5_000] {
            let key = format!("{other:08}");
            put(&mut tree, &mut model, key.as_bytes(), &[8; 90], number + 5_000);
            if other.is_multiple_of(3) && number.is_multiple_of(2) {
                tree.remove(key.as_bytes());
                model.remove(key.as_bytes());
            }
        }
    }
    assert_eq!(walked, expected);
    check_against(&tree, &model);
}

#[test]
fn keys_that_begin_alike_are_kept_without_their_beginning_until_another_comes() {
    let (mut tree, mut model) = (Tree::default(), Model::new());
    let long = "a rather long beginning that all of them share/".repeat(4);
    for number in (0..3_000_u32).map(|number| number * 1_009 % 3_000) {
        put(&mut tree, &mut model, format!("{long}{number:04}").as_bytes(), b"v", 1);
    }
    check_against(&tree, &model);
    assert!(reserved_bytes(&tree.root) < model.len() * long.len() / 3);
    for key in ["", "a", "a rather", "a rather long z", "b", &long, &long[..100], &format!("{long}1000/more")]
    {
        assert!(tree.get(key.as_bytes()).is_none());
        put(&mut tree, &mut model, key.as_bytes(), b"w", 2);
        check_against(&tree, &model);
    }
    for key in model.keys().filter(|key| key.len() % 3 != 1).cloned().collect::<Vec<_>>() {
        assert!(tree.remove(&key));
        model.remove(&key);
    }
    check_against(&tree, &model);
}
