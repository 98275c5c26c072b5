//! Names of files that several parts know.

/// The note which start of the node the newest one is. The log says so too: if it says less, it is
/// an older copy.
pub(super) const STARTED: &str = "started";
