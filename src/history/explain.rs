//! From a history without an order to the few operations that show it.

use crate::history::operation::{Kind, Operation, Short};
use crate::history::problem::problem;
use crate::history::search::{SearchResult, search};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// Operations that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key they are about.
    pub key: Bytes,
    /// What is wrong with them.
    pub reason: &'static str,
    /// As few operations as could be found that no order explains, in the order of their calls.
    /// What the history holds beside them does not help.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}:", Short(&self.key), self.reason)?;
        for operation in &self.operations {
            write!(f, "\n  {operation}")?;
        }
        Ok(())
    }
}

/// Reduces the operations of one key, which no order explains, to a few of them, in at most about
/// `steps_max` steps.
///
/// Linearizability is closed under prefixes, so it begins with the shortest prefix in time that has
/// no order. Then it leaves out operations, as long as what remains has none. It leaves out only
/// operations that a history with an order can lose: gets, and writes that no remaining get can
/// have read, since the get returned before the write or another write certainly stands between. So
/// what remains is a violation of its own.
pub(super) fn explain(operations: &[&Operation], steps_max: u64) -> Vec<Operation> {
    let mut reducer = Reducer { operations, end: u64::MAX, steps_left: steps_max };
    reducer.find_end();
    let mut kept: Vec<usize> =
        (0..operations.len()).filter(|index| operations[*index].call <= reducer.end).collect();
    kept.sort_unstable_by_key(|index| (operations[*index].call, operations[*index].ret));
    let mut chunk = kept.len();
    while chunk > 0 && reducer.steps_left > 0 {
        let before = kept.len();
        reducer.leave_out_chunks(&mut kept, chunk);
        // The last round is repeated until nothing more can be left out.
        if chunk > 1 || kept.len() == before {
            chunk /= 2;
        }
    }
    kept.into_iter().map(|index| operations[index].clone()).collect()
}

struct Reducer<'a> {
    operations: &'a [&'a Operation],
    /// What returned later has an unknown outcome, what was called later is not there.
    end: u64,
    steps_left: u64,
}

impl Reducer<'_> {
    /// Finds the earliest end at which there is no order.
    fn find_end(&mut self) {
        let mut ends: Vec<u64> = self.operations.iter().filter_map(|operation| operation.ret).collect();
        ends.sort_unstable();
        ends.dedup();
        let all: Vec<usize> = (0..self.operations.len()).collect();
        let (mut low, mut high) = (0, ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            self.end = ends[middle];
            if self.has_no_order(&all) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.end = ends.get(high).copied().unwrap_or(u64::MAX);
    }

    fn leave_out_chunks(&mut self, kept: &mut Vec<usize>, chunk: usize) {
        let mut start = 0;
        while start < kept.len() {
            let range = start..(start + chunk).min(kept.len());
            let others = Others::new(self, kept[..range.start].iter().chain(&kept[range.end..]));
            let fewer: Vec<usize> = kept
                .iter()
                .enumerate()
                .filter(|(place, index)| !range.contains(place) || others.can_have_read(self, **index))
                .map(|(_, index)| *index)
                .collect();
            if fewer.len() < kept.len() && self.has_no_order(&fewer) {
                *kept = fewer;
            } else {
                start += chunk;
            }
        }
    }

    /// When an operation returned, as far as the prefix shows.
    fn ret(&self, index: usize) -> Option<u64> {
        self.operations[index].ret.filter(|ret| *ret <= self.end)
    }

    /// Whether it is certain that these have no order.
    fn has_no_order(&mut self, indices: &[usize]) -> bool {
        if self.steps_left == 0 {
            return false;
        }
        let seen: Vec<Operation> = indices
            .iter()
            .map(|index| self.operations[*index])
            .filter(|operation| operation.call <= self.end)
            .map(|operation| Operation {
                ret: operation.ret.filter(|ret| *ret <= self.end),
                ..operation.clone()
            })
            .collect();
        let Some(problem) = problem(seen.iter()) else {
            self.steps_left -= 1;
            return true;
        };
        let (found, steps) = search(&problem, self.steps_left);
        self.steps_left = self.steps_left.saturating_sub(steps + 1);
        found == SearchResult::NoOrder
    }
}

/// The operations that stay, when some are to be left out.
struct Others<'a> {
    /// For each value that was read: returns of its gets ascending, each with the first call among
    /// it and those after it.
    gets: BTreeMap<Option<&'a [u8]>, Vec<(u64, u64)>>,
    /// Calls of the writes that returned, ascending, each with the first return among it and those
    /// after it.
    writes: Vec<(u64, u64)>,
}

impl<'a> Others<'a> {
    fn new<'i>(reducer: &Reducer<'a>, indices: impl Iterator<Item = &'i usize>) -> Self {
        let (mut gets, mut writes) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for &index in indices {
            let operation = reducer.operations[index];
            let Some(ret) = reducer.ret(index) else { continue };
            match &operation.kind {
                Kind::Get(value) => gets.entry(value.as_deref()).or_default().push((ret, operation.call)),
                Kind::Set(_) | Kind::Delete => writes.push((operation.call, ret)),
            }
        }
        gets.values_mut().for_each(|pairs| with_least_of_rest(pairs));
        with_least_of_rest(&mut writes);
        Self { gets, writes }
    }

    /// Whether this is a write that one of them can have read directly. The set of a value that is
    /// read stays in any case: without it, what remains would be a violation, but one that explains
    /// nothing.
    fn can_have_read(&self, reducer: &Reducer<'_>, index: usize) -> bool {
        let operation = reducer.operations[index];
        let value = match &operation.kind {
            Kind::Get(_) => return false,
            Kind::Set(value) => Some(&value[..]),
            Kind::Delete => None,
        };
        let Some(gets) = self.gets.get(&value) else { return false };
        if value.is_some() {
            return true;
        }
        let Some((_, first_get)) = least_from(gets, operation.call) else { return false };
        let Some(after) = reducer.ret(index).and_then(|ret| ret.checked_add(1)) else { return true };
        least_from(&self.writes, after).is_none_or(|(_, first_ret)| first_ret >= first_get)
    }
}

/// Sorts pairs by their first part, and makes the second one the least of it and those after it.
fn with_least_of_rest(pairs: &mut [(u64, u64)]) {
    pairs.sort_unstable();
    let mut least = u64::MAX;
    for pair in pairs.iter_mut().rev() {
        least = least.min(pair.1);
        pair.1 = least;
    }
}

/// The first pair whose first part is at least `start`.
fn least_from(pairs: &[(u64, u64)], start: u64) -> Option<(u64, u64)> {
    pairs.get(pairs.partition_point(|pair| pair.0 < start)).copied()
}
