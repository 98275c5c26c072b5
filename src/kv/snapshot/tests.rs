use crate::codec::{DecodeError, FeatureLevel};
use crate::kv::snapshot::PIECE_BYTES;
use crate::kv::{Command, KEY_BYTES_MAX, Op, Settings, Store, StoreReader, VALUE_BYTES_MAX};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::Index;

fn store_of(keys: usize, value: &[u8]) -> Store {
    let mut store = Store::new();
    for number in 0..keys {
        let key = Bytes::from(format!("key {number:06}"));
        apply(&mut store, Op::set(key, Bytes::copy_from_slice(value)));
    }
    store
}

fn apply(store: &mut Store, op: Op) {
    store.apply(1, &op.into());
}

fn configure(store: &mut Store, history_bytes: u64) {
    apply(store, Op::Configure(Settings { history_bytes, ..*store.settings() }));
}

fn body(store: &Store) -> Vec<u8> {
    store.snapshot_pieces().flatten().collect()
}

fn read(pieces: &[&[u8]]) -> Result<Store, DecodeError> {
    let mut reader = StoreReader::new();
    for piece in pieces {
        reader.push(piece)?;
    }
    reader.finish()
}

fn assert_same(one: &Store, other: &Store) {
    assert!(one.iter().eq(other.iter()));
    assert_eq!(one.state_hash(), other.state_hash());
    assert_eq!(one.revision(), other.revision());
    assert_eq!(one.bytes(), other.bytes());
    assert_eq!(one.len(), other.len());
}

#[test]
fn an_empty_store_survives() {
    let mut store = Store::new();
    assert_same(&read(&[&body(&store)]).unwrap(), &store);
    apply(&mut store, Op::set(Bytes::from_static(b"k"), Bytes::new()));
    apply(&mut store, Op::delete(Bytes::from_static(b"k")));
    assert_same(&read(&[&body(&store)]).unwrap(), &store);
}

#[test]
fn pieces_are_of_some_64_kib() {
    let store = store_of(5_000, &[7; 256]);
    let lengths: Vec<usize> = store.snapshot_pieces().map(|piece| piece.len()).collect();
    let (_, whole) = lengths.split_last().unwrap();
    assert!(whole.len() > 20);
    let longest = PIECE_BYTES + 33 * 1024;
    assert!(whole.iter().all(|length| (PIECE_BYTES..longest).contains(length)), "{lengths:?}");
}

#[test]
fn the_longest_keys_and_values_survive() {
    let mut store = store_of(3, b"v");
    apply(&mut store, Op::set(vec![9; KEY_BYTES_MAX], vec![8; VALUE_BYTES_MAX]));
    assert_same(&read(&[&body(&store)]).unwrap(), &store);
}

#[test]
fn a_reader_holds_no_more_than_a_record_and_a_piece() {
    for (history_bytes, limit) in [(0, 2_000), (64 << 20, 80_000)] {
        let mut store = store_of(2_000, &[7; 256]);
        configure(&mut store, history_bytes);
        let body = body(&store);
        let mut reader = StoreReader::new();
        let mut most = 0;
        for piece in body.chunks(100) {
            reader.push(piece).unwrap();
            most = most.max(reader.pending.capacity());
        }
        assert!(most < limit, "{most} bytes held back");
        assert_same(&reader.finish().unwrap(), &store);
    }
}

