//! Integers, byte strings and checksums over [`Bytes`].

use alloc::vec::Vec;
use bytes::Bytes;

/// Counters (terms, indices, offsets) above this are refused where they come in, so that counting
/// on from them cannot overflow. No correct node counts that far.
pub const COUNTER_MAX: u64 = 1 << 62;

/// Why bytes could not be decoded. Carries what was read, for the log line of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the format needs.
    #[error("{what} is cut short: needs {needs} bytes, {has} are left")]
    Short {
        /// Name of the field.
        what: &'static str,
        /// Bytes the field needs.
        needs: usize,
        /// Bytes that are left.
        has: usize,
    },
    /// A length beyond its limit, refused before anything is allocated.
    #[error("{what} is {length} bytes long; the limit is {limit}")]
    TooLong {
        /// Name of the field.
        what: &'static str,
        /// The length read.
        length: u64,
        /// The limit in force.
        limit: u64,
    },
    /// A checksum that does not match its bytes.
    #[error("{what} is damaged: checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// Name of the structure.
        what: &'static str,
        /// Checksum of the bytes as read.
        found: u32,
        /// Checksum that came with them.
        expected: u32,
    },
    /// A value that the format does not define.
    #[error("{what} has the undefined value {value}")]
    Invalid {
        /// Name of the field.
        what: &'static str,
        /// The value read.
        value: u64,
    },
    /// Fields that are defined each, but make no sense together.
    #[error("{what} makes no sense: {why}")]
    Inconsistent {
        /// Name of the structure.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Bytes after the end of a structure.
    #[error("{what} is followed by {count} bytes that belong to nothing")]
    Trailing {
        /// Name of the structure.
        what: &'static str,
        /// Bytes that are left over.
        count: usize,
    },
}

/// Reads primitives from the front of a [`Bytes`]; byte strings are slices of it, not copies.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left, without consuming it.
    #[must_use]
    pub fn peek(&self) -> &Bytes {
        &self.rest
    }

    /// The next `length` bytes, shared with the input.
    ///
    /// # Errors
    /// [`DecodeError::Short`] when fewer are left.
    pub fn take(&mut self, what: &'static str, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.rest.len() {
            return Err(DecodeError::Short { what, needs: length, has: self.rest.len() });
        }
        Ok(self.rest.split_to(length))
    }

    /// A length-prefixed (u32) byte string of at most `limit` bytes, shared with the input.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] or [`DecodeError::Short`].
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<Bytes, DecodeError> {
        let length = self.u32(what)?;
        if length as usize > limit {
            return Err(DecodeError::TooLong { what, length: u64::from(length), limit: limit as u64 });
        }
        self.take(what, length as usize)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// A little-endian u16.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// A little-endian u32.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A little-endian u64.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A little-endian u128.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u128(&mut self, what: &'static str) -> Result<u128, DecodeError> {
        Ok(u128::from_le_bytes(self.array(what)?))
    }

    /// A little-endian u64 that is counted on from (a term, an index, an offset): at most
    /// [`COUNTER_MAX`].
    ///
    /// # Errors
    /// [`DecodeError::Short`] or [`DecodeError::Invalid`].
    pub fn counter(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        match self.u64(what)? {
            value @ 0..=COUNTER_MAX => Ok(value),
            value => Err(DecodeError::Invalid { what, value }),
        }
    }

    /// A flag: one byte, 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Short`] or [`DecodeError::Invalid`].
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Invalid { what, value: u64::from(other) }),
        }
    }

    /// Ends the reading of `what`: nothing may be left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing { what, count: self.rest.len() })
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let short = DecodeError::Short { what, needs: N, has: self.rest.len() };
        let array = self.rest.first_chunk::<N>().copied().ok_or(short)?;
        let _ = self.rest.split_to(N);
        Ok(array)
    }
}

/// Appends primitives to a byte vector: the mirror of [`Reader`].
pub trait Writer {
    /// Appends one byte.
    fn put_u8(&mut self, value: u8);
    /// Appends a little-endian u16.
    fn put_u16(&mut self, value: u16);
    /// Appends a little-endian u32.
    fn put_u32(&mut self, value: u32);
    /// Appends a little-endian u64.
    fn put_u64(&mut self, value: u64);
    /// Appends a little-endian u128.
    fn put_u128(&mut self, value: u128);
    /// Appends a byte string behind its u32 length.
    ///
    /// # Panics
    /// If it is longer than `u32::MAX` bytes: limits far below that are checked where bytes come
    /// in.
    fn put_bytes(&mut self, value: &[u8]);
}

impl Writer for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_u128(&mut self, value: u128) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put_bytes(&mut self, value: &[u8]) {
        self.put_u32(u32::try_from(value.len()).expect("limits keep byte strings below 4 GiB"));
        self.extend_from_slice(value);
    }
}

/// CRC-32 (IEEE) of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32 (IEEE) of the concatenation of `parts`.
#[must_use]
pub fn checksum_parts(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}
