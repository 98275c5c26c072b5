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
    let peers = body.lines().filter_map(|line| line.strip_prefix("peer = ")).map(str::to_owned);
    Ok(Some(if holds { peers.collect() } else { Vec::new() }))
}

fn write<D: Disk>(disk: &D, dir: &Path, name: &str, peers: &[String]) -> Result<(), OpenError> {
    let mut text = format!("infinitystore {name}\n");
    for peer in peers {
        writeln!(text, "peer = {peer}").expect("writing to a string does not fail");
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
