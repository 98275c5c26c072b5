//! What the header `Authorization` says.

use crate::api::service::{Credentials, PASSWORD_BYTES_MAX};
use crate::codec::from_base64;

/// A token is at most this long.
const TOKEN_BYTES_MAX: usize = 256;
/// A user's name is at most this long.
const USER_BYTES_MAX: usize = 128;

/// Nobody shows credentials so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCredentials;

/// Takes the header apart (RFC 6750, RFC 7617).
pub(super) fn parse(header: &[u8]) -> Result<Credentials, BadCredentials> {
    let space = header.iter().position(|byte| *byte == b' ').ok_or(BadCredentials)?;
    let (scheme, rest) = (&header[..space], header[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        if rest.is_empty() || rest.len() > TOKEN_BYTES_MAX || !rest.iter().all(is_token) {
            return Err(BadCredentials);
        }
        return Ok(Credentials::Token(rest.to_vec()));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") || rest.len() > 4 * (USER_BYTES_MAX + PASSWORD_BYTES_MAX) {
        return Err(BadCredentials);
    }
    let decoded = from_base64(rest).map_err(|_| BadCredentials)?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(BadCredentials)?;
    let user = std::str::from_utf8(&decoded[..colon]).map_err(|_| BadCredentials)?;
    let password = &decoded[colon + 1..];
    if user.is_empty() || user.len() > USER_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
        return Err(BadCredentials);
    }
    Ok(Credentials::Password { user: user.to_owned(), password: password.to_vec() })
}
