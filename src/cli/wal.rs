//! `wal dump`: a log's records, readably.

use crate::cli::exit::{ExitStatus, Failure};
use crate::storage::{DumpItem, RealDisk, dump as read};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Prints the log in a data directory. What cannot be read is printed as such, and makes the dump
/// fail at its end.
pub(super) fn dump(dir: &Path) -> Result<(), Failure> {
    if !dir.is_dir() {
        let what = if dir.exists() { "is no directory" } else { "does not exist" };
        let text = format!("{} {what}; name a node's data directory, as in data/node1", dir.display());
        return Err(Failure::new(ExitStatus::Data, text));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut unreadable = 0_usize;
    for item in read(&RealDisk, dir) {
        if let DumpItem::Nothing(dir) = &item {
            let text = format!(
                "{} holds no node's data; name the directory that has `identity` in it, as in data/node1",
                dir.display()
            );
            return Err(Failure::new(ExitStatus::Data, text));
        }
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
            let places = if unreadable == 1 { "one place" } else { &format!("{unreadable} places") };
            let text = format!("{}: {places} could not be read; see above", dir.display());
            Err(Failure::new(ExitStatus::Data, text))
        }
        _ => Ok(()),
    }
}
