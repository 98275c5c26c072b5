//! What hyper does not tell of a request line: whether a `#` stands in its target.
//!
//! Hyper passes over it, and over all that follows it: `DELETE /v1/kv?prefix=a#1` would delete all
//! that begins with `a`. No client may send it (RFC 9112 §3.2), and careless ones do.

/// A request line ends so, but for one digit and the end of the line.
const VERSION: &[u8] = b" HTTP/1.";

/// Looks at a request line as it comes, in pieces of any size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestLine {
    is_begun: bool,
    is_over: bool,
    has_number_sign: bool,
    /// The last bytes of it, in earlier pieces.
    tail: [u8; VERSION.len() + 2],
}

impl RequestLine {
    /// Looks at what was read just now. Whether the line has ended in it, and has a `#` in its
    /// target.
    ///
    /// Of requests that come at once, one after the other, the first line alone is seen. Where
    /// reading begins within a request, a header say, that does not end as a request line does.
    pub(super) fn look_at(&mut self, new: &[u8]) -> bool {
        if self.is_over {
            return false;
        }
        // Empty lines may come before it.
        let is_blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let blanks = if self.is_begun { 0 } else { new.iter().take_while(is_blank).count() };
        let new = &new[blanks..];
        let end = new.iter().position(|byte| *byte == b'\n');
        let line = &new[..end.unwrap_or(new.len())];
        (self.is_begun, self.is_over) = (self.is_begun || !line.is_empty(), end.is_some());
        self.has_number_sign |= line.contains(&b'#');
        if self.is_over && !self.has_number_sign {
            return false;
        }
        let kept = self.tail.len().min(line.len());
        self.tail.rotate_left(kept);
        let free = self.tail.len() - kept;
        self.tail[free..].copy_from_slice(&line[line.len() - kept..]);
        let ended = if self.tail.ends_with(b"\r") {
            &self.tail[..VERSION.len()]
        } else {
            &self.tail[1..][..VERSION.len()]
        };
        self.is_over && ended == VERSION
    }
}

#[cfg(test)]
mod tests;
