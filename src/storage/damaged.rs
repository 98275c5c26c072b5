//! Damaged files, which are kept for people to look at.

use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use std::path::{Path, PathBuf};

/// Damaged files that are kept, the newest ones; more if more come at once.
const KEPT_MAX: usize = 8;
/// Where they are kept.
const KEPT_DIR: &str = "damaged";

/// Moves files of a data directory to where damaged ones are kept. Of those that are there, the
/// oldest make room. Returns where they are kept.
///
/// # Errors
/// [`OpenError`]; it may be begun again.
pub(crate) fn keep_damaged<'f, D: Disk>(
    disk: &D,
    dir: &Path,
    files: impl IntoIterator<Item = &'f PathBuf>,
) -> Result<PathBuf, OpenError> {
    let kept_dir = dir.join(KEPT_DIR);
    disk.create_dir_all(&kept_dir).map_err(OpenError::io("creating", &kept_dir))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    let listed = disk.list(&kept_dir).map_err(OpenError::io("listing", &kept_dir))?;
    let number = |name: &PathBuf| name.to_str()?.split_once('-')?.0.parse::<u64>().ok();
    let mut kept: Vec<(u64, PathBuf)> =
        listed.into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    kept.sort();
    let mut moved = 0;
    for file in files {
        let (Some(name), Ok(true)) = (file.file_name(), disk.exists(file)) else { continue };
        let next = kept.last().map_or(1, |(number, _)| number + 1);
        let name = PathBuf::from(format!("{next}-{}", name.to_string_lossy()));
        let to = kept_dir.join(&name);
        disk.rename(file, &to).map_err(OpenError::io("renaming", &to))?;
        kept.push((next, name));
        moved += 1;
    }
    for (_, name) in kept.iter().rev().skip(KEPT_MAX.max(moved)) {
        let old = kept_dir.join(name);
        disk.remove(&old).map_err(OpenError::io("removing", &old))?;
    }
    disk.sync_dir(&kept_dir).map_err(OpenError::io("syncing the directory", &kept_dir))?;
    Ok(kept_dir)
}
