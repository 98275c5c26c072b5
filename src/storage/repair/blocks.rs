//! Reads a file of which the disk does not give back every block.

use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::says_nothing_of_the_disk;
use crate::storage::sector::{BLOCK_BYTES, SECTOR_BYTES, STAMP_BYTES};
use crate::storage::segment::read_whole_into;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Blocks that cannot be read are counted up to here. The rest of the file is given up then: a disk
/// can take many seconds for each.
const UNREADABLE_MAX: usize = 64;

/// Blocks of a file that cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Where they stand, in order.
    pub(super) ranges: Vec<Range<u64>>,
    /// What the disk said.
    pub(super) why: String,
}

impl Unreadable {
    /// The block at `at` joins the last ones, or stands by itself.
    fn push(&mut self, at: u64) {
        let end = at + BLOCK_BYTES as u64;
        match self.ranges.last_mut() {
            Some(last) if last.end == at => last.end = end,
            _ => self.ranges.push(at..end),
        }
    }
}

/// Reads a file into a buffer that may have held another, block by block if it cannot be read
/// whole. Blocks that cannot be read are filled with what no write of the log leaves; they are
/// returned.
///
/// # Errors
/// If nothing of it can be read, or the error says nothing of the disk.
pub(super) fn read_readable<D: Disk>(
    disk: &D,
    path: &Path,
    bytes: &mut Vec<u8>,
) -> io::Result<Option<Unreadable>> {
    let error = match read_whole_into(disk, path, bytes) {
        Ok(()) => return Ok(None),
        Err(error) if says_nothing_of_the_disk(&error) => return Err(error),
        Err(error) => error,
    };
    let file = disk.open_to_read(path)?;
    let length = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    bytes.clear();
    bytes.resize(length, 0);
    let mut unreadable = Unreadable { ranges: Vec::new(), why: error.to_string() };
    let (mut count, mut is_any_read) = (0, false);
    for (number, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        let at = (number * BLOCK_BYTES) as u64;
        let read = if count < UNREADABLE_MAX { file.read_at(block, at) } else { Ok(0) };
        match read {
            Ok(read) if read == block.len() => is_any_read = true,
            Err(error) if says_nothing_of_the_disk(&error) => return Err(error),
            Ok(_) | Err(_) => {
                fill(block);
                unreadable.push(at);
                count += 1;
            }
        }
    }
    if is_any_read { Ok(Some(unreadable)) } else { Err(error) }
}

/// No stamp is zero, and fill is zeros throughout: this is neither.
fn fill(block: &mut [u8]) {
    for sector in block.chunks_mut(SECTOR_BYTES) {
        let stamp = sector.len().min(STAMP_BYTES);
        let (stamp, rest) = sector.split_at_mut(stamp);
        stamp.fill(0);
        rest.fill(0xa5);
    }
}
