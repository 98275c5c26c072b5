//! An ordered map from keys to versioned values, made for a store that is captured often: a B-tree
//! whose nodes are shared between captures and copied when they are written (`clone` is O(1)).
//!
//! A leaf packs its keys into one allocation and its small values into another; an inner node packs
//! its separators. So a small pair costs a dozen bytes beside its own, and a search within a node
//! stays within a few lines of the cache. A large value has an allocation of its own, so that
//! neither a write beside it nor a reader copies it.

use crate::kv::leaf::{LEAF_BYTES_MAX, LEAF_PAIRS_MAX, Leaf, Make, VersionedRef, long, short, splice};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// An inner node with more children is split.
const CHILDREN_MAX: usize = 64;
/// The map.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: Node,
    len: usize,
}

/// Invariant: all leaves are at the same depth; no node but the root is empty.
#[derive(Clone, Debug)]
enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

#[derive(Clone, Debug)]
struct Inner {
    /// The separator at `i` is above all keys of `children[i]`, and not above those of `children[i
    /// + 1]`.
    separators: Separators,
    children: Vec<Node>,
    /// How many pairs there are below each child.
    pairs: Vec<u64>,
}

/// Keys side by side, ascending.
#[derive(Clone, Debug, Default)]
struct Separators {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::default()), len: 0 }
    }
}

impl Tree {
    /// Number of keys.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<VersionedRef<'_>> {
        let leaf = self.leaf(key);
        let (at, found) = leaf.find(key);
        found.then(|| leaf.versioned(at))
    }

    /// Puts in what `make` makes of what is there. One way down the tree does both.
    pub(super) fn set(&mut self, key: &[u8], make: Make<'_, '_>) {
        let (is_new, split) = self.root.set(key, make);
        self.len += usize::from(is_new);
        if let Some((separator, right)) = split {
            let left = core::mem::replace(&mut self.root, Node::Leaf(Arc::default()));
            let mut separators = Separators::default();
            separators.insert(0, &separator);
            let pairs = Vec::from([left.pairs(), right.pairs()]);
            let inner = Inner { separators, children: Vec::from([left, right]), pairs };
            self.root = Node::Inner(Arc::new(inner));
        }
    }

    /// Removes a key; whether it was there.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        // Nothing is copied for a key that is not there.
        if self.get(key).is_none() {
            return false;
        }
        self.root.remove(key);
        self.len -= 1;
        while let Node::Inner(inner) = &self.root
            && inner.children.len() == 1
        {
            self.root = inner.children[0].clone();
        }
        true
    }

    /// All pairs, in the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Vec<u8>, VersionedRef<'_>)> {
        let mut cursor = self.cursor(&[]);
        core::iter::from_fn(move || cursor.next().map(|(key, versioned)| (key.to_vec(), versioned)))
    }

    /// Walks the pairs from `start` on, in the order of their keys.
    pub(super) fn cursor(&self, start: &[u8]) -> Cursor<'_> {
        let mut path = Vec::new();
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let (next, _) = leaf.find(start);
                    return Cursor { path, leaf, next, key: Vec::new() };
                }
                Node::Inner(inner) => {
                    let at = inner.child(start);
                    path.push((&**inner, at));
                    node = &inner.children[at];
                }
            }
        }
    }

    /// How many keys are below `key`. One way down the tree.
    pub(super) fn rank(&self, key: &[u8]) -> u64 {
        let (mut node, mut below) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(leaf) => return below + leaf.find(key).0 as u64,
                Node::Inner(inner) => {
                    let at = inner.child(key);
                    below += inner.pairs[..at].iter().sum::<u64>();
                    node = &inner.children[at];
                }
            }
        }
    }

    /// Walks all pairs in the order of their keys, and lets go of each node once it is past it.
    pub(super) fn into_walk(self) -> Walk {
        Walk { waiting: Vec::from([self.root]), leaf: Arc::default(), next: 0, key: Vec::new() }
    }

    fn leaf(&self, key: &[u8]) -> &Leaf {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => node = &inner.children[inner.child(key)],
            }
        }
    }
}

