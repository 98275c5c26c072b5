use crate::codec::{DecodeError, Reader, Writer, checksum};
use crate::raft::log::entry::{ENTRY_DATA_BYTES_MAX, ENTRY_HEADER_BYTES, Entry, EntryKind};
use crate::raft::types::{LogId, LogIndex, Term};
use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq, prop_oneof};

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term::new(term), LogIndex::new(index))
}

fn decode(bytes: &[u8]) -> Result<Entry, DecodeError> {
    Entry::decode(&mut Reader::new(Bytes::copy_from_slice(bytes)))
}

/// An entry's bytes with a right checksum, whatever they say.
fn sealed(index: u64, term: u64, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.put_u32(u32::try_from(data.len()).unwrap());
    bytes.put_u64(index);
    bytes.put_u64(term);
    bytes.put_u8(kind);
    bytes.extend_from_slice(data);
    let sum = checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn the_layout_is_as_documented() {
    let entry = Entry::new(id(3, 9), EntryKind::Command, b"data");
    assert_eq!(&entry.encoded()[..], &sealed(9, 3, 1, b"data")[..]);
    assert_eq!(entry.encoded_bytes(), ENTRY_HEADER_BYTES + 4);
    assert_eq!((entry.id(), entry.kind(), &entry.data()[..]), (id(3, 9), EntryKind::Command, &b"data"[..]));
}

#[test]
fn entries_follow_each_other_without_separator() {
    let entries = [
        Entry::new(id(1, 1), EntryKind::Empty, b""),
        Entry::new(id(1, 2), EntryKind::Command, b"abc"),
        Entry::new(id(2, 3), EntryKind::Membership, b"m"),
        Entry::new(id(2, 4), EntryKind::Level, b"l"),
    ];
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.encoded().to_vec()).collect();
    let mut reader = Reader::new(Bytes::from(bytes));
    for entry in &entries {
        assert_eq!(Entry::decode(&mut reader).as_ref(), Ok(entry));
    }
    assert!(reader.is_empty());
}

#[test]
fn undefined_entries_are_refused() {
    assert!(matches!(
        decode(&sealed(1, 1, 4, b"")),
        Err(DecodeError::Invalid { what: "entry kind", value: 4 })
    ));
    assert!(matches!(decode(&sealed(0, 1, 1, b"")), Err(DecodeError::Invalid { .. })));
    assert!(matches!(decode(&sealed(1, 0, 1, b"")), Err(DecodeError::Invalid { .. })));
    assert!(matches!(decode(&[0; 24]), Err(DecodeError::Short { needs: ENTRY_HEADER_BYTES, has: 24, .. })));
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_its_bytes_are_asked_for() {
    let mut bytes = sealed(1, 1, 1, b"");
    let length = u32::try_from(ENTRY_DATA_BYTES_MAX).unwrap() + 1;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    assert!(matches!(decode(&bytes), Err(DecodeError::TooLong { what: "entry data", .. })));
    bytes[4..8].copy_from_slice(&(length - 1).to_le_bytes());
    assert!(matches!(decode(&bytes), Err(DecodeError::Short { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn entries_survive(
        term in 1..=u64::MAX, index in 1..=u64::MAX, data in prop::collection::vec(any::<u8>(), 0..100),
        kind in prop_oneof![
            Just(EntryKind::Empty),
            Just(EntryKind::Command),
            Just(EntryKind::Membership),
            Just(EntryKind::Level)
        ],
    ) {
        let entry = Entry::new(id(term, index), kind, &data);
        prop_assert_eq!(decode(entry.encoded()), Ok(entry));
    }

    #[test]
    fn cut_and_damaged_entries_are_refused(
        data in prop::collection::vec(any::<u8>(), 0..100), cut in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let entry = Entry::new(id(3, 9), EntryKind::Command, &data);
        let cut = cut.index(entry.encoded_bytes());
        prop_assert!(decode(&entry.encoded()[..cut]).is_err());
        let mut damaged = entry.encoded().to_vec();
        damaged[cut] ^= 1 << bit;
        prop_assert!(decode(&damaged).is_err());
    }
}
