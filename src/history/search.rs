//! The search for an order that explains one key's history.
//!
//! A *configuration* is the set of operations that have a place already, the value after them, and
//! the supplies used. An operation may come next if none without a place returned before its call.
//! The search goes depth first and never looks at a configuration twice (Lowe 2017). With dozens of
//! clients on one key that alone is too slow; so it branches only where the choice can matter:
//! - A get that may come next and whose value is there is given its place at once: it changes
//!   nothing, and waiting cannot help it.
//! - A write is *silent* if no get of its value is left. Silent writes that may come next are given
//!   their places just before any other write that comes next (which hides them at once); and
//!   immediately, if no get of the present value is left either. All values that no get is left of
//!   are one: [`HIDDEN`].
//! - Of several writes of the same value that may come next, only the one that returns first is
//!   tried: in any order that begins with another, the two can change places.
//! - It does not go on while a get is left that was answered before any write was called that could
//!   still serve it. So a value that is written once is written only when all its gets may come
//!   right after it.
//! - A supply is used only to explain a get that comes right after it, and those called first are
//!   used first; so it is enough to count them.

use crate::history::problem::{ABSENT, Item, Problem, ValueId};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// The present value, when no get of it is left: which it was does not matter any more.
const HIDDEN: ValueId = ValueId::MAX;

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchResult {
    /// An order that explains everything.
    Order,
    /// There is none.
    NoOrder,
    /// It would have taken more steps than allowed.
    GaveUp,
}

/// Looks for an order, in at most `steps_max` configurations; says how many it took.
pub(super) fn search(problem: &Problem, steps_max: u64) -> (SearchResult, u64) {
    Search::new(problem).run(steps_max)
}

/// Looks for an order, in at most `steps_max` configurations: the items of the problem in that
/// order. Supplies are not named in it: one stands before each get whose value is not there.
pub(super) fn search_order(problem: &Problem, steps_max: u64) -> Option<Vec<usize>> {
    let mut search = Search::new(problem);
    let (found, _) = search.run(steps_max);
    (found == SearchResult::Order).then_some(search.order)
}

struct Search<'a> {
    problem: &'a Problem,
    /// Which items have a place.
    placed: Vec<bool>,
    /// The first item without one.
    first: usize,
    /// The value after the items that have a place.
    value: ValueId,
    /// For each value: gets without a place.
    unread: Vec<usize>,
    /// For each value: its gets, by call.
    readers: Vec<Vec<usize>>,
    /// For each value: its writes, by call.
    writers: Vec<Vec<usize>>,
    /// For each value: supplies used.
    used: Vec<u32>,
    /// Values that have supplies.
    supplied: Vec<ValueId>,
    /// Items in the order of their places.
    order: Vec<usize>,
    /// Configurations that were looked at. Each is held exactly: a verdict must not hang on a hash.
    visited: BTreeSet<Vec<u32>>,
}

/// A choice that can matter.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// All silent writes that may come next.
    Silent,
    /// The silent writes, then this one.
    Write(usize),
    /// The silent writes, then a supply of this value (and the get that it explains).
    Supply(ValueId),
}

