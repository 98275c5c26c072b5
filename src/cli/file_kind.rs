//! What a file is that was given for another one.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// What each kind of file begins with (`docs/wal-format.md`), what it is, and what looks into it.
const KINDS: [(&[u8; 8], &str, &str); 2] = [
    (b"ISbackup", "a backup", "backup verify"),
    (b"ISsnapsh", "a snapshot file of a data directory", "snapshot verify"),
];

/// What a file is, and which command looks into it, if that is not `wanted`; `None` if nothing is
/// known of it, or it is what was wanted.
pub(super) fn other_kind(path: &Path, wanted: &str) -> Option<String> {
    let mut beginning = [0; 8];
    File::open(path).and_then(|mut file| file.read_exact(&mut beginning)).ok()?;
    let (_, what, command) = KINDS.iter().find(|(magic, ..)| **magic == beginning)?;
    let told = || format!("{}: this is {what}; use `{command}`", path.display());
    (*command != wanted).then(told)
}

#[cfg(test)]
mod tests;
