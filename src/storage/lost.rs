//! The files of a log of which a person has given up a part. They are kept whole: behind the first
//! damage there may be sound ones, and they are all that is left of what was acknowledged.

use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use crate::storage::repair::notes::{read_lines, remove, said, write};
use std::path::{Path, PathBuf};

/// Says which generation of directories is to be kept, and where.
const NOTE: &str = "keeping-lost";

/// Notes, durably, that a generation is to be kept, before another one takes its place. Returns
/// where.
///
/// # Errors
/// [`OpenError`].
pub(super) fn note_lost<D: Disk>(disk: &D, dir: &Path, generation: u32) -> Result<PathBuf, OpenError> {
    let mut number = 1_u32;
    loop {
        let name = format!("lost-{number}");
        let kept = dir.join(&name);
        if !disk.exists(&kept).map_err(OpenError::io("looking for", &kept))? {
            write(disk, dir, NOTE, &[("generation", generation.to_string()), ("kept", name)])?;
            return Ok(kept);
        }
        number += 1;
    }
}

/// A generation is about to be removed: if it is to be kept, its files move to where they are kept.
/// May be begun again after a crash.
///
/// # Errors
/// [`OpenError`].
pub(super) fn keep_lost<D: Disk>(disk: &D, dir: &Path, generation: u32) -> Result<(), OpenError> {
    let Some(lines) = read_lines(disk, dir, NOTE)? else { return Ok(()) };
    let noted = said(&lines, "generation").first().and_then(|text| text.parse::<u32>().ok());
    if noted.is_some_and(|noted| noted != generation) {
        return Ok(());
    }
    // A note that is damaged does not say where.
    let kept = dir.join(said(&lines, "kept").first().map_or("lost", String::as_str));
    disk.create_dir_all(&kept).map_err(OpenError::io("creating", &kept))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    for name in ["wal", "snapshots"] {
        let name = format!("{name}-{generation}");
        move_dir(disk, &dir.join(&name), &kept.join(&name))?;
    }
    remove(disk, dir, NOTE)
}

/// The generation that is noted took no other's place.
///
/// # Errors
/// [`OpenError`].
pub(super) fn forget_lost<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    remove(disk, dir, NOTE)
}

/// Moves the files of a directory into another one, durably, and removes it. Nothing happens if it
/// is gone.
///
/// # Errors
/// [`OpenError`]; it may be begun again.
pub(super) fn move_dir<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), OpenError> {
    if !disk.exists(from).map_err(OpenError::io("looking for", from))? {
        return Ok(());
    }
    // Names that lead to what is moved are durable before it leaves its place.
    disk.create_dir_all(to).map_err(OpenError::io("creating", to))?;
    if let Some(parent) = to.parent() {
        disk.sync_dir(parent).map_err(OpenError::io("syncing the directory", parent))?;
    }
    move_files(disk, from, to, &[])?;
    disk.remove_dir_all(from).map_err(OpenError::io("removing", from))
}

/// Moves the files in `from` (those of these names, or all) to `to`, durably.
///
/// # Errors
/// [`OpenError`]; it may be begun again.
pub(super) fn move_files<D: Disk>(disk: &D, from: &Path, to: &Path, names: &[&str]) -> Result<(), OpenError> {
    let listed = disk.list(from).map_err(OpenError::io("listing", from))?;
    let wanted =
        listed.into_iter().filter(|name| names.is_empty() || names.iter().any(|n| Path::new(n) == name));
    for name in wanted {
        let target = to.join(&name);
        disk.rename(&from.join(&name), &target).map_err(OpenError::io("renaming", &target))?;
    }
    for dir in [to, from] {
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    }
    Ok(())
}
