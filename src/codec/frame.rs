//! Frames: how messages stand in a byte stream.
//!
//! ```text
//! length u32 | checksum of the length u32 | checksum u32 | payload (length bytes)
//! ```
//! The last checksum covers the length and the payload. The length has a checksum of its own.
//! Without it the receiver could not tell a damaged length from a long frame: it would wait for the
//! rest, and swallow every later frame. A run of zeros is no frame. A stream that yields an error
//! is beyond repair: where the next frame starts is unknown, and the connection must be closed.

use crate::codec::wire::{DecodeError, checksum, checksum_parts};
use alloc::vec::Vec;
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 12;

/// Appends a frame to `out`; `payload` appends its content. Frames may be appended one after the
/// other, to be sent in one write.
///
/// # Panics
/// If the payload is longer than `u32::MAX` bytes. Senders keep far below that.
pub fn encode_frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    payload(out);
    let (header, payload) = out[start..].split_at_mut(FRAME_HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("senders keep frames far below 4 GiB").to_le_bytes();
    let sum = checksum_parts(&[&length, payload]);
    header[..4].copy_from_slice(&length);
    header[4..8].copy_from_slice(&checksum(&length).to_le_bytes());
    header[8..].copy_from_slice(&sum.to_le_bytes());
}

/// Takes the first frame's payload from the front of `received`, shared with it, not copied. `None`
/// while the frame is incomplete: receive more and ask again. `limit` bounds the payload; a longer
/// one is refused by its header alone.
///
/// # Errors
/// [`DecodeError::TooLong`] or [`DecodeError::Checksum`]; the stream is of no use afterwards.
pub fn decode_frame(received: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, DecodeError> {
    let Some((length_bytes, rest)) = received.split_first_chunk::<4>() else { return Ok(None) };
    let Some((length_sum, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    verify(checksum(length_bytes), u32::from_le_bytes(*length_sum))?;
    let length = u32::from_le_bytes(*length_bytes) as usize;
    if length > limit {
        return Err(DecodeError::TooLong { what: "frame", length: length as u64, limit: limit as u64 });
    }
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    verify(checksum_parts(&[length_bytes, payload]), u32::from_le_bytes(*sum))?;
    received.advance(FRAME_HEADER_BYTES);
    Ok(Some(received.split_to(length).freeze()))
}

fn verify(found: u32, expected: u32) -> Result<(), DecodeError> {
    if found == expected { Ok(()) } else { Err(DecodeError::Checksum { what: "frame", found, expected }) }
}
