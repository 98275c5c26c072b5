//! The one place that names bincode: structures that are written rarely and read whole.

use crate::codec::wire::DecodeError;
use alloc::vec::Vec;
use serde::{Serialize, de::DeserializeOwned};

/// A structure of at most this many bytes is decoded; larger input is refused before it is parsed.
const STRUCTURE_BYTES_MAX: usize = 1 << 20;

fn config<const BYTES_MAX: usize>() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<BYTES_MAX>,
> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<BYTES_MAX>()
}

/// Encodes a structure (integers little-endian, of fixed width).
///
/// # Panics
/// Only if `value` refuses to be serialized, which plain data never does.
#[must_use]
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config::<STRUCTURE_BYTES_MAX>())
        .expect("plain data always serializes")
}

/// Decodes a structure that fills `bytes` exactly. `what` names it in the error.
///
/// # Errors
/// [`DecodeError`] for anything that [`to_bytes`] does not produce.
pub fn from_bytes<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    from_bytes_within::<T, STRUCTURE_BYTES_MAX>(what, bytes)
}

/// The same for a structure of at most `BYTES_MAX` bytes, where 1 MiB is too short.
///
/// # Errors
/// [`DecodeError`] for anything that [`to_bytes`] does not produce.
pub fn from_bytes_within<T: DeserializeOwned, const BYTES_MAX: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    if bytes.len() > BYTES_MAX {
        let (length, limit) = (bytes.len() as u64, BYTES_MAX as u64);
        return Err(DecodeError::TooLong { what, length, limit });
    }
    match bincode::serde::decode_from_slice(bytes, config::<BYTES_MAX>()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(DecodeError::Trailing { what, count: bytes.len() - used }),
        Err(bincode::error::DecodeError::UnexpectedEnd { additional }) => {
            Err(DecodeError::Short { what, needs: bytes.len().saturating_add(additional), has: bytes.len() })
        }
        Err(_) => Err(DecodeError::Invalid { what, value: bytes.len() as u64 }),
    }
}