/// A place in a tree.
#[derive(Debug)]
pub(super) struct Cursor<'t> {
    /// The inner nodes above `leaf`, and which child of each leads to it.
    path: Vec<(&'t Inner, usize)>,
    leaf: &'t Leaf,
    /// The next pair of `leaf`.
    next: usize,
    /// The last key handed out; kept for its allocation.
    key: Vec<u8>,
}

impl<'t> Cursor<'t> {
    /// The next pair.
    pub(super) fn next(&mut self) -> Option<(&[u8], VersionedRef<'t>)> {
        while self.next == self.leaf.slots.len() {
            self.leaf = self.next_leaf()?;
            self.next = 0;
        }
        let at = self.next;
        self.next += 1;
        self.leaf.key_into(at, &mut self.key);
        Some((&self.key[..], self.leaf.versioned(at)))
    }

    fn next_leaf(&mut self) -> Option<&'t Leaf> {
        loop {
            let (inner, at) = self.path.last_mut()?;
            *at += 1;
            let Some(mut node) = inner.children.get(*at) else {
                self.path.pop();
                continue;
            };
            loop {
                match node {
                    Node::Leaf(leaf) => return Some(leaf),
                    Node::Inner(inner) => {
                        self.path.push((&**inner, 0));
                        node = &inner.children[0];
                    }
                }
            }
        }
    }
}

/// The rest of a tree, from left to right.
#[derive(Debug)]
pub(super) struct Walk {
    /// What comes after `leaf`, the next one last.
    waiting: Vec<Node>,
    leaf: Arc<Leaf>,
    /// The next pair of `leaf`.
    next: usize,
    /// The last key handed out; kept for its allocation.
    key: Vec<u8>,
}

impl Walk {
    /// The next pair.
    pub(super) fn next(&mut self) -> Option<(&[u8], VersionedRef<'_>)> {
        while self.next == self.leaf.slots.len() {
            match self.waiting.pop()? {
                Node::Leaf(leaf) => (self.leaf, self.next) = (leaf, 0),
                // Its children are shared one by one from here on, so that each can be let go by
                // itself.
                Node::Inner(inner) => match Arc::try_unwrap(inner) {
                    Ok(inner) => self.waiting.extend(inner.children.into_iter().rev()),
                    Err(shared) => self.waiting.extend(shared.children.iter().rev().cloned()),
                },
            }
        }
        let at = self.next;
        self.next += 1;
        self.leaf.key_into(at, &mut self.key);
        Some((&self.key[..], self.leaf.versioned(at)))
    }
}

/// Makes a tree of pairs that come in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct TreeBuilder {
    /// Whole nodes with their lowest keys, level by level from the leaves; the right edge of the
    /// tree.
    levels: Vec<Vec<(Vec<u8>, Node)>>,
    /// The leaf that is being filled. Its room is used again.
    leaf: Leaf,
    /// The lowest key of `leaf`.
    first: Option<Vec<u8>>,
    len: usize,
}

impl TreeBuilder {
    /// Takes in the next pair; its key is above all before.
    pub(super) fn push(&mut self, key: &[u8], versioned: VersionedRef<'_>) {
        if self.first.is_some() && !self.leaf.has_room(key.len(), versioned.value.len()) {
            self.end_leaf();
        }
        if self.first.is_none() {
            self.first = Some(key.to_vec());
            self.leaf.slots.reserve(LEAF_PAIRS_MAX);
            self.leaf.heads.reserve(LEAF_BYTES_MAX);
            self.leaf.values.reserve(LEAF_BYTES_MAX);
        }
        self.leaf.put(self.leaf.slots.len(), None, key, versioned);
        self.len += 1;
    }

