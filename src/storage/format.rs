//! The number of the files' format.

/// The format of log, snapshot and identity files that this program writes, and the only one that
/// it reads.
pub(crate) const FORMAT_VERSION: u32 = 7;
