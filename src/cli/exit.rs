//! How the program ends.

use crate::client::{CallError, CallFailure, ErrorKind};
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
  5    a running node had to give up: what it acknowledged is durable
  6    a write to the disk failed, or a sync: what the node acknowledged is durable
  7    the node was removed from its cluster, and was started with --exit-when-removed
  8    the cluster has reached a feature level that this release does not speak: start a newer one
  130  it was told a second time to stop, and did so at once";

/// The exit codes of the commands that ask a cluster, in the words of `--help`.
macro_rules! client_exit_codes {
    () => {
        "\
Exit codes:
  0    it did what was asked
  1    it failed
  2    wrong usage, or a request that the cluster refused as wrong
  3    not found: no such key or lease, or a revision that is gone
  4    a condition does not hold, or another one holds the lock
  5    unavailable: no node that was asked can do it now; a write has not happened
  6    the outcome is unknown: a write may have happened; read before you write again"
    };
}

/// The exit codes of `lock` and `elect`.
macro_rules! hold_exit_codes {
    () => {
        "\
Exit codes: those of COMMAND (128 and its number if a signal ended it, 126 or 127 if it cannot be
run), and of infinitystore itself:
  1    it failed
  2    wrong usage, or a request that the cluster refused as wrong
  4    another one held it for all of --wait, or it was lost: COMMAND was stopped, or never ran
  5    unavailable: no node that was asked can do it now; COMMAND did not run
  130  it was told to stop before COMMAND ran"
    };
}

/// The exit codes of `backup`.
macro_rules! backup_exit_codes {
    () => {
        "\
Exit codes:
  0    it did what was asked
  1    it failed: a file cannot be read or written, say
  2    wrong usage, or a file that exists
  3    the backup is damaged or cut short, or the data directory is not empty
  5    unavailable: no node that was asked gave a whole backup; nothing was saved
  130  it was told to stop; nothing was saved"
    };
}

/// Examples, and the exit codes below them: what `--help` ends with.
macro_rules! examples {
    ($codes:ident: $($line:literal),+ $(,)?) => {
        concat!("Examples:\n", $("  ", $line, "\n",)+ "\n", $codes!())
    };
}

pub(super) use {backup_exit_codes, client_exit_codes, examples, hold_exit_codes};

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It did what was asked.
    Success,
    /// It failed while it ran.
    Failure,
    /// Wrong usage.
    Usage,
    /// A node, `wal`: the data directory cannot be used.
    Data,
    /// A node: an address cannot be listened on.
    Address,
    /// A running node had to give up.
    Fatal,
    /// A running node had to give up, because its disk failed.
    DiskFailed,
    /// A node was removed from its cluster, and was to end then.
    Removed,
    /// A node: its cluster has reached a feature level that this release does not speak.
    Outgrown,
    /// A client: no such key or lease.
    NotFound,
    /// A client: a condition does not hold, or another one holds the lock.
    ConditionFailed,
    /// A client: no node can do it now.
    Unavailable,
    /// A client: a write may have happened.
    OutcomeUnknown,
    /// What the command ended with that ran under a lock.
    Command(u8),
    /// A second signal.
    Interrupted,
}

impl ExitStatus {
    /// The number. A node and a client use the same ones for different things.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Data | Self::NotFound => 3,
            Self::Address | Self::ConditionFailed => 4,
            Self::Fatal | Self::Unavailable => 5,
            Self::DiskFailed | Self::OutcomeUnknown => 6,
            Self::Removed => 7,
            Self::Outgrown => 8,
            Self::Command(code) => code,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
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

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let (status, remedy) = match error.kind() {
            ErrorKind::BadRequest => (ExitStatus::Usage, ""),
            ErrorKind::NotFound => (ExitStatus::NotFound, ""),
            ErrorKind::ConditionFailed => (ExitStatus::ConditionFailed, ""),
            ErrorKind::Unavailable => match error.failure {
                CallFailure::Unreachable(_) => {
                    (ExitStatus::Unavailable, "; is a node running there? See --endpoints")
                }
                _ => (ExitStatus::Unavailable, ""),
            },
            ErrorKind::Denied => (ExitStatus::Failure, ""),
            ErrorKind::OutcomeUnknown => {
                (ExitStatus::OutcomeUnknown, "; it may have been done: read before you write again")
            }
            ErrorKind::Other => (ExitStatus::Failure, ""),
        };
        Self::new(status, format!("{}{remedy}", in_own_words(error.to_string())))
    }
}

/// What a node says that an HTTP client can do, in the words of a command, which can do that too,
/// or cannot.
fn in_own_words(text: String) -> String {
    const WORDS: [(&str, &str); 2] = [
        ("force=true", "--force"),
        ("; read before writing again, or send it again with the same Idempotency-Key", ""),
    ];
    WORDS.iter().fold(text, |text, (of_http, own)| text.replace(of_http, own))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