    /// The tree.
    pub(super) fn finish(mut self) -> Tree {
        self.end_leaf();
        let mut nodes: Vec<(Vec<u8>, Node)> = Vec::new();
        for level in 0.. {
            let Some(whole) = self.levels.get_mut(level) else { break };
            whole.append(&mut nodes);
            let nodes_here = core::mem::take(whole);
            let is_top = self.levels.get(level + 1).is_none_or(Vec::is_empty);
            if is_top && nodes_here.len() <= 1 {
                let root = nodes_here.into_iter().next().map(|(_, node)| node);
                return root.map_or_else(Tree::default, |root| Tree { root, len: self.len });
            }
            if self.levels.len() == level + 1 {
                self.levels.push(Vec::new());
            }
            nodes = Vec::from([inner_of(nodes_here)]);
        }
        Tree::default()
    }

    fn end_leaf(&mut self) {
        let Some(first) = self.first.take() else { return };
        let Leaf { slots, heads, values, large, .. } = &mut self.leaf;
        let mut leaf = Leaf {
            slots: slots.to_vec(),
            heads: heads.to_vec(),
            prefix_bytes: 0,
            values: values.to_vec(),
            large: core::mem::take(large),
        };
        slots.clear();
        heads.clear();
        values.clear();
        leaf.compress();
        self.push_node(0, first, Node::Leaf(Arc::new(leaf)));
    }

    fn push_node(&mut self, level: usize, first: Vec<u8>, node: Node) {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push((first, node));
        if self.levels[level].len() > CHILDREN_MAX {
            // One stays behind, so that the level is never left without a node for what follows.
            let rest = self.levels[level].split_off(CHILDREN_MAX);
            let whole = core::mem::replace(&mut self.levels[level], rest);
            let (first, inner) = inner_of(whole);
            self.push_node(level + 1, first, inner);
        }
    }
}

/// An inner node over these, and its lowest key.
fn inner_of(nodes: Vec<(Vec<u8>, Node)>) -> (Vec<u8>, Node) {
    let mut lowest = None;
    let mut separators = Separators::default();
    let mut children = Vec::with_capacity(nodes.len());
    let pairs = nodes.iter().map(|(_, node)| node.pairs()).collect();
    for (key, node) in nodes {
        match &lowest {
            None => lowest = Some(key),
            Some(_) => separators.insert(separators.len(), &key),
        }
        children.push(node);
    }
    separators.fit();
    (lowest.unwrap_or_default(), Node::Inner(Arc::new(Inner { separators, children, pairs })))
}

impl Node {
    /// Puts a pair in. Whether its key is new, and what was split off to the right, with its lowest
    /// key.
    fn set(&mut self, key: &[u8], make: Make<'_, '_>) -> (bool, Option<(Vec<u8>, Self)>) {
        match self {
            Self::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let is_new = leaf.set(key, make);
                let split = leaf.maybe_split();
                (is_new, split.map(|(separator, right)| (separator, Self::Leaf(Arc::new(right)))))
            }
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let at = inner.child(key);
                let (is_new, split) = inner.children[at].set(key, make);
                inner.pairs[at] += u64::from(is_new);
                if let Some((separator, right)) = split {
                    let moved = right.pairs();
                    inner.pairs[at] -= moved;
                    inner.pairs.insert(at + 1, moved);
                    inner.separators.insert(at, &separator);
                    inner.children.insert(at + 1, right);
                }
                let split = inner.maybe_split();
                (is_new, split.map(|(separator, right)| (separator, Self::Inner(Arc::new(right)))))
            }
        }
    }

    /// Removes a key that is there.
    fn remove(&mut self, key: &[u8]) {
        match self {
            Self::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let (at, _) = leaf.find(key);
                leaf.remove(at);
                leaf.fit();
            }
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let at = inner.child(key);
                inner.children[at].remove(key);
                inner.pairs[at] -= 1;
                inner.merge_around(at);
            }
        }
    }

    /// How many pairs are in it and below it.
    fn pairs(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.slots.len() as u64,
            Self::Inner(inner) => inner.pairs.iter().sum(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.slots.is_empty(),
            Self::Inner(inner) => inner.children.is_empty(),
        }
    }

    /// How full it is, in parts of 256.
    fn fill(&self) -> usize {
        match self {
            Self::Leaf(leaf) => {
                (leaf.bytes() * 256 / LEAF_BYTES_MAX).max(leaf.slots.len() * 256 / LEAF_PAIRS_MAX)
            }
            Self::Inner(inner) => inner.children.len() * 256 / CHILDREN_MAX,
        }
    }

    /// Appends what is in `right`, whose keys are from `separator` on.
    fn append(&mut self, separator: &[u8], right: &Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => {
                let left = Arc::make_mut(left);
                let mut right = (**right).clone();
                left.lay_out(0);
                right.lay_out(0);
                let (heads, values) = (long(left.heads.len()), short(left.values.len()));
                left.slots.extend(right.slots.iter().map(|slot| slot.moved(heads, values)));
                left.heads.extend_from_slice(&right.heads);
                left.values.extend_from_slice(&right.values);
                left.large.extend_from_slice(&right.large);
                left.compress();
                left.fit();
            }
            (Self::Inner(left), Self::Inner(right)) => {
                let left = Arc::make_mut(left);
                left.separators.insert(left.separators.len(), separator);
                for at in 0..right.separators.len() {
                    left.separators.insert(left.separators.len(), right.separators.get(at));
                }
                left.children.extend_from_slice(&right.children);
                left.pairs.extend_from_slice(&right.pairs);
            }
            _ => unreachable!("all leaves are at the same depth"),
        }
    }
}

