//! Random commands and queries over few keys, so that they meet each other.

use crate::kv::{
    ChangesQuery, Command, Compare, CompareOrder, Detail, KeyRange, LeaseId, Op, Put, RangeQuery, Revision,
    Settings, Target, Txn, TxnOp,
};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_vec;
use proptest::option::weighted;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};
use proptest::sample::select;

pub(super) const KEYS: [&[u8]; 12] =
    [b"a", b"a/", b"a/b", b"a/b/c", b"a/c", b"ab", b"b", b"b\0", b"c/d", b"z", b"\xff", b"\xff\xff"];

pub(super) fn any_key() -> impl Strategy<Value = Bytes> {
    select(&KEYS[..]).prop_map(Bytes::from_static)
}

fn any_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => any_vec(any::<u8>(), 0..20).prop_map(Bytes::from),
        2 => select(&["7", " 12\n", "-3", "9223372036854775807", "x"][..]).prop_map(Bytes::from),
        1 => (any::<u8>(), 505..530usize).prop_map(|(fill, length)| Bytes::from(vec![fill; length])),
    ]
}

fn any_lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![3 => Just(0), 2 => 1..5u64].prop_map(LeaseId)
}

pub(super) fn any_range() -> BoxedStrategy<KeyRange> {
    let between = (any_key(), any_key()).prop_map(|(one, other)| {
        let (start, end) = if one < other { (one, other) } else { (other, one) };
        if start == end { KeyRange::one(start) } else { KeyRange { start, end: Some(end) } }
    });
    prop_oneof![
        4 => any_key().prop_map(KeyRange::one),
        2 => any_key().prop_map(KeyRange::prefix),
        3 => between,
        1 => any_key().prop_map(|start| KeyRange { start, end: None }),
        1 => any_key().prop_map(|end| KeyRange { start: Bytes::new(), end: Some(end) }),
        1 => Just(KeyRange::all()),
    ]
    .boxed()
}

fn any_revision() -> impl Strategy<Value = Revision> {
    (0..40u64).prop_map(Revision)
}

fn any_put() -> impl Strategy<Value = Put> {
    (any_key(), any_value(), any_lease()).prop_map(|(key, value, lease)| Put { key, value, lease })
}

pub(super) fn any_query() -> BoxedStrategy<RangeQuery> {
    let detail = select(&[Detail::Values, Detail::Values, Detail::Keys, Detail::Count][..]);
    let delimiter = weighted(0.3, select(&["/", "b", "/b", ""][..]).prop_map(Bytes::from));
    let rest = (weighted(0.2, any_key()), weighted(0.4, any_revision()), 0..6usize);
    (any_range(), rest, detail, delimiter, any::<bool>())
        .prop_map(|(range, (resume, at, limit), detail, delimiter, count)| RangeQuery {
            range,
            resume,
            at,
            limit,
            detail,
            delimiter,
            count,
        })
        .boxed()
}

pub(super) fn any_changes_query() -> impl Strategy<Value = ChangesQuery> {
    (any_range(), any::<(bool, bool, bool)>()).prop_map(|(range, (puts, deletions, previous))| ChangesQuery {
        range,
        from: Revision(0),
        puts: puts || !deletions,
        deletions,
        previous,
    })
}

fn any_compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        any_value().prop_map(Target::Value),
        (0..4u64).prop_map(Target::Version),
        any_revision().prop_map(Target::CreateRevision),
        any_revision().prop_map(Target::ModRevision),
        any_lease().prop_map(Target::Lease),
    ];
    let orders = [CompareOrder::Equal, CompareOrder::NotEqual, CompareOrder::Less, CompareOrder::Greater];
    (any_range(), target, select(orders.to_vec())).prop_map(|(range, target, order)| Compare {
        range,
        target,
        order,
    })
}

fn any_txn(depth: usize) -> BoxedStrategy<Txn> {
    let plain = prop_oneof![
        4 => any_put().prop_map(TxnOp::Put),
        2 => any_range().prop_map(TxnOp::Delete),
        3 => any_query().prop_map(TxnOp::Get),
    ];
    let step = if depth == 0 {
        plain.boxed()
    } else {
        prop_oneof![
            5 => plain,
            1 => any_txn(depth - 1).prop_map(|txn| TxnOp::Txn(Box::new(txn))),
        ]
        .boxed()
    };
    (any_vec(any_compare(), 0..3), any_vec(step.clone(), 0..4), any_vec(step, 0..4))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
        .boxed()
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let history_bytes = select(&[0, 1, 300, 1_000, 5_000, 40_000, 64 << 20][..]);
    let quota_bytes = select(&[0, 60, 300, 1_000, 4 << 30, 4 << 30][..]);
    let answers_bytes = select(&[0, 160, 200, 400, 1_000, 16 << 20][..]);
    (history_bytes, quota_bytes, answers_bytes).prop_map(|(history_bytes, quota_bytes, answers_bytes)| {
        Settings { history_bytes, quota_bytes, answers_bytes }
    })
}

pub(super) fn any_op() -> BoxedStrategy<Op> {
    prop_oneof![
        10 => any_put().prop_map(Op::Put),
        5 => any_range().prop_map(Op::Delete),
        6 => any_txn(2).prop_map(|txn| Op::Txn(Box::new(txn))),
        3 => (any_key(), select(&[1, -1, 5, i64::MAX, i64::MIN][..]))
            .prop_map(|(key, by)| Op::Increment { key, by }),
        2 => any_revision().prop_map(Op::Compact),
        4 => (0..5u64, prop_oneof![0..10u64, Just(u64::MAX)])
            .prop_map(|(id, ttl_seconds)| Op::Grant { id: LeaseId(id), ttl_seconds }),
        2 => (0..5u64).prop_map(|id| Op::Revoke(LeaseId(id))),
        2 => (1..3u64, any_vec((1..5u64, 1..8u64), 0..4)).prop_map(|(term, leases)| Op::Expire {
            term,
            leases: leases.into_iter().map(|(id, grant)| (LeaseId(id), grant)).collect(),
        }),
        1 => any_settings().prop_map(Op::Configure),
    ]
    .boxed()
}

/// Commands, some of them repeated, some under a name that another one had.
pub(super) fn any_commands(most: usize) -> impl Strategy<Value = Vec<Command>> {
    let name = weighted(0.3, select(&["1", "2", "a longer idempotency key"][..]).prop_map(Bytes::from));
    let one = (name, weighted(0.5, any_revision()), any_op()).prop_map(|(idempotency_key, since, op)| {
        let since = since.filter(|_| idempotency_key.is_some());
        Command { idempotency_key, since, by: None, op }
    });
    let one = (one, weighted(0.1, any::<proptest::sample::Index>()));
    any_vec(one, 1..most).prop_map(|commands| {
        let mut all: Vec<Command> = Vec::with_capacity(commands.len());
        for (command, again) in commands {
            let again = again.filter(|_| !all.is_empty()).map(|again| all[again.index(all.len())].clone());
            all.push(again.unwrap_or(command));
        }
        all
    })
}
