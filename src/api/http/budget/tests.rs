use crate::api::http::account::Account;
use crate::api::http::budget::{Budget, LARGE_BYTES, MemoryReservation, MemoryUse};
use std::sync::Arc;

const BYTES_MAX: usize = 16 << 20;

/// As many parts of that size as a caller gets.
fn take_all(budget: &Arc<Budget>, account: &Arc<Account>, bytes: usize) -> Vec<MemoryReservation> {
    std::iter::from_fn(|| budget.reserve(account, MemoryUse::Request, bytes)).collect()
}

#[test]
fn one_caller_cannot_take_all_memory_whatever_the_parts_are() {
    for bytes in [LARGE_BYTES, 1 << 10, 1 << 20] {
        let budget = Budget::new(BYTES_MAX);
        let (greedy, modest) = (Arc::default(), Arc::default());
        let taken = take_all(&budget, &greedy, bytes);
        let sixteenths = if bytes > LARGE_BYTES { 11 } else { 12 };
        assert_eq!(taken.len() * bytes, BYTES_MAX / 16 * sixteenths, "parts of {bytes} bytes");
        let small = take_all(&budget, &modest, 1 << 10);
        assert!(small.len() << 10 >= BYTES_MAX / 8, "another one gets {} KiB", small.len());
        drop(small);
        let large = budget.reserve(&modest, MemoryUse::Request, 1 << 20);
        assert!(large.is_some(), "another one gets a large part beside parts of {bytes} bytes");
        drop((taken, large));
        assert_eq!(budget.used(), 0);
        assert_eq!(take_all(&budget, &greedy, bytes).len() * bytes, BYTES_MAX / 16 * sixteenths);
    }
}

#[test]
fn a_part_that_grows_and_shrinks_is_its_callers() {
    let budget = Budget::new(BYTES_MAX);
    let account = Arc::new(Account::default());
    let mut part = budget.reserve(&account, MemoryUse::Request, 1 << 10).expect("there is room");
    assert!(part.resize(8 << 20));
    assert!(!part.resize(12 << 20), "it is more than one caller gets of large parts");
    assert!(part.resize(1 << 10));
    assert!(budget.has_room(&account, MemoryUse::Answer, 11 << 20));
    assert!(!budget.has_room(&account, MemoryUse::Answer, 12 << 20));
    drop(part);
    assert_eq!((budget.used(), budget.refused()), (0, 2));
}

#[test]
fn what_callers_share_is_in_it_once_and_counts_for_each() {
    let budget = Budget::new(BYTES_MAX);
    let [first, second] = [(); 2].map(|()| Arc::new(Account::default()));
    let page = budget.reserve(&first, MemoryUse::Answer, 8 << 20).expect("there is room").shared();
    let beside = budget.reserve(&first, MemoryUse::Answer, 2 << 20).expect("it is nobody's now").shared();
    let part = budget.share(&second, MemoryUse::Answer, 8 << 20).expect("it has nothing else");
    assert_eq!(budget.used(), 10 << 20);
    // Now large parts of all others take as much as a caller may have that has much.
    let other = budget.reserve(&Arc::default(), MemoryUse::Answer, (1 << 20) + 1).expect("it is small");
    assert!(budget.reserve(&second, MemoryUse::Answer, 100 << 10).is_none(), "it holds a page");
    assert!(budget.share(&second, MemoryUse::Answer, 2 << 20).is_none(), "of what is there, too");
    assert!(budget.share(&first, MemoryUse::Answer, 2 << 20).is_some(), "the first one holds none");
    assert!(budget.holds_much(&second, 1) && !budget.holds_much(&first, 1));
    assert!(!budget.holds_much(&second, 3 << 20), "that is much for anybody");
    drop(part);
    assert!(budget.reserve(&second, MemoryUse::Answer, 100 << 10).is_some());
    drop((page, beside, other));
    assert_eq!((budget.used(), budget.refused()), (0, 2));
    let as_much = budget.reserve(&second, MemoryUse::Answer, budget.answer_bytes_max());
    assert!(as_much.is_some(), "all that was shared is given back");
}
