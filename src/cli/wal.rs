//! `wal dump`: a log's records, readably.

use crate::cli::exit::{ExitStatus, Failure};
use crate::storage::{DumpItem, RealDisk, dump as read};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Prints the log in a data directory. What cannot be read is printed as such, and makes the dump fail at its end.
pub(in crate::cli) fn dump(dir: &Path) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut unreadable = 0_usize;
    for item in read(&RealDisk, dir) {
        unreadable += usize::from(matches!(item, DumpItem::Damage(_) | DumpItem::Unreadable(_)));
        match writeln!(out, "{item}") {
            Ok(()) => {}
            // The reader has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}"))),
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
        }
        _ if unreadable > 0 => {
            let text = format!("{}: {unreadable} places could not be read; see above", dir.display());
            Err(Failure::new(ExitStatus::Data, text))
        }
        _ => Ok(()),
    }
}
