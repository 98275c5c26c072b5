use crate::codec::{
    COUNTER_MAX, DecodeError, FRAME_HEADER_BYTES, Reader, Writer, checksum, checksum_parts, decode_frame,
    encode_frame, from_bytes, to_bytes,
};
use bytes::{Bytes, BytesMut};
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq};
use std::collections::BTreeMap;

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, |out| out.extend_from_slice(payload));
    out
}

#[test]
fn integers_are_little_endian_and_read_back() {
    let mut out = Vec::new();
    out.put_u8(1);
    out.put_u16(0x0203);
    out.put_u32(0x0405_0607);
    out.put_u64(0x0809_0a0b_0c0d_0e0f);
    out.put_u128(7);
    out.put_bytes(b"abc");
    assert_eq!(&out[..7], &[1, 3, 2, 7, 6, 5, 4]);
    let mut reader = Reader::new(Bytes::from(out));
    assert_eq!(reader.u8("a"), Ok(1));
    assert_eq!(reader.u16("b"), Ok(0x0203));
    assert_eq!(reader.u32("c"), Ok(0x0405_0607));
    assert_eq!(reader.u64("d"), Ok(0x0809_0a0b_0c0d_0e0f));
    assert_eq!(reader.u128("e"), Ok(7));
    assert_eq!(reader.remaining(), 7);
    assert_eq!(reader.bytes("f", 3), Ok(Bytes::from_static(b"abc")));
    assert!(reader.is_empty());
    assert_eq!(reader.finish("all"), Ok(()));
}

#[test]
fn reading_past_the_end_says_what_is_missing() {
    let mut reader = Reader::new(Bytes::from_static(&[1, 2, 3]));
    assert_eq!(reader.u64("term"), Err(DecodeError::Short { what: "term", needs: 8, has: 3 }));
    assert_eq!(reader.take("data", 4), Err(DecodeError::Short { what: "data", needs: 4, has: 3 }));
    assert_eq!(reader.remaining(), 3, "a failed read consumes nothing");
    assert_eq!(reader.u8("a"), Ok(1));
    assert_eq!(reader.finish("all"), Err(DecodeError::Trailing { what: "all", count: 2 }));
}

#[test]
fn byte_strings_are_limited_and_shared() {
    let mut out = Vec::new();
    out.put_bytes(b"abc");
    let bytes = Bytes::from(out);
    let read = |limit| Reader::new(bytes.clone()).bytes("key", limit);
    assert_eq!(read(2), Err(DecodeError::TooLong { what: "key", length: 3, limit: 2 }));
    assert!(bytes.as_ptr_range().contains(&read(3).unwrap().as_ptr()));
    let huge = Bytes::from_static(&[255; 6]);
    let expected = DecodeError::TooLong { what: "key", length: u64::from(u32::MAX), limit: 1 << 20 };
    assert_eq!(Reader::new(huge.clone()).bytes("key", 1 << 20), Err(expected));
    assert!(matches!(Reader::new(huge).bytes("key", usize::MAX), Err(DecodeError::Short { has: 2, .. })));
}

#[test]
fn counters_and_flags_have_ranges() {
    let counter = |value: u64| Reader::new(Bytes::copy_from_slice(&value.to_le_bytes())).counter("term");
    assert_eq!(counter(COUNTER_MAX), Ok(COUNTER_MAX));
    let above = COUNTER_MAX + 1;
    assert_eq!(counter(above), Err(DecodeError::Invalid { what: "term", value: above }));
    let flag = |value: u8| Reader::new(Bytes::copy_from_slice(&[value])).flag("done");
    assert_eq!((flag(0), flag(1)), (Ok(false), Ok(true)));
    assert_eq!(flag(2), Err(DecodeError::Invalid { what: "done", value: 2 }));
}

#[test]
fn the_checksum_is_the_crc_32_of_ieee() {
    assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    assert_eq!(checksum_parts(&[b"1234", b"", b"56789"]), 0xcbf4_3926);
}

