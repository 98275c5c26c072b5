//! An answer whose body comes as things happen.

use bytes::Bytes;
use std::fmt;
use std::task::{Context, Poll};

/// What follows the head of an answer, piece by piece, until it ends. The next piece is asked for
/// when the client has taken the one before: a slow client holds one piece.
pub(super) trait EventStream: fmt::Debug + Send {
    /// The next piece, not empty; `None`: it has ended.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
    /// Whether it ends when the client closes its side of the connection. A stream that waits for
    /// something to happen would otherwise notice only when a write fails.
    fn ends_with_client(&self) -> bool;
    /// Whether all has been given out. Asked when nothing more comes, or nothing more may: the
    /// client of a stream that is not whole has to notice.
    fn is_whole(&self) -> bool;
    /// The sweep's clock, seconds.
    fn tick(&self) -> u32;
}