#[test]
fn every_cut_is_found() {
    let body = body(&store_of(5, b"value"));
    for end in 0..body.len() {
        let what = read(&[&body[..end]]).unwrap_err();
        assert!(matches!(what, DecodeError::Short { what: "snapshot body", .. }), "cut at {end}: {what}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let good = body(&store_of(3, b"value"));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&[&bad]).is_err(), "bit {bit} was flipped, and the body was accepted");
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let good = body(&store_of(3, b"value"));
    let trailing = Err(DecodeError::Trailing { what: "snapshot body", count: 1 });
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(read(&[&longer]).map(drop), trailing);
    assert_eq!(read(&[&good, &[0]]).map(drop), trailing);
    assert!(read(&[&good, &[]]).is_ok());
}

/// Bytes before the first key: format and state.
const STATE_END: usize = 1 + 1 + 7 * 8;
/// Bytes of a key of one byte without a value.
const KEY_BYTES: usize = 1 + 4 * 8 + 3 * 4 + 1;

#[test]
fn refuses_keys_out_of_order_or_twice() {
    let mut store = Store::new();
    configure(&mut store, 0);
    apply(&mut store, Op::set("a", ""));
    apply(&mut store, Op::set("b", ""));
    let body = body(&store);
    let (state, keys) = body.split_at(STATE_END);
    let (a, b) = (&keys[..KEY_BYTES], &keys[KEY_BYTES..2 * KEY_BYTES]);
    assert!(read(&[state, a, b, &keys[2 * KEY_BYTES..]]).is_ok());
    for [one, other] in [[a, a], [b, a]] {
        let what = read(&[state, one, other]).unwrap_err();
        assert_eq!(what, DecodeError::Invalid { what: "order of the snapshot's records", value: 2 });
    }
}

#[test]
fn refuses_another_format_and_lengths_past_the_limits() {
    let what = read(&[&[1]]).unwrap_err();
    assert_eq!(what, DecodeError::Invalid { what: "format of the snapshot body", value: 1 });
    let mut long = body(&store_of(1, b""));
    let at = STATE_END + 1 + 4 * 8 + 4;
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let limit = KEY_BYTES_MAX as u64;
    assert_eq!(
        read(&[&long]).unwrap_err(),
        DecodeError::TooLong { what: "key", length: u64::from(u32::MAX), limit }
    );
}

proptest! {
    #[test]
    fn survives_a_round_trip_while_the_original_changes(
        sets in any_vec((any::<u8>(), any_vec(any::<u8>(), 0..3_000)), 0..80),
        cuts in any_vec(any::<Index>(), 0..20),
    ) {
        let mut store = Store::new();
        for (key, value) in sets {
            apply(&mut store, Op::set(vec![key], value));
        }
        let captured = store.clone();
        let expected = body(&captured);
        let mut stream = Vec::new();
        for piece in captured.snapshot_pieces() {
            stream.extend(piece);
            apply(&mut store, Op::set(vec![1], Bytes::from_static(b"later")));
            apply(&mut store, Op::delete(vec![2]));
        }
        prop_assert_eq!(&stream, &expected);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        assert_same(&read(&pieces).unwrap(), &captured);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in any_vec(any::<u8>(), 0..300),
        valid_start in any::<bool>(),
        chunk in 1..50usize,
    ) {
        let mut bytes = bytes;
        if valid_start {
            bytes.splice(0..0, body(&store_of(2, b"v"))[..60].iter().copied());
        }
        let pieces: Vec<&[u8]> = bytes.chunks(chunk).collect();
        prop_assert!(read(&pieces).is_err());
    }

    #[test]
    fn damaged_bodies_never_panic(places in any_vec((any::<Index>(), any::<u8>()), 1..8)) {
        let good = body(&store_of(20, b"value"));
        let mut bad = good.clone();
        for (place, byte) in places {
            let place = place.index(bad.len());
            bad[place] = byte;
        }
        prop_assert_eq!(read(&[&bad]).is_ok(), bad == good);
    }
}

#[test]
fn the_level_is_kept_and_the_oldest_leaves_the_bytes_as_they_were() {
    let mut store = store_of(3, b"value");
    let old = body(&store);
    assert_eq!(old[0], 5, "a release of the oldest level reads it");
    assert_eq!(read(&[&old]).unwrap().level(), FeatureLevel::OLDEST);
    let hash = store.state_hash();
    assert!(store.raise_level(FeatureLevel::new(9)));
    assert_ne!(store.state_hash(), hash, "members whose levels differ are noticed");
    assert!(!store.raise_level(FeatureLevel::new(8)), "it never goes back");
    let new = body(&store);
    assert_eq!(new[0], 6);
    for cut in 0..new.len().min(100) {
        let again = read(&[&new[..cut], &new[cut..]]).unwrap();
        assert_same(&again, &store);
        assert_eq!(again.level(), FeatureLevel::new(9));
    }
}

#[test]
fn a_level_that_the_older_format_has_is_refused_in_the_newer_one() {
    let mut store = store_of(1, b"value");
    store.raise_level(FeatureLevel::NEWEST);
    let mut body = body(&store);
    body[2..10].copy_from_slice(&u64::from(FeatureLevel::OLDEST.get()).to_le_bytes());
    let value = u64::from(FeatureLevel::OLDEST.get());
    assert_eq!(read(&[&body]).unwrap_err(), DecodeError::Invalid { what: "level of the snapshot", value });
}

#[test]
fn numbers_of_answers_that_cannot_be_are_refused() {
    let mut store = store_of(3, b"value");
    let named = |name: &'static str| Command { idempotency_key: Some(name.into()), ..Op::delete("k").into() };
    store.apply(1, &named("before"));
    store.raise_level(FeatureLevel::NEWEST);
    store.apply(1, &named("behind"));
    let good = body(&store);
    assert_same(&read(&[&good]).unwrap(), &store);
    // Format, tag, level, and four numbers before.
    let at = 1 + 1 + 5 * 8;
    assert_eq!(good[at..at + 16], [2u64.to_le_bytes(), 4u64.to_le_bytes()].concat());
    for (place, value) in [(at, 0), (at, 4), (at, u64::MAX), (at + 8, 5), (at + 8, u64::MAX)] {
        let mut bad = good.clone();
        bad[place..place + 8].copy_from_slice(&value.to_le_bytes());
        let what =
            if place == at { "number of the first dated answer" } else { "revision of forgotten answers" };
        assert_eq!(read(&[&bad]).unwrap_err(), DecodeError::Invalid { what, value });
    }
    // Where each of the two is read as the other kind, the hash or the answer does not fit.
    for dated_from in [1u64, 3] {
        let mut bad = good.clone();
        bad[at..at + 8].copy_from_slice(&dated_from.to_le_bytes());
        assert!(read(&[&bad]).is_err(), "{dated_from}");
    }
}
