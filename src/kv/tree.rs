//! An ordered map from keys to versioned values, made for a store that is captured often: a B-tree whose nodes are shared
//! between captures and copied when they are written (`clone` is O(1)).
//!
//! A leaf packs its keys into one allocation and its small values into another, and an inner node its separators: a
//! small pair costs a dozen bytes beside its own, and a search within a node stays within a few lines of the cache. A
//! large value has an allocation of its own, so that neither a write beside it nor a reader copies it.

use crate::kv::command::Revision;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::cmp::Ordering;

/// A leaf with more bytes of keys and small values is split, if it has more than one pair.
const LEAF_BYTES_MAX: usize = 4096;
/// So is one with more pairs.
const LEAF_PAIRS_MAX: usize = 64;
/// An inner node with more children is split.
const CHILDREN_MAX: usize = 64;
/// A longer value has an allocation of its own.
const PACKED_VALUE_BYTES_MAX: usize = 512;

/// A value and its versions, where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionedRef<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Revision that created the key (since it last did not exist).
    pub create_revision: Revision,
    /// Revision that last set it.
    pub mod_revision: Revision,
    /// How often it was set since it was created, from 1.
    pub version: u64,
}

/// What is to be stored, given what is there.
type Make<'m, 'v> = &'m mut dyn FnMut(Option<VersionedRef<'_>>) -> VersionedRef<'v>;

/// The map.
#[derive(Clone, Debug)]
pub(in crate::kv) struct Tree {
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
    /// The one at `i` is not above the keys of `children[i + 1]`, and above those of `children[i]`.
    separators: Separators,
    children: Vec<Node>,
}