impl Separators {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at] as usize]
    }

    /// How many are not above `key`.
    fn not_above(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle) <= key { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn insert(&mut self, at: usize, key: &[u8]) {
        let start = self.start(at);
        splice(&mut self.bytes, start, 0, &[key]);
        let added = u32::try_from(key.len()).expect("commands keep keys below their limit");
        self.ends.insert(at, u32::try_from(start).expect("a few dozen keys are far below 4 GiB"));
        self.ends[at..].iter_mut().for_each(|end| *end += added);
    }

    fn remove(&mut self, at: usize) -> Vec<u8> {
        let removed: Vec<u8> = self.bytes.drain(self.start(at)..self.ends[at] as usize).collect();
        self.ends.remove(at);
        let less = u32::try_from(removed.len()).expect("commands keep keys below their limit");
        self.ends[at..].iter_mut().for_each(|end| *end -= less);
        removed
    }

    fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let bytes = self.bytes.split_off(start);
        let mut ends = self.ends.split_off(at);
        let start = u32::try_from(start).expect("a few dozen keys are far below 4 GiB");
        ends.iter_mut().for_each(|end| *end -= start);
        Self { bytes, ends }
    }

    fn fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

impl Inner {
    /// The child that has `key`, if any has.
    fn child(&self, key: &[u8]) -> usize {
        self.separators.not_above(key)
    }

    fn maybe_split(&mut self) -> Option<(Vec<u8>, Self)> {
        if self.children.len() <= CHILDREN_MAX {
            return None;
        }
        let half = self.children.len() / 2;
        let children = self.children.split_off(half);
        let pairs = self.pairs.split_off(half);
        let separators = self.separators.split_off(half);
        let separator = self.separators.remove(half - 1);
        self.separators.fit();
        Some((separator, Self { separators, children, pairs }))
    }

    /// The child at `at` has lost something: if it is empty it goes; if little is left of it, it
    /// becomes one with a neighbour that has room.
    fn merge_around(&mut self, at: usize) {
        if self.children[at].is_empty() {
            self.children.remove(at);
            self.pairs.remove(at);
            if self.separators.len() > 0 {
                self.separators.remove(at.saturating_sub(1));
            }
            return;
        }
        let fill = self.children[at].fill();
        if fill > 64 {
            return;
        }
        let with = |left: usize| left + 1 < self.children.len();
        let fits = |left: usize| self.children[left].fill() + self.children[left + 1].fill() <= 192;
        let candidates = [Some(at), at.checked_sub(1)];
        let left = candidates.into_iter().flatten().find(|left| with(*left) && fits(*left));
        if let Some(left) = left {
            let right = self.children.remove(left + 1);
            self.pairs[left] += self.pairs.remove(left + 1);
            let separator = self.separators.remove(left);
            self.children[left].append(&separator, &right);
        }
    }
}

#[cfg(test)]
mod tests;
