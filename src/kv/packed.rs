//! Numbers in as few bytes as they need, seven bits in each, the lowest first; and bytes.

use alloc::vec::Vec;

/// Appends a number.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// Takes so many bytes off the front. `None`: there are fewer.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

/// Reads a number off the front. `None`: it is cut short, has more than 64 bits, or more bytes than
/// it needs.
pub(super) fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0u64, 0u32);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift > 63 || (low << shift) >> shift != low {
            return None;
        }
        number |= low << shift;
        if byte < 0x80 {
            // A number is written in as few bytes as it needs.
            return (byte > 0 || shift == 0).then_some(number);
        }
        shift += 7;
    }
}
