//! Parameters of a query, decoded as a form's are: `+` is a space, `%XX` a byte.

use std::borrow::Cow;

/// A parameter that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    #[error("is not percent-encoded correctly")]
    Encoding,
    #[error("is not UTF-8")]
    Utf8,
}

/// The first parameter called `name`, decoded. Borrows from the query unless something has to be
/// decoded.
pub(super) fn parameter<'q>(query: &'q str, name: &str) -> Option<Result<Cow<'q, str>, QueryError>> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        let matches = found == name || decode(found).is_ok_and(|found| found == name);
        matches.then(|| decode(value))
    })
}

fn decode(text: &str) -> Result<Cow<'_, str>, QueryError> {
    let bytes = text.as_bytes();
    let Some(first) = bytes.iter().position(|&byte| byte == b'%' || byte == b'+') else {
        return Ok(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = after.split_at_checked(2).ok_or(QueryError::Encoding)?;
                rest = after;
                hex(digits[0])? << 4 | hex(digits[1])?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| QueryError::Utf8)
}

fn hex(digit: u8) -> Result<u8, QueryError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(QueryError::Encoding),
    }
}
