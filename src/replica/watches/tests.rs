use super::{Waiting, Watches};
use crate::kv::{ChangesQuery, KeyRange, Revision};
use crate::raft::Time;
use crate::replica::api::RequestId;
use alloc::format;
use alloc::vec::Vec;

fn watching(range: KeyRange) -> Waiting {
    let query = ChangesQuery { range, from: Revision(1), puts: true, deletions: true, previous: false };
    Waiting { deadline: Time::new(1), by: None, query }
}

#[test]
fn many_ranges_and_many_keys_are_not_compared_one_by_one() {
    let mut watches = Watches::default();
    for number in 0..1_000 {
        watches.insert(RequestId(number), watching(KeyRange::prefix(format!("{number:04}/"))));
    }
    let keys: Vec<_> = (0..10_000).map(|number| format!("{:04}/{number:05}", number / 20)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let mut looks = 0;
    let found = watches.ranges_with(&keys, &mut looks);
    assert!(found.into_iter().eq((0..500).map(RequestId)));
    assert!(looks < 1_000 * 20, "{looks} looks at keys");
}

#[test]
fn a_range_is_touched_by_a_key_in_it_and_by_no_other() {
    let mut watches = Watches::default();
    let between =
        |start: &'static str, end: &'static str| KeyRange { start: start.into(), end: Some(end.into()) };
    let ranges = [
        between("b", "d"),
        between("b", "d"),
        KeyRange::prefix("c/"),
        KeyRange { start: "d".into(), end: None },
        KeyRange::all(),
    ];
    for (number, range) in (0..).zip(ranges) {
        watches.insert(RequestId(number), watching(range));
    }
    let with = |watches: &Watches, keys: &[&[u8]]| {
        let mut found = watches.ranges_with(keys, &mut 0);
        found.sort_unstable();
        found.into_iter().map(|request| request.0).collect::<Vec<_>>()
    };
    assert_eq!(with(&watches, &[]), [] as [u64; 0]);
    assert_eq!(with(&watches, &[b"a"]), [4]);
    assert_eq!(with(&watches, &[b"a", b"c"]), [0, 1, 4]);
    assert_eq!(with(&watches, &[b"a", b"c/x", b"z"]), [0, 1, 2, 3, 4]);
    assert_eq!(with(&watches, &[b"d"]), [3, 4], "an end is not in its range");
    watches.take(RequestId(0));
    watches.take(RequestId(4));
    assert_eq!(with(&watches, &[b"c"]), [1]);
    watches.take(RequestId(1));
    assert_eq!(with(&watches, &[b"c"]), [] as [u64; 0]);
}
