use crate::history::tests::{assert_linearizable, got, operation, set, violation};
use crate::history::{Kind, Operation};

fn at(revision: u64, operation: Operation) -> Operation {
    Operation { revision: Some(revision), ..operation }
}

fn of_key(key: &'static str, operation: Operation) -> Operation {
    Operation { key: key.into(), ..operation }
}

#[test]
fn revisions_that_ascend_are_accepted() {
    assert_linearizable(&[
        at(1, operation(1, set("a"), 0, 1)),
        at(1, operation(1, got("a"), 2, 3)),
        // Concurrent: either order.
        at(4, of_key("x", operation(1, set("c"), 10, 20))),
        at(3, of_key("y", operation(2, set("b"), 15, 25))),
        at(3, of_key("y", operation(2, got("b"), 30, 40))),
        of_key("z", operation(2, Kind::Get(None), 50, 60)),
    ]);
}

#[test]
fn wrong_revisions_are_violations() {
    let cases = [
        (
            "two sets made the same revision",
            at(1, operation(1, set("a"), 0, 10)),
            at(1, of_key("x", operation(2, set("b"), 0, 10))),
        ),
        (
            "one revision stands for two different sets",
            at(1, of_key("x", operation(1, set("b"), 0, 10))),
            at(1, of_key("y", operation(2, set("b"), 0, 10))),
        ),
        (
            "a set made a revision that is not above one observed before it was called",
            at(2, operation(1, set("a"), 0, 10)),
            at(1, of_key("x", operation(2, set("b"), 11, 20))),
        ),
    ];
    for (reason, one, mut other) in cases {
        if reason.starts_with("one revision") {
            other.kind = got("b");
            let unknown_set = of_key("y", operation(3, set("b"), 0, None));
            assert_eq!(violation(&[unknown_set, one, other]).reason, reason);
        } else {
            let found = violation(&[one.clone(), other.clone()]);
            assert_eq!((found.reason, found.operations), (reason, [one, other].to_vec()));
        }
    }
}

#[test]
fn a_get_must_not_see_an_older_revision_even_of_an_equal_value() {
    let operations = [
        at(1, operation(1, set("a"), 0, 1)),
        at(2, operation(1, set("a"), 2, 3)),
        at(1, operation(2, got("a"), 4, 5)),
    ];
    let found = violation(&operations);
    assert_eq!(found.reason, "a get saw an older revision than was observed before it was called");
}
