use crate::raft::{Incarnation, NodeId, Term};
use crate::replica::forwarding::Origins;
use crate::replica::message::Forward;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

fn forward(term: u64, incarnation: u64, first_sequence: u64, count: usize) -> Forward {
    Forward {
        from: NodeId::new(2),
        to: NodeId::new(1),
        term: Term::new(term),
        incarnation: Incarnation::new(incarnation),
        first_sequence,
        commands: vec![Bytes::new(); count],
    }
}

#[test]
fn a_forward_that_comes_twice_is_dropped_the_second_time() {
    let mut origins = Origins::default();
    assert_eq!(origins.admit(&forward(3, 1, 0, 4)), Some(0));
    assert_eq!(origins.admit(&forward(3, 1, 0, 4)), Some(4));
    assert_eq!(origins.admit(&forward(3, 1, 2, 4)), Some(2), "only the part that was seen");
}

#[test]
fn a_late_forward_is_dropped_after_a_later_one() {
    let mut origins = Origins::default();
    assert_eq!(origins.admit(&forward(3, 1, 10, 2)), Some(0));
    assert_eq!(origins.admit(&forward(3, 1, 4, 2)), Some(2));
}

#[test]
fn a_new_life_of_the_origin_starts_over_and_its_old_one_is_dropped() {
    let mut origins = Origins::default();
    assert_eq!(origins.admit(&forward(3, 1, 10, 2)), Some(0));
    assert_eq!(origins.admit(&forward(3, 2, 0, 2)), Some(0));
    assert_eq!(origins.admit(&forward(3, 1, 12, 2)), None);
}

#[test]
fn a_huge_sequence_number_does_not_overflow() {
    let mut origins = Origins::default();
    assert_eq!(origins.admit(&forward(3, 1, u64::MAX - 1, 4)), Some(0));
    assert_eq!(origins.admit(&forward(3, 1, 0, 1)), Some(1));
}

#[test]
fn only_what_was_never_admitted_may_be_refused_for_certain() {
    let mut origins = Origins::default();
    assert_eq!(
        origins.maybe_proposed(&forward(3, 1, 0, 4)),
        Some(0),
        "this node admitted nothing in that term"
    );
    assert_eq!(origins.admit(&forward(3, 1, 0, 4)), Some(0));
    assert_eq!(origins.maybe_proposed(&forward(3, 1, 0, 4)), Some(4), "a second copy");
    assert_eq!(origins.maybe_proposed(&forward(3, 1, 2, 4)), Some(2));
    assert_eq!(origins.maybe_proposed(&forward(3, 1, 4, 4)), Some(0));
    assert_eq!(origins.maybe_proposed(&forward(2, 1, 4, 4)), None, "an earlier term's memory is gone");
}

#[test]
fn what_comes_for_the_first_time_after_a_higher_number_is_named_once() {
    let mut origins = Origins::default();
    assert_eq!(origins.overtaken(&forward(3, 1, 0, 1)), [], "nothing is known of that origin");
    assert_eq!(origins.admit(&forward(3, 1, 0, 4)), Some(0));
    assert_eq!(origins.admit(&forward(3, 1, 10, 2)), Some(0));
    assert_eq!(origins.overtaken(&forward(3, 1, 5, 2)), core::iter::once(5..7).collect::<Vec<_>>());
    assert_eq!(origins.admit(&forward(3, 1, 5, 2)), Some(2));
    assert_eq!(origins.overtaken(&forward(3, 1, 5, 2)), [], "a second copy");
    assert_eq!(origins.overtaken(&forward(3, 1, 2, 20)), [4..5, 7..10], "what was proposed is left out");
    assert_eq!(origins.admit(&forward(3, 1, 30, 1)), Some(0));
    assert_eq!(origins.overtaken(&forward(3, 2, 20, 1)), [], "of another life");
    assert_eq!(origins.overtaken(&forward(4, 1, 20, 1)), [], "of another term");
    assert_eq!(origins.admit(&forward(3, 2, 1, 1)), Some(0));
    assert_eq!(origins.overtaken(&forward(3, 2, 20, 1)), []);
}

#[test]
fn the_gaps_that_are_remembered_are_few() {
    let mut origins = Origins::default();
    for first in 0..1_000 {
        assert_eq!(origins.admit(&forward(3, 1, 2 * first, 1)), Some(0));
    }
    assert_eq!(origins.overtaken(&forward(3, 1, 0, 2_000)).len(), 8);
}
