//! Frames: how messages stand in a byte stream.
//!
//! ```text
//! length u32 | checksum u32 | payload (length bytes)
//! ```
//! The checksum covers the length and the payload, so that a run of zeros is no frame. A stream that yields an error
//! is beyond repair: where the next frame starts is unknown, and the connection must be closed.

use crate::codec::wire::{DecodeError, checksum_parts};
use alloc::vec::Vec;
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Appends a frame to `out`; `payload` appends its content. Frames may be appended one after the other, to be sent in
/// one write.
///
/// # Panics
/// If the payload is longer than `u32::MAX` bytes: whoever sends keeps far below that.
pub fn encode_frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    payload(out);
    let (header, payload) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("senders keep frames far below 4 GiB").to_le_bytes();
    let sum = checksum_parts(&[&length, payload]);
    header[..4].copy_from_slice(&length);
    header[4..].copy_from_slice(&sum.to_le_bytes());
}

/// Takes the first frame's payload from the front of `received`, shared with it, not copied. `None` while the frame is
/// incomplete: receive more and ask again. `limit` bounds the payload; a longer one is refused by its header alone.
///
/// # Errors
/// [`DecodeError::TooLong`] or [`DecodeError::Checksum`]; the stream is of no use afterwards.
pub fn decode_frame(received: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, DecodeError> {
    let Some((header, rest)) = received.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let length_bytes = [l0, l1, l2, l3];
    let length = u32::from_le_bytes(length_bytes) as usize;
    if length > limit {
        return Err(DecodeError::TooLong { what: "frame", length: length as u64, limit: limit as u64 });
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let expected = u32::from_le_bytes([c0, c1, c2, c3]);
    let found = checksum_parts(&[&length_bytes, payload]);
    if found != expected {
        return Err(DecodeError::Checksum { what: "frame", found, expected });
    }
    received.advance(FRAME_HEADER_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}