/// A configuration on the present path, and what has not been tried from it.
struct Branch {
    ordered: usize,
    first: usize,
    value: ValueId,
    /// The best is last.
    untried: Vec<Move>,
    /// The supply that the move being tried has used.
    used: Option<ValueId>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem) -> Self {
        let mut readers = vec![Vec::new(); problem.supplies.len()];
        let mut writers = readers.clone();
        for (index, item) in problem.items.iter().enumerate() {
            let items = if item.is_write { &mut writers } else { &mut readers };
            items[item.value as usize].push(index);
        }
        let supplied = (ABSENT..)
            .zip(&problem.supplies)
            .filter(|(_, calls)| !calls.is_empty())
            .map(|(value, _)| value)
            .collect();
        Self {
            problem,
            placed: vec![false; problem.items.len()],
            first: 0,
            value: ABSENT,
            unread: readers.iter().map(Vec::len).collect(),
            readers,
            writers,
            used: vec![0; problem.supplies.len()],
            supplied,
            order: Vec::with_capacity(problem.items.len()),
            visited: BTreeSet::new(),
        }
    }

    fn run(&mut self, steps_max: u64) -> (SearchResult, u64) {
        let mut branches: Vec<Branch> = Vec::new();
        let mut steps = 0;
        loop {
            self.place_what_cannot_matter();
            if self.first == self.problem.items.len() {
                return (SearchResult::Order, steps);
            }
            if steps == steps_max {
                return (SearchResult::GaveUp, steps);
            }
            steps += 1;
            if !self.is_dead_end() && self.visited.insert(self.configuration()) {
                let (ordered, first, value) = (self.order.len(), self.first, self.value);
                branches.push(Branch { ordered, first, value, untried: self.moves(), used: None });
            }
            loop {
                let Some(branch) = branches.last_mut() else { return (SearchResult::NoOrder, steps) };
                self.go_back_to(branch);
                if let Some(next) = branch.untried.pop() {
                    branch.used = self.make(next);
                    break;
                }
                branches.pop();
            }
        }
    }

    /// Gives places without branching, as long as there is something to do.
    fn place_what_cannot_matter(&mut self) {
        loop {
            let before = self.order.len();
            if self.value != HIDDEN && self.unread[self.value as usize] == 0 {
                self.value = HIDDEN;
            }
            if self.value == HIDDEN {
                self.place_silent();
            } else {
                let value = self.value;
                self.place_all(|search, index| {
                    let item = search.problem.items[index];
                    !item.is_write && item.value == value
                });
            }
            if self.order.len() == before {
                return;
            }
        }
    }

    fn place_silent(&mut self) {
        self.place_all(|search, index| search.is_silent(index));
    }

    /// Gives places to the operations that may come next and are `wanted`. None of them hinders
    /// another: an operation that may come next still may after the others.
    fn place_all(&mut self, wanted: impl Fn(&Self, usize) -> bool) {
        let horizon = self.horizon();
        for index in self.first..self.problem.items.len() {
            if self.problem.items[index].call > horizon {
                break;
            }
            if !self.placed[index] && wanted(self, index) {
                self.place(index);
            }
        }
        self.skip_placed();
    }

    fn place(&mut self, index: usize) {
        self.placed[index] = true;
        self.order.push(index);
        let item = self.problem.items[index];
        if !item.is_write {
            self.unread[item.value as usize] -= 1;
        }
    }

    /// Whether a get is left that no write can serve any more: those left are called after it
    /// returned.
    fn is_dead_end(&self) -> bool {
        if self.value != HIDDEN
            && self.next_of(&self.readers, self.value).is_some_and(|get| self.is_starved(get))
        {
            return true;
        }
        let horizon = self.horizon();
        (self.first..self.problem.items.len())
            .take_while(|index| self.problem.items[*index].call <= horizon)
            .any(|index| !self.placed[index] && !self.problem.items[index].is_write && self.is_starved(index))
    }

    /// Whether no write without a place, and no supply, was called before this get returned.
    fn is_starved(&self, get: usize) -> bool {
        let Item { value, ret, .. } = self.problem.items[get];
        let supplies = &self.problem.supplies[value as usize];
        let supply = supplies.get(self.used[value as usize] as usize).copied();
        let write = self.next_of(&self.writers, value).map(|index| self.problem.items[index].call);
        supply.is_none_or(|call| call > ret) && write.is_none_or(|call| call > ret)
    }

    /// The first of a value's items (by call) without a place.
    fn next_of(&self, items: &[Vec<usize>], value: ValueId) -> Option<usize> {
        let items = &items[value as usize];
        let start = items.partition_point(|index| *index < self.first);
        items[start..].iter().copied().find(|index| !self.placed[*index])
    }

    fn skip_placed(&mut self) {
        while self.placed.get(self.first) == Some(&true) {
            self.first += 1;
        }
    }

    fn is_silent(&self, index: usize) -> bool {
        let item = self.problem.items[index];
        item.is_write && self.unread[item.value as usize] == 0
    }

    /// The first return among the items without a place: those called after it may not come next.
    fn horizon(&self) -> u64 {
        let mut horizon = u64::MAX;
        for (item, placed) in self.problem.items[self.first..].iter().zip(&self.placed[self.first..]) {
            if item.call > horizon {
                break;
            }
            if !placed {
                horizon = horizon.min(item.ret);
            }
        }
        horizon
    }

    /// The present configuration in words that are the same for the same configuration only.
    fn configuration(&self) -> Vec<u32> {
        let mut words = Vec::with_capacity(4 + self.supplied.len());
        words.push(u32::try_from(self.first).expect("a history in memory has fewer operations"));
        words.push(self.value);
        words.extend(self.supplied.iter().map(|value| self.used[*value as usize]));
        // Nothing called after the first item's return has a place.
        let end = self.problem.items[self.first].ret;
        let (mut word, mut bits) = (0, 0);
        for (item, placed) in self.problem.items[self.first..].iter().zip(&self.placed[self.first..]) {
            if item.call > end {
                break;
            }
            word |= u32::from(*placed) << bits;
            bits += 1;
            if bits == u32::BITS {
                words.push(word);
                (word, bits) = (0, 0);
            }
        }
        words.push(word);
        words
    }

    /// What can come next, the most promising last.
    fn moves(&self) -> Vec<Move> {
        let horizon = self.horizon();
        let next = || {
            (self.first..self.problem.items.len())
                .take_while(|index| self.problem.items[*index].call <= horizon)
                .filter(|index| !self.placed[*index])
        };
        // Writes whose get waits come first, then those that return first.
        let mut writes: Vec<(bool, u64, usize)> = Vec::new();
        let mut awaited: Vec<ValueId> = next()
            .map(|index| self.problem.items[index])
            .filter(|item| !item.is_write)
            .map(|item| item.value)
            .collect();
        awaited.sort_unstable();
        awaited.dedup();
        for index in next().filter(|index| self.problem.items[*index].is_write && !self.is_silent(*index)) {
            let item = self.problem.items[index];
            let same = writes.iter_mut().find(|other| self.problem.items[other.2].value == item.value);
            match same {
                Some(other) if other.1 <= item.ret => {}
                Some(other) => (other.1, other.2) = (item.ret, index),
                None => writes.push((awaited.binary_search(&item.value).is_err(), item.ret, index)),
            }
        }
        writes.sort_unstable_by(|one, other| other.cmp(one));

        let mut moves = Vec::new();
        if next().any(|index| self.is_silent(index)) {
            moves.push(Move::Silent);
        }
        for value in &self.supplied {
            let calls = &self.problem.supplies[*value as usize];
            let called = calls.get(self.used[*value as usize] as usize);
            let waits = *value != self.value && awaited.binary_search(value).is_ok();
            if waits && called.is_some_and(|call| *call <= horizon) {
                moves.push(Move::Supply(*value));
            }
        }
        moves.extend(writes.into_iter().map(|(_, _, index)| Move::Write(index)));
        moves
    }

    /// Makes a move; returns the supply that it used.
    fn make(&mut self, next: Move) -> Option<ValueId> {
        self.place_silent();
        self.value = HIDDEN;
        match next {
            Move::Silent => return None,
            Move::Write(index) => {
                self.place(index);
                self.value = self.problem.items[index].value;
            }
            Move::Supply(value) => {
                self.used[value as usize] += 1;
                self.value = value;
                return Some(value);
            }
        }
        self.skip_placed();
        None
    }

    fn go_back_to(&mut self, branch: &mut Branch) {
        while self.order.len() > branch.ordered {
            let index = self.order.pop().expect("the order is longer than it was at the branch");
            self.placed[index] = false;
            let item = self.problem.items[index];
            if !item.is_write {
                self.unread[item.value as usize] += 1;
            }
        }
        if let Some(value) = branch.used.take() {
            self.used[value as usize] -= 1;
        }
        self.first = branch.first;
        self.value = branch.value;
    }
}
