//! Notes in a data directory that name other members: for the day when nothing else does.

use crate::codec::checksum;
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::OpenError;
use crate::storage::segment::read_whole;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Where the other members are, as of the newest committed membership.
const PEERS: &str = "peers";
/// Says that this directory is to be a member's again, and whom to ask. Without it, a start that
/// finds an empty directory makes a cluster of its own.
const REJOIN: &str = "rejoin";
/// The alarms that nobody has acknowledged.
const ALARMS: &str = "alarms";
/// Which start of the node the newest one is. The log says so too: if it says less, it is an older
/// copy.
const STARTED: &str = "started";
/// Says that this directory is not to be used as it is, and why.
const REBUILD: &str = "rebuild";
/// Bytes of a note, at most.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// A note that the node has to join its cluster anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejoin {
    /// Raft addresses of members to ask.
    pub peers: Vec<String>,
}

/// The note that a directory was set aside and has to join anew. A note that is damaged names
/// nobody, and says the same.
///
/// # Errors
/// [`OpenError`] if it cannot be read.
pub fn read_rejoin<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Rejoin>, OpenError> {
    read(disk, dir, REJOIN).map(|peers| peers.map(|peers| Rejoin { peers }))
}

/// Writes that note, durably.
pub(super) fn write_rejoin<D: Disk>(disk: &D, dir: &Path, peers: &[String]) -> Result<(), OpenError> {
    write(disk, dir, REJOIN, peers)
}

/// Removes the note: the node is a member again.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn remove_rejoin<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(REJOIN);
    if disk.exists(&path).map_err(OpenError::io("looking for", &path))? {
        disk.remove(&path).map_err(OpenError::io("removing", &path))?;
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    }
    Ok(())
}

/// The raft addresses of the other members that were noted last; none if the note is damaged.
pub(super) fn read_peers<D: Disk>(disk: &D, dir: &Path) -> Vec<String> {
    read(disk, dir, PEERS).ok().flatten().unwrap_or_default()
}

/// Notes the raft addresses of the other members, unless they are noted already.
///
/// # Errors
/// [`OpenError`]. Nothing else is affected: the note is only of use when the rest is damaged.
pub(crate) fn note_peers<D: Disk>(disk: &D, dir: &Path, peers: &[String]) -> Result<(), OpenError> {
    if read_peers(disk, dir) == peers { Ok(()) } else { write(disk, dir, PEERS, peers) }
}

/// The alarms that were written down last; none without a note.
///
/// # Errors
/// Why the note cannot be read, in words: which alarms stood is not known then.
pub(crate) fn read_alarms<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<String>, String> {
    match read(disk, dir, ALARMS) {
        Ok(None) => Ok(Vec::new()),
        // A note that is sound has a line at least.
        Ok(Some(lines)) if lines.is_empty() => Err(format!("{} is damaged", dir.join(ALARMS).display())),
        Ok(Some(lines)) => Ok(lines),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes down the alarms that stand.
///
/// # Errors
/// [`OpenError`]. Nothing else is affected.
pub(crate) fn note_alarms<D: Disk>(disk: &D, dir: &Path, alarms: &[String]) -> Result<(), OpenError> {
    write(disk, dir, ALARMS, alarms)
}

/// The newest start that was noted; 0 without a note, or if it is damaged.
pub(crate) fn read_started<D: Disk>(disk: &D, dir: &Path) -> u64 {
    let lines = read(disk, dir, STARTED).ok().flatten().unwrap_or_default();
    lines.first().and_then(|line| line.parse().ok()).unwrap_or_default()
}

/// Notes that this start is the newest.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn note_started<D: Disk>(disk: &D, dir: &Path, start: u64) -> Result<(), OpenError> {
    write(disk, dir, STARTED, &[start.to_string()])
}

/// Refuses a log of an earlier start than the newest one that was noted: its files, or some of
/// them, are older copies, and what was acknowledged since is lost.
///
/// # Errors
/// [`OpenError::Condemned`].
pub(crate) fn check_started<D: Disk>(disk: &D, dir: &Path, start: u64) -> Result<(), OpenError> {
    let noted = read_started(disk, dir);
    if start >= noted {
        return Ok(());
    }
    let why = format!(
        "its log was written last by start {start} of this node, and start {noted} was the last: files of the log are \
         older copies, and what was acknowledged since is lost"
    );
    Err(OpenError::Condemned { dir: dir.to_path_buf(), why })
}

/// Why this directory is not to be used as it is; `None`: it may be. A note that is damaged says so
/// too.
///
/// # Errors
/// [`OpenError`] if it cannot be read.
pub(crate) fn read_rebuild<D: Disk>(disk: &D, dir: &Path) -> Result<Option<String>, OpenError> {
    let unknown = || "its own note says so, which is damaged".to_owned();
    read(disk, dir, REBUILD).map(|found| found.map(|why| why.into_iter().next().unwrap_or_else(unknown)))
}

/// Notes that this directory is not to be used as it is, durably.
///
/// # Errors
/// [`OpenError`]; then it is not noted.
pub(crate) fn note_rebuild<D: Disk>(disk: &D, dir: &Path, why: &str) -> Result<(), OpenError> {
    write(disk, dir, REBUILD, &[why.replace('\n', " ")])
}

fn read<D: Disk>(disk: &D, dir: &Path, name: &str) -> Result<Option<Vec<String>>, OpenError> {
    let path = dir.join(name);
    let bytes = match read_whole(disk, &path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::io("reading", &path)(error)),
    };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(NOTE_BYTES_MAX)]).into_owned();
    let (body, sum) = text.rsplit_once("checksum = ").unwrap_or((&text, ""));
    let holds = u32::from_str_radix(sum.trim(), 16) == Ok(checksum(body.as_bytes()));
    let lines =
        body.lines().filter_map(|line| line.split_once(" = ").map(|(_, said)| said)).map(str::to_owned);
    Ok(Some(if holds { lines.collect() } else { Vec::new() }))
}

fn write<D: Disk>(disk: &D, dir: &Path, name: &str, lines: &[String]) -> Result<(), OpenError> {
    let key = match name {
        ALARMS => "alarm",
        REBUILD => "why",
        STARTED => "start",
        _ => "peer",
    };
    let mut text = format!("infinitystore {name}\n");
    for line in lines {
        writeln!(text, "{key} = {line}").expect("writing to a string does not fail");
    }
    let sum = checksum(text.as_bytes());
    writeln!(text, "checksum = {sum:08x}").expect("writing to a string does not fail");
    let (writing, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    let file = disk.create(&writing).map_err(OpenError::io("creating", &writing))?;
    file.write_at(text.as_bytes(), 0).map_err(OpenError::io("writing", &writing))?;
    file.sync_data().map_err(OpenError::io("syncing", &writing))?;
    disk.rename(&writing, &path).map_err(OpenError::io("renaming into place", &path))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}
