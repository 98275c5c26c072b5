//! What a peer may send: frames and messages decode or are refused, never panic, and what decodes
//! encodes to something that decodes to the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use infinitystore::codec::{decode_frame, encode_frame};
use infinitystore::replica::PeerMessage;
use libfuzzer_sys::fuzz_target;

const FRAME_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((mode, input)) = input.split_first() else { return };
    if mode % 2 == 0 {
        let mut received = BytesMut::from(input);
        while let Ok(Some(payload)) = decode_frame(&mut received, FRAME_BYTES_MAX) {
            check(payload);
        }
    } else {
        // Checksums keep random bytes out of the message decoder: here they are right.
        let mut received = BytesMut::new();
        let mut framed = Vec::new();
        encode_frame(&mut framed, |out| out.extend_from_slice(input));
        received.extend_from_slice(&framed);
        let payload =
            decode_frame(&mut received, FRAME_BYTES_MAX).expect("a frame decodes").expect("it is whole");
        assert_eq!(payload, input);
        check(payload);
    }
});

fn check(payload: Bytes) {
    if let Ok(message) = PeerMessage::decode(payload) {
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(PeerMessage::decode(Bytes::from(encoded)).as_ref(), Ok(&message));
    }
}
