//! From a found order to a point in time for each operation, for a reader of the history.

use crate::history::check::Effort;
use crate::history::operation::{Kind, Operation};
use crate::history::problem::problem;
use crate::history::search::search_order;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Where an operation takes effect in an order that explains its key's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Index of the operation in the history.
    pub operation: usize,
    /// Its place among the operations of its key, from 0.
    pub position: usize,
    /// A time between its call and its return. It never falls along a key's order; equal times are
    /// in the order of `position`.
    pub at: u64,
}

/// An order for each key that has one, as points in time: key by key, along each key's order.
///
/// Operations that need no place have none: gets of unknown outcome, and writes of unknown outcome
/// whose value was never read. Operations of a key without an order, or of one whose search gave
/// up, have none either.
#[must_use]
pub fn witness(operations: &[Operation], effort: Effort) -> Vec<Point> {
    let mut keys: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate() {
        keys.entry(&operation.key).or_default().push(index);
    }
    let end = operations.iter().map(|operation| operation.ret.unwrap_or(operation.call)).max().unwrap_or(0);
    let mut points = Vec::new();
    for indices in keys.values() {
        let of_key: Vec<&Operation> = indices.iter().map(|index| &operations[*index]).collect();
        if let Some(order) = order(&of_key, effort.steps_max) {
            let times = times(&of_key, &order, end);
            points.extend(order.iter().zip(times).enumerate().map(|(position, (place, at))| Point {
                operation: indices[*place],
                position,
                at,
            }));
        }
    }
    points
}

/// An order of the operations of one key, with the writes of unknown outcome that it needs.
fn order(operations: &[&Operation], steps_max: u64) -> Option<Vec<usize>> {
    let problem = problem(operations.iter().copied())?;
    let found = search_order(&problem, steps_max)?;
    let placed: Vec<usize> = found.iter().map(|item| problem.items[*item].operation).collect();
    // The search counts the supplies that it uses, those called first: here they get their names
    // back.
    let mut spare: Vec<usize> = (0..operations.len())
        .filter(|index| operations[*index].ret.is_none() && !matches!(operations[*index].kind, Kind::Get(_)))
        .filter(|index| !placed.contains(index))
        .collect();
    spare.sort_by_key(|index| operations[*index].call);
    let mut order = Vec::with_capacity(placed.len());
    let mut value: Option<&[u8]> = None;
    for index in placed {
        let (written, is_write) = value_of(operations[index]);
        if !is_write && value != written {
            let supply = spare.iter().position(|spare| value_of(operations[*spare]).0 == written)?;
            order.push(spare.remove(supply));
        }
        value = written;
        order.push(index);
    }
    Some(order)
}

/// What an operation wrote or read, and whether it wrote.
fn value_of(operation: &Operation) -> (Option<&[u8]>, bool) {
    match &operation.kind {
        Kind::Set(value) => (Some(value), true),
        Kind::Delete => (None, true),
        Kind::Get(value) => (value.as_deref(), false),
    }
}

/// A time for each place: in the middle between the earliest that those before it allow and the
/// latest that those after it do.
fn times(operations: &[&Operation], order: &[usize], end: u64) -> Vec<u64> {
    let mut times = Vec::with_capacity(order.len());
    let mut earliest = 0;
    for index in order {
        earliest = earliest.max(operations[*index].call);
        times.push(earliest);
    }
    let mut latest = end;
    for (time, index) in times.iter_mut().zip(order).rev() {
        latest = latest.min(operations[*index].ret.unwrap_or(u64::MAX));
        debug_assert!(*time <= latest, "an order keeps what returned before what was called later");
        *time += (latest - *time) / 2;
    }
    times
}
