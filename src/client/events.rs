//! Server-sent events, as the HTML standard describes them (§9.2), taken apart.

use bytes::{Buf, Bytes};

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventMessage {
    /// Its name; empty: it has none.
    pub(super) name: String,
    /// Its data.
    pub(super) data: Vec<u8>,
}

/// A message that is longer than it may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes pieces of a stream in, and gives its messages out.
#[derive(Debug)]
pub(super) struct EventReader {
    /// Bytes of a message, at most: of its data, and of any line.
    bytes_max: usize,
    /// The line that has begun.
    line: Vec<u8>,
    message: EventMessage,
    has_data: bool,
}

impl EventReader {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, line: Vec::new(), message: EventMessage::default(), has_data: false }
    }

    /// Takes bytes off the front of `piece`, up to the end of a message. `None`: none has ended,
    /// and the piece is used up.
    pub(super) fn take(&mut self, piece: &mut Bytes) -> Result<Option<EventMessage>, TooLong> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.append(&piece[..end])?;
            piece.advance(end + 1);
            let line = std::mem::take(&mut self.line);
            if let Some(message) = self.end_line(&line)? {
                return Ok(Some(message));
            }
            // The buffer is used again, unless it is large.
            if line.capacity() <= 4096 {
                self.line = line;
                self.line.clear();
            }
        }
        self.append(piece)?;
        piece.clear();
        Ok(None)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + bytes.len() > self.bytes_max {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// A line has ended; an empty one ends the message.
    fn end_line(&mut self, line: &[u8]) -> Result<Option<EventMessage>, TooLong> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return Ok(std::mem::take(&mut self.has_data).then_some(message));
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.message.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.message.data.len() + value.len() >= self.bytes_max {
                    return Err(TooLong);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push(b'\n');
                }
                self.message.data.extend_from_slice(value);
            }
            // A comment, an id that the data says too, or a field of a later version.
            _ => {}
        }
        Ok(None)
    }
}
