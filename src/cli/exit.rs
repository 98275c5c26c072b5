//! How the program ends.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, in the words of `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0    it did what was asked; a node was told to stop and stopped cleanly
  1    it failed while it ran
  2    wrong usage: unknown flags, or values that make no sense
  3    the data directory cannot be used: locked, unwritable, damaged, of another node or another format
  4    an address cannot be listened on: the port is in use, or the address is not this machine's
  5    a running node had to give up (a failed disk, say): what it acknowledged is durable
  130  it was told a second time to stop, and did so at once";

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// It did what was asked.
    Success = 0,
    /// It failed while it ran.
    Failure = 1,
    /// Wrong usage.
    Usage = 2,
    /// The data directory cannot be used.
    Data = 3,
    /// An address cannot be listened on.
    Address = 4,
    /// A running node had to give up.
    Fatal = 5,
    /// A second signal.
    Interrupted = 130,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// Why the program ends otherwise than well, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: ExitStatus,
    text: String,
}

impl Failure {
    pub(super) fn new(status: ExitStatus, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