#[test]
fn structures_fill_their_bytes_exactly() {
    let value = BTreeMap::from([(1_u64, String::from("one")), (2, String::from("two"))]);
    let encoded = to_bytes(&value);
    assert_eq!(from_bytes::<BTreeMap<u64, String>>("map", &encoded), Ok(value));
    let mut longer = encoded.clone();
    longer.push(0);
    assert_eq!(
        from_bytes::<BTreeMap<u64, String>>("map", &longer),
        Err(DecodeError::Trailing { what: "map", count: 1 })
    );
    let cut = from_bytes::<BTreeMap<u64, String>>("map", &encoded[..encoded.len() - 1]);
    assert!(matches!(cut, Err(DecodeError::Short { what: "map", .. })), "{cut:?}");
    assert!(matches!(from_bytes::<bool>("flag", &[2]), Err(DecodeError::Invalid { what: "flag", .. })));
}

#[test]
fn structures_that_claim_to_be_huge_are_refused_before_allocation() {
    let claim = u64::MAX.to_le_bytes();
    assert!(from_bytes::<Vec<u64>>("list", &claim).is_err());
    assert!(from_bytes::<String>("text", &claim).is_err());
    let claim = (1_u64 << 40).to_le_bytes();
    assert!(from_bytes::<Vec<u8>>("list", &claim).is_err());
    let long = vec![0; (1 << 20) + 1];
    assert!(matches!(from_bytes::<u8>("byte", &long), Err(DecodeError::TooLong { .. })));
}

#[test]
fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
    let mut stream = frame(b"first");
    encode_frame(&mut stream, |_| {});
    encode_frame(&mut stream, |out| out.extend_from_slice(b"third"));
    for step in 1..=stream.len() {
        let mut received = BytesMut::new();
        let mut frames = Vec::new();
        for part in stream.chunks(step) {
            received.extend_from_slice(part);
            while let Some(payload) = decode_frame(&mut received, 5).unwrap() {
                frames.push(payload);
            }
        }
        assert_eq!(frames, [&b"first"[..], b"", b"third"]);
        assert!(received.is_empty());
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused_by_its_header() {
    let bytes = frame(b"longer");
    let mut received = BytesMut::from(&bytes[..FRAME_HEADER_BYTES]);
    let expected = DecodeError::TooLong { what: "frame", length: 6, limit: 5 };
    assert_eq!(decode_frame(&mut received, 5), Err(expected));
    assert_eq!(decode_frame(&mut received, 6), Ok(None));
}

#[test]
fn a_damaged_length_is_refused_by_its_header() {
    // Otherwise the receiver waits for bytes that never come, and takes every later frame for them.
    for bit in 0..32 {
        let mut bytes = frame(b"payload");
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut received = BytesMut::from(&bytes[..FRAME_HEADER_BYTES]);
        assert!(decode_frame(&mut received, usize::MAX).is_err(), "bit {bit}");
    }
}

#[test]
fn a_run_of_zeros_is_no_frame() {
    let mut received = BytesMut::from(&[0; 64][..]);
    assert!(matches!(decode_frame(&mut received, 100), Err(DecodeError::Checksum { .. })));
}

#[test]
fn another_protocol_is_no_frame() {
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]] {
        assert!(decode_frame(&mut BytesMut::from(greeting), 1 << 20).is_err(), "{greeting:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// CRC-32 finds every burst of up to 32 bits, whatever it hits.
    #[test]
    fn damaged_frames_never_yield_another_payload(
        payload in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(),
        burst in 1_u32..=u32::MAX,
    ) {
        let mut bytes = frame(&payload);
        let at = at.index(bytes.len() - 3);
        for (byte, damage) in bytes[at..].iter_mut().zip(burst.to_le_bytes()) {
            *byte ^= damage;
        }
        let mut received = BytesMut::from(&bytes[..]);
        prop_assert!(!matches!(decode_frame(&mut received, 1 << 20), Ok(Some(_))));
    }

    #[test]
    fn arbitrary_streams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut received = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode_frame(&mut received, 1 << 20) {}
    }

    #[test]
    fn structures_from_arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_bytes::<BTreeMap<u64, (String, Option<Vec<u8>>)>>("map", &bytes);
    }

    #[test]
    fn frames_survive(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..5)) {
        let mut stream = Vec::new();
        for payload in &payloads {
            encode_frame(&mut stream, |out| out.extend_from_slice(payload));
        }
        let mut received = BytesMut::from(&stream[..]);
        for payload in &payloads {
            let decoded = decode_frame(&mut received, 100);
            prop_assert_eq!(decoded, Ok(Some(Bytes::copy_from_slice(payload))));
        }
        prop_assert_eq!(decode_frame(&mut received, 100), Ok(None));
    }
}
