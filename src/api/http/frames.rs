//! A look at the frames of HTTP/2 that a client sends, before h2 reads them: whether one has begun
//! and not ended, whether a block of headers is open, and whether there are too many that ask for
//! work and bring none.
//!
//! h2 bounds what a connection holds. It does not bound how often a client opens a stream and
//! resets it, nor how many pings it sends: each of them is cheap alone, and there is no end to
//! them.

/// Bytes of a frame's head (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
/// So many bytes of an answer are worth a window's update. Clients send two for each 4 KiB at most:
/// for the stream and for the connection.
const UPDATE_BYTES: usize = 1 << 10;
/// A stream ends with this frame.
const END_STREAM: u8 = 0x1;
/// No more frames of headers follow.
const END_HEADERS: u8 = 0x4;

/// What a client may send within a tick of the sweep, which is a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameLimits {
    /// Streams that it resets.
    pub(super) resets_max: u32,
    /// Pings, settings, and other frames that carry nothing. A window's update counts if it answers
    /// nothing: one is free for each [`UPDATE_BYTES`] that the client was sent.
    pub(super) others_max: u32,
}

/// A client that sends too many frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flood {
    #[error("the client resets streams again and again")]
    Resets,
    #[error("the client sends frames that carry nothing, again and again")]
    Others,
    /// h2 would keep them until somebody reads the body to its end, which nobody may ever do.
    #[error("the client sends headers behind a body")]
    Trailers,
}

/// Where in the frames a connection is.
#[derive(Debug)]
pub(super) struct Frames {
    limits: FrameLimits,
    /// The head at hand, as far as it has come: `head_bytes` of it.
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Bytes that the frame at hand still has.
    rest_bytes: usize,
    /// A block of headers has begun and not ended.
    within_headers: bool,
    /// The stream that was opened last. A client's numbers only grow.
    newest_stream: u32,
    /// Since which tick something is incomplete.
    incomplete_since: Option<u32>,
    /// The tick that is counted for.
    tick: u32,
    resets: u32,
    others: u32,
    /// Bytes that the client was sent, and has not sent updates of its windows for.
    sent_bytes: usize,
}

impl Frames {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            rest_bytes: 0,
            within_headers: false,
            newest_stream: 0,
            incomplete_since: None,
            tick: 0,
            resets: 0,
            others: 0,
            sent_bytes: 0,
        }
    }

    /// The client was sent so many bytes.
    pub(super) fn note_sent(&mut self, bytes: usize) {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
    }

    /// Looks at what has come, in that tick.
    ///
    /// # Errors
    /// [`Flood`].
    pub(super) fn look_at(&mut self, mut bytes: &[u8], tick: u32) -> Result<(), Flood> {
        if tick != self.tick {
            (self.tick, self.resets, self.others) = (tick, 0, 0);
        }
        while !bytes.is_empty() {
            if self.rest_bytes > 0 {
                let count = self.rest_bytes.min(bytes.len());
                self.rest_bytes -= count;
                bytes = &bytes[count..];
            } else {
                let count = (HEAD_BYTES - self.head_bytes).min(bytes.len());
                self.head[self.head_bytes..self.head_bytes + count].copy_from_slice(&bytes[..count]);
                self.head_bytes += count;
                bytes = &bytes[count..];
                if self.head_bytes < HEAD_BYTES {
                    break;
                }
                self.head_bytes = 0;
                self.begin()?;
            }
            if self.rest_bytes == 0 && !self.within_headers {
                self.incomplete_since = None;
            }
        }
        if self.is_incomplete() {
            self.incomplete_since.get_or_insert(tick);
        }
        Ok(())
    }

    /// Since which tick a frame, or a block of headers, has begun and not ended.
    pub(super) fn incomplete_since(&self) -> Option<u32> {
        self.incomplete_since
    }

    /// Whether a block of headers has begun and not ended. h2 has made a map of what has come of
    /// it.
    pub(super) fn is_within_headers(&self) -> bool {
        self.within_headers
    }

    fn is_incomplete(&self) -> bool {
        self.head_bytes > 0 || self.rest_bytes > 0 || self.within_headers
    }

    /// A frame's head is there.
    fn begin(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, stream @ ..] = self.head;
        self.rest_bytes = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            DATA if self.rest_bytes > 0 || flags & END_STREAM != 0 => {}
            WINDOW_UPDATE if self.sent_bytes >= UPDATE_BYTES => self.sent_bytes -= UPDATE_BYTES,
            // A request, which is as good as any other.
            HEADERS => {
                // The first bit is reserved.
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                if stream <= self.newest_stream {
                    return Err(Flood::Trailers);
                }
                self.newest_stream = stream;
                self.within_headers = flags & END_HEADERS == 0;
            }
            CONTINUATION => {
                self.within_headers = flags & END_HEADERS == 0;
                self.count_other()?;
            }
            RST_STREAM => {
                self.resets += 1;
                if self.resets > self.limits.resets_max {
                    return Err(Flood::Resets);
                }
            }
            _ => self.count_other()?,
        }
        Ok(())
    }

    fn count_other(&mut self) -> Result<(), Flood> {
        self.others += 1;
        if self.others > self.limits.others_max { Err(Flood::Others) } else { Ok(()) }
    }
}
