//! What it costs to put an append on the wire and to take it off again.

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use infinitystore::codec::{decode_frame, encode_frame};
use infinitystore::raft::{
    AppendClock, Body, Entry, EntryKind, LogId, LogIndex, Message, NodeId, ReadRound, Session, Term,
};
use std::hint::black_box;

const ENTRIES: u64 = 64;
const DATA_BYTES: usize = 256;
const FRAME_BYTES_MAX: usize = 1 << 20;

/// An append of 64 entries of 256 bytes.
fn append() -> Message {
    let data = [7_u8; DATA_BYTES];
    let entry = |index| Entry::new(LogId::new(Term::new(3), LogIndex::new(index)), EntryKind::Command, &data);
    Message {
        from: NodeId::new(1),
        to: NodeId::new(2),
        term: Term::new(3),
        body: Body::AppendEntries {
            session: Session::new(1),
            prev: LogId::new(Term::new(3), LogIndex::new(100)),
            acknowledged: LogId::ZERO,
            entries: (101..=100 + ENTRIES).map(entry).collect(),
            commit: LogIndex::new(99),
            round: ReadRound::ZERO,
            clock: AppendClock::default(),
        },
    }
}

fn codec(criterion: &mut Criterion) {
    let message = append();
    let mut encoded = Vec::new();
    message.encode(&mut encoded);
    let encoded = Bytes::from(encoded);
    let mut framed = Vec::new();
    encode_frame(&mut framed, |out| message.encode(out));

    let mut group = criterion.benchmark_group("append of 64 entries of 256 bytes");
    group.throughput(Throughput::Elements(ENTRIES));
    let mut out = Vec::with_capacity(framed.len());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&message).encode(&mut out);
        });
    });
    group.bench_function("encode in a frame", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode_frame(&mut out, |out| black_box(&message).encode(out));
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| Message::decode(black_box(encoded.clone())).expect("just encoded"));
    });
    group.bench_function("decode from a frame", |bencher| {
        bencher.iter_batched(
            || BytesMut::from(&framed[..]),
            |mut received| {
                let payload = decode_frame(&mut received, FRAME_BYTES_MAX).expect("whole").expect("complete");
                Message::decode(payload).expect("just encoded")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