/// Keys side by side, ascending.
#[derive(Clone, Debug, Default)]
struct Separators {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`.
    ends: Vec<u32>,
}

/// Pairs in the order of their keys.
#[derive(Clone, Debug, Default)]
struct Leaf {
    slots: Vec<Slot>,
    /// Of each pair: the key, its create_revision, how much later it was last set, its version.
    heads: Vec<u8>,
    /// The packed values, side by side.
    values: Vec<u8>,
    /// The large values.
    large: Vec<Bytes>,
}

/// Where a pair lies.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Where its head ends in `heads`: it begins where the one before ends.
    head_end: u32,
    /// The same of its packed value in `values`; one that is large takes nothing there. A leaf is split before sixteen bits
    /// are too few.
    value_end: u16,
    /// What follows the key in its head, bytes.
    revision_bytes: u8,
    /// Whether its value is among the large ones.
    is_large: bool,
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::default()), len: 0 }
    }
}

impl Tree {
    /// Number of keys.
    pub(in crate::kv) const fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    pub(in crate::kv) fn get(&self, key: &[u8]) -> Option<VersionedRef<'_>> {
        let leaf = self.leaf(key);
        let (at, found) = leaf.find(key);
        found.then(|| leaf.versioned(at))
    }

    /// The value of a key with bytes of its own; a large one is shared.
    pub(in crate::kv) fn get_bytes(&self, key: &[u8]) -> Option<(Bytes, VersionedRef<'_>)> {
        let leaf = self.leaf(key);
        let (at, found) = leaf.find(key);
        found.then(|| {
            let versioned = leaf.versioned(at);
            let value = if leaf.slots[at].is_large {
                leaf.large[leaf.large_before(at)].clone()
            } else {
                Bytes::copy_from_slice(versioned.value)
            };
            (value, versioned)
        })
    }

    /// Puts in what `make` makes of what is there. One way down the tree does both.
    pub(in crate::kv) fn set(&mut self, key: &[u8], make: Make<'_, '_>) {
        let (is_new, split) = self.root.set(key, make);
        self.len += usize::from(is_new);
        if let Some((separator, right)) = split {
            let left = core::mem::replace(&mut self.root, Node::Leaf(Arc::default()));
            let mut separators = Separators::default();
            separators.insert(0, &separator);
            let inner = Inner { separators, children: Vec::from([left, right]) };
            self.root = Node::Inner(Arc::new(inner));
        }
    }

    /// Removes a key; whether it was there.
    pub(in crate::kv) fn remove(&mut self, key: &[u8]) -> bool {
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
    pub(in crate::kv) fn iter(&self) -> impl Iterator<Item = (&[u8], VersionedRef<'_>)> {
        let mut waiting = Vec::from([&self.root]);
        let mut current: Option<(&Leaf, usize)> = None;
        core::iter::from_fn(move || {
            loop {
                if let Some((leaf, next)) = &mut current
                    && *next < leaf.slots.len()
                {
                    let at = *next;
                    *next += 1;
                    return Some((leaf.key(at), leaf.versioned(at)));
                }
                match waiting.pop()? {
                    Node::Leaf(leaf) => current = Some((leaf, 0)),
                    Node::Inner(inner) => waiting.extend(inner.children.iter().rev()),
                }
            }
        })
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

/// Makes a tree of pairs that come in the order of their keys.
#[derive(Debug, Default)]
pub(in crate::kv) struct TreeBuilder {
    /// Whole nodes with their lowest keys, level by level from the leaves; the right edge of the tree.
    levels: Vec<Vec<(Vec<u8>, Node)>>,
    /// The leaf that is being filled. Its room is used again.
    leaf: Leaf,
    /// The lowest key of `leaf`.
    first: Option<Vec<u8>>,
    len: usize,
}

impl TreeBuilder {
    /// Takes in the next pair; its key is above all before.
    pub(in crate::kv) fn push(&mut self, key: &[u8], versioned: VersionedRef<'_>) {
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

    /// How many pairs it has taken.
    pub(in crate::kv) const fn len(&self) -> usize {
        self.len
    }

    /// The tree.
    pub(in crate::kv) fn finish(mut self) -> Tree {
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
        let Leaf { slots, heads, values, large } = &mut self.leaf;
        let leaf = Leaf {
            slots: slots.to_vec(),
            heads: heads.to_vec(),
            values: values.to_vec(),
            large: core::mem::take(large),
        };
        slots.clear();
        heads.clear();
        values.clear();
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
    for (key, node) in nodes {
        match &lowest {
            None => lowest = Some(key),
            Some(_) => separators.insert(separators.len(), &key),
        }
        children.push(node);
    }
    separators.fit();
    (lowest.unwrap_or_default(), Node::Inner(Arc::new(Inner { separators, children })))
}

impl Node {
    /// Puts a pair in. Whether its key is new, and what was split off to the right, with its lowest key.
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
                if let Some((separator, right)) = split {
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
                inner.merge_around(at);
            }
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
                let (heads, values) = (long(left.heads.len()), short(left.values.len()));
                left.slots.extend(right.slots.iter().map(|slot| slot.moved(heads, values)));
                left.heads.extend_from_slice(&right.heads);
                left.values.extend_from_slice(&right.values);
                left.large.extend_from_slice(&right.large);
                left.fit();
            }
            (Self::Inner(left), Self::Inner(right)) => {
                let left = Arc::make_mut(left);
                left.separators.insert(left.separators.len(), separator);
                for at in 0..right.separators.len() {
                    left.separators.insert(left.separators.len(), right.separators.get(at));
                }
                left.children.extend_from_slice(&right.children);
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
        let separators = self.separators.split_off(half);
        let separator = self.separators.remove(half - 1);
        self.separators.fit();
        Some((separator, Self { separators, children }))
    }

    /// The child at `at` has lost something: if it is empty it goes; if little is left of it, it becomes one with a
    /// neighbour that has room.
    fn merge_around(&mut self, at: usize) {
        if self.children[at].is_empty() {
            self.children.remove(at);
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
            let separator = self.separators.remove(left);
            self.children[left].append(&separator, &right);
        }
    }
}

impl Leaf {
    fn bytes(&self) -> usize {
        self.heads.len() + self.values.len()
    }

    /// Whether it should take another pair while a tree is built: a little room is left for what changes later.
    fn has_room(&self, key_bytes: usize, value_bytes: usize) -> bool {
        let packed = if value_bytes > PACKED_VALUE_BYTES_MAX { 0 } else { value_bytes };
        self.bytes() + key_bytes + packed <= LEAF_BYTES_MAX * 7 / 8 && self.slots.len() < LEAF_PAIRS_MAX
    }

    /// Where the head and the packed value of the pair at `at` begin.
    fn starts(&self, at: usize) -> (usize, usize) {
        at.checked_sub(1).map_or((0, 0), |before| {
            let slot = &self.slots[before];
            (slot.head_end as usize, usize::from(slot.value_end))
        })
    }

    fn key(&self, at: usize) -> &[u8] {
        let (head, _) = self.starts(at);
        &self.heads[head..self.slots[at].key_end()]
    }

    /// Large values before the pair at `at`.
    fn large_before(&self, at: usize) -> usize {
        self.slots[..at].iter().filter(|slot| slot.is_large).count()
    }

    /// Where `key` is, or would be, and whether it is there.
    fn find(&self, key: &[u8]) -> (usize, bool) {
        let (mut low, mut high) = (0, self.slots.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return (middle, true),
                Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// The value of the pair at `at`.
    fn versioned(&self, at: usize) -> VersionedRef<'_> {
        let (_, value) = self.starts(at);
        let slot = self.slots[at];
        let value = if slot.is_large {
            &self.large[self.large_before(at)]
        } else {
            &self.values[value..usize::from(slot.value_end)]
        };
        let mut rest = &self.heads[slot.key_end()..slot.head_end as usize];
        let create = take_number(&mut rest);
        let later = take_number(&mut rest);
        let version = take_number(&mut rest);
        let (create_revision, mod_revision) = (Revision(create), Revision(create + later));
        VersionedRef { value, create_revision, mod_revision, version }
    }

    /// Puts a pair in; whether its key is new.
    fn set(&mut self, key: &[u8], make: Make<'_, '_>) -> bool {
        let (at, found) = self.find(key);
        if found {
            let versioned = make(Some(self.versioned(at)));
            self.put(at, Some(self.slots[at]), key, versioned);
        } else {
            self.put(at, None, key, make(None));
        }
        !found
    }

    /// Writes a pair: over the one at `at`, or before it.
    fn put(&mut self, at: usize, over: Option<Slot>, key: &[u8], versioned: VersionedRef<'_>) {
        let (head, packed_at) = self.starts(at);
        let (old_head, old_packed) = over
            .map_or((0, 0), |slot| (slot.head_end as usize - head, usize::from(slot.value_end) - packed_at));
        let value = versioned.value;
        let is_large = value.len() > PACKED_VALUE_BYTES_MAX;
        let packed = if is_large { &[][..] } else { value };
        let mut revisions = Numbers::default();
        revisions.put(versioned.create_revision.0);
        revisions.put(versioned.mod_revision.0 - versioned.create_revision.0);
        revisions.put(versioned.version);
        splice(&mut self.heads, head, old_head, &[key, revisions.bytes()]);
        splice(&mut self.values, packed_at, old_packed, &[packed]);
        let before = self.large_before(at);
        match (over.is_some_and(|slot| slot.is_large), is_large) {
            (true, true) => self.large[before] = Bytes::copy_from_slice(value),
            (true, false) => drop(self.large.remove(before)),
            (false, true) => self.large.insert(before, Bytes::copy_from_slice(value)),
            (false, false) => {}
        }
        if over.is_none() {
            self.slots.reserve_exact(1);
            let (head_end, value_end) = (long(head), short(packed_at));
            self.slots.insert(at, Slot { head_end, value_end, ..Slot::default() });
        }
        let slot = &mut self.slots[at];
        slot.is_large = is_large;
        slot.revision_bytes =
            u8::try_from(revisions.bytes().len()).expect("three numbers take at most thirty bytes");
        let heads = long(key.len() + revisions.bytes().len()).wrapping_sub(long(old_head));
        let values = short(packed.len()).wrapping_sub(short(old_packed));
        self.slots[at..].iter_mut().for_each(|slot| *slot = slot.moved(heads, values));
    }

    fn remove(&mut self, at: usize) {
        let (head, value) = self.starts(at);
        let slot = self.slots[at];
        let before = self.large_before(at);
        self.heads.drain(head..slot.head_end as usize);
        self.values.drain(value..usize::from(slot.value_end));
        if slot.is_large {
            self.large.remove(before);
        }
        self.slots.remove(at);
        let heads = long(head).wrapping_sub(slot.head_end);
        let values = short(value).wrapping_sub(slot.value_end);
        self.slots[at..].iter_mut().for_each(|slot| *slot = slot.moved(heads, values));
    }

    /// Splits off the upper half if there is too much in it: by pairs if there are too many, else by bytes.
    fn maybe_split(&mut self) -> Option<(Vec<u8>, Self)> {
        let (pairs, bytes) = (self.slots.len(), self.bytes());
        let at = if pairs > LEAF_PAIRS_MAX {
            pairs / 2
        } else if bytes > LEAF_BYTES_MAX && pairs > 1 {
            let is_low = |slot: &Slot| slot.head_end as usize + usize::from(slot.value_end) <= bytes / 2;
            self.slots.partition_point(is_low).clamp(1, pairs - 1)
        } else {
            return None;
        };
        let (head, value) = self.starts(at);
        let large = self.large.split_off(self.large_before(at));
        let (heads, values) = (long(head), short(value));
        let back = |slot: &Slot| slot.moved(heads.wrapping_neg(), values.wrapping_neg());
        let right = Self {
            slots: self.slots[at..].iter().map(back).collect(),
            heads: self.heads[head..].to_vec(),
            values: self.values[value..].to_vec(),
            large,
        };
        self.slots.truncate(at);
        self.heads.truncate(head);
        self.values.truncate(value);
        self.fit();
        Some((right.key(0).to_vec(), right))
    }

    /// Gives back what is reserved and not used.
    fn fit(&mut self) {
        self.slots.shrink_to_fit();
        self.heads.shrink_to_fit();
        self.values.shrink_to_fit();
        self.large.shrink_to_fit();
    }
}

impl Slot {
    /// Where its key ends in `heads`.
    const fn key_end(self) -> usize {
        self.head_end as usize - self.revision_bytes as usize
    }

    /// The same pair where it lies so many bytes further on (or back, modulo the size of the fields).
    const fn moved(self, heads: u32, values: u16) -> Self {
        let Self { head_end, value_end, .. } = self;
        Self { head_end: head_end.wrapping_add(heads), value_end: value_end.wrapping_add(values), ..self }
    }
}

/// A place among the heads of a leaf.
fn long(number: usize) -> u32 {
    u32::try_from(number).expect("a leaf is far shorter than 4 GiB")
}

/// A place among the packed values of a leaf.
fn short(number: usize) -> u16 {
    u16::try_from(number).expect("a leaf has no 64 KiB of packed values")
}

/// Puts `parts` in the place of `old` bytes at `at`, reserving no more than is used.
fn splice(bytes: &mut Vec<u8>, at: usize, old: usize, parts: &[&[u8]]) {
    let new: usize = parts.iter().map(|part| part.len()).sum();
    let end = bytes.len();
    match new.cmp(&old) {
        Ordering::Greater => {
            bytes.reserve_exact(new - old);
            bytes.resize(end + new - old, 0);
            bytes.copy_within(at + old..end, at + new);
        }
        Ordering::Less => {
            bytes.copy_within(at + old..end, at + new);
            bytes.truncate(end - (old - new));
            if bytes.capacity() > bytes.len() + bytes.len() / 8 {
                bytes.shrink_to_fit();
            }
        }
        Ordering::Equal => {}
    }
    let mut to = at;
    for part in parts {
        bytes[to..to + part.len()].copy_from_slice(part);
        to += part.len();
    }
}

/// Numbers as bytes, seven bits in each, the lowest first; the eighth says that more follow.
#[derive(Debug, Default)]
struct Numbers {
    bytes: [u8; 32],
    len: usize,
}

impl Numbers {
    fn put(&mut self, mut number: u64) {
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            self.bytes[self.len] = low | if number > 0 { 0x80 } else { 0 };
            self.len += 1;
            if number == 0 {
                return;
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[inline]
fn take_number(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests;
