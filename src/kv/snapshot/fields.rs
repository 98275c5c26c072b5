//! Fields of a snapshot's records, as they come.

use crate::codec::DecodeError;

/// Fields that are read off the front of a record that may not be whole.
pub(super) struct Fields<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes))
    }

    pub(super) fn u64s<const N: usize>(&mut self) -> Option<[u64; N]> {
        let bytes = self.take(8 * N)?;
        let mut numbers = [0; N];
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
            *number = u64::from_le_bytes(*bytes.first_chunk()?);
        }
        Some(numbers)
    }
}

/// A length that is read, if it is within its limit.
pub(super) fn checked_length(what: &'static str, length: u32, limit: usize) -> Result<usize, DecodeError> {
    match usize::try_from(length) {
        Ok(fits) if fits <= limit => Ok(fits),
        _ => Err(DecodeError::TooLong { what, length: u64::from(length), limit: limit as u64 }),
    }
}
