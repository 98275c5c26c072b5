//! Base64 (RFC 4648), for bytes that stand in JSON or in a URL.

use alloc::string::String;
use alloc::vec::Vec;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Text that is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not base64")]
pub struct Base64Error;

/// The standard alphabet (RFC 4648 §4), with padding.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = encode(bytes, STANDARD);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// The alphabet for URLs (RFC 4648 §5), without padding.
#[must_use]
pub fn to_base64_url(bytes: &[u8]) -> String {
    encode(bytes, URL)
}

/// Reads either alphabet, with or without padding.
///
/// # Errors
/// [`Base64Error`] for anything else, and for bits that belong to no byte and are not zero: bytes
/// have one text in each alphabet.
pub fn from_base64(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    let digits = match text {
        [digits @ .., b'=', b'='] | [digits @ .., b'='] if text.len().is_multiple_of(4) => digits,
        digits => digits,
    };
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            bits = bits << 6 | value_of(digit)?;
        }
        match group.len() {
            4 => bytes.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 if bits & 0b11 == 0 => bytes.extend_from_slice(&(bits << 6).to_be_bytes()[1..3]),
            2 if bits & 0b1111 == 0 => bytes.extend_from_slice(&(bits << 12).to_be_bytes()[1..2]),
            _ => return Err(Base64Error),
        }
    }
    Ok(bytes)
}

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for place in 0..=group.len() {
            text.push(char::from(alphabet[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

fn value_of(digit: u8) -> Result<u32, Base64Error> {
    Ok(match digit {
        b'A'..=b'Z' => u32::from(digit - b'A'),
        b'a'..=b'z' => u32::from(digit - b'a') + 26,
        b'0'..=b'9' => u32::from(digit - b'0') + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return Err(Base64Error),
    })
}

#[cfg(test)]
mod tests;
