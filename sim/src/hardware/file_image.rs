//! The content of one simulated file: what reads see (the page cache), and what a power loss would
//! leave.
//!
//! Most of a log is fill, and most of a batch is padding behind a stamp: such sectors take up
//! hardly any room, so that a run stays within the processor's caches.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

/// What a disk writes as a whole.
pub(super) const SECTOR_BYTES: usize = 512;

/// Bytes of the log's stamp, with which a sector begins if it is not empty.
const STAMP_BYTES: usize = 8;
const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

/// A sector.
#[derive(Clone, Debug, Default)]
enum Sector {
    #[default]
    Zeros,
    /// These bytes, and then zeros.
    Stamped([u8; STAMP_BYTES]),
    Full(Box<[u8; SECTOR_BYTES]>),
}

/// What the disk holds of a sector that differs from the page cache, or may.
#[derive(Debug)]
struct Old {
    number: usize,
    held: Sector,
    /// Its fsync failed, so the system will not write it again. Otherwise it was written, and not
    /// synced.
    abandoned: bool,
}

/// A file's content.
#[derive(Debug, Default)]
pub(crate) struct FileImage {
    /// What reads see; as many sectors as `length` needs. Zeros beyond `length`.
    sectors: Vec<Sector>,
    length: usize,
    /// Length on disk.
    durable_length: usize,
    /// In order of their numbers.
    olds: VecDeque<Old>,
}

impl Sector {
    fn of(bytes: &[u8; SECTOR_BYTES]) -> Self {
        let (stamp, rest) = bytes.split_first_chunk::<STAMP_BYTES>().expect("a sector is longer");
        match (*rest == ZEROS[STAMP_BYTES..], *stamp == [0; STAMP_BYTES]) {
            (true, true) => Self::Zeros,
            (true, false) => Self::Stamped(*stamp),
            (false, _) => Self::Full(Box::new(*bytes)),
        }
    }

    fn holds(&self, bytes: &[u8; SECTOR_BYTES]) -> bool {
        match self {
            Self::Zeros => *bytes == ZEROS,
            Self::Stamped(stamp) => bytes.starts_with(stamp) && bytes[STAMP_BYTES..] == ZEROS[STAMP_BYTES..],
            Self::Full(held) => **held == *bytes,
        }
    }

    /// Copies its beginning.
    fn copy_to(&self, out: &mut [u8]) {
        let mut stamp = |stamp: &[u8]| {
            let (start, rest) = out.split_at_mut(out.len().min(STAMP_BYTES));
            start.copy_from_slice(&stamp[..start.len()]);
            rest.fill(0);
        };
        match self {
            Self::Zeros => stamp(&[0; STAMP_BYTES]),
            Self::Stamped(bytes) => stamp(bytes),
            Self::Full(bytes) => out.copy_from_slice(&bytes[..out.len()]),
        }
    }

    fn bytes(&self) -> [u8; SECTOR_BYTES] {
        let mut bytes = ZEROS;
        self.copy_to(&mut bytes);
        bytes
    }

    /// Changes some of it.
    fn change(&mut self, change: impl FnOnce(&mut [u8; SECTOR_BYTES])) {
        let mut bytes = self.bytes();
        change(&mut bytes);
        *self = Self::of(&bytes);
    }
}

impl FileImage {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Reads up to `buffer.len()` bytes at `offset`: how many there are.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: usize) -> usize {
        let start = offset.min(self.length);
        let count = buffer.len().min(self.length - start);
        let (mut rest, mut at) = (&mut buffer[..count], start);
        while !rest.is_empty() {
            let (sector, within) = (&self.sectors[at / SECTOR_BYTES], at % SECTOR_BYTES);
            let (part, later) = rest.split_at_mut(rest.len().min(SECTOR_BYTES - within));
            if within == 0 {
                sector.copy_to(part);
            } else {
                part.copy_from_slice(&sector.bytes()[within..within + part.len()]);
            }
            at += part.len();
            rest = later;
        }
        count
    }

    /// Writes `bytes` at `offset`, into the page cache.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: usize) {
        if self.length < offset + bytes.len() {
            self.lengthen(offset + bytes.len());
        }
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let within = at % SECTOR_BYTES;
            let (now, later) = rest.split_at(rest.len().min(SECTOR_BYTES - within));
            match now.try_into() {
                Ok(whole) => self.put(at / SECTOR_BYTES, whole),
                Err(_) => {
                    let mut bytes = self.sectors[at / SECTOR_BYTES].bytes();
                    bytes[within..within + now.len()].copy_from_slice(now);
                    self.put(at / SECTOR_BYTES, &bytes);
                }
            }
            (rest, at) = (later, at + now.len());
        }
    }

    /// Writes zeros.
    pub(crate) fn write_zeros(&mut self, length: usize, offset: usize) {
        let is_known = self.olds.back().is_some_and(|old| old.number >= offset / SECTOR_BYTES);
        if offset >= self.length && !is_known {
            // There is nothing else beyond the end.
            self.lengthen(offset + length);
        } else {
            self.write(&vec![0; length], offset);
        }
    }

    fn put(&mut self, number: usize, bytes: &[u8; SECTOR_BYTES]) {
        // A sector that is written as it is already is the same whether the write survives or not.
        // But a sector whose fsync failed is written again now, even with the same content.
        if !self.sectors[number].holds(bytes) {
            let held = std::mem::replace(&mut self.sectors[number], Sector::of(bytes));
            self.remember(number, |_| held);
        } else if !self.olds.is_empty() {
            self.written_again(number);
        }
    }

    /// A sector changes: remembers what the disk holds of it, unless it is known already.
    fn remember(&mut self, number: usize, held: impl FnOnce(&Self) -> Sector) {
        match self.position(number) {
            Ok(known) => self.olds[known].abandoned = false,
            Err(place) => {
                let held = held(self);
                self.olds.insert(place, Old { number, held, abandoned: false });
            }
        }
    }

    fn written_again(&mut self, number: usize) {
        if let Ok(known) = self.position(number) {
            self.olds[known].abandoned = false;
        }
    }

    /// Where what the disk holds of a sector is kept, or would be.
    fn position(&self, number: usize) -> Result<usize, usize> {
        // Nearly always sectors are written in their order.
        match self.olds.back() {
            Some(last) if last.number >= number => self.olds.binary_search_by_key(&number, |old| old.number),
            _ => Err(self.olds.len()),
        }
    }

    /// Cuts, or extends with zeros.
    pub(crate) fn set_len(&mut self, length: usize) {
        if length >= self.length {
            return self.lengthen(length);
        }
        for number in length / SECTOR_BYTES..self.sectors.len() {
            self.remember(number, |content| content.sectors[number].clone());
        }
        self.cut(length);
    }

    fn lengthen(&mut self, length: usize) {
        self.length = length;
        self.sectors.resize(length.div_ceil(SECTOR_BYTES), Sector::Zeros);
    }

    fn cut(&mut self, length: usize) {
        self.length = length;
        self.sectors.truncate(length.div_ceil(SECTOR_BYTES));
        let within = length % SECTOR_BYTES;
        if let Some(last) = self.sectors.last_mut().filter(|_| within > 0) {
            last.change(|bytes| bytes[within..].fill(0));
        }
    }

    /// The disk holds now what reads see, except sectors that an earlier failed sync left out.
    pub(crate) fn sync(&mut self) {
        self.olds.retain(|old| old.abandoned);
        self.durable_length = self.length;
    }

    /// An fsync failed: the pages count as clean, and were not written.
    pub(crate) fn fail_sync(&mut self) {
        self.olds.iter_mut().for_each(|old| old.abandoned = true);
    }

    /// The power went: each sector that was written and not synced survives, or not.
    pub(crate) fn power_lost(&mut self, mut survives: impl FnMut() -> bool) {
        if self.length != self.durable_length && !survives() {
            self.lengthen(self.durable_length);
        }
        for Old { number, held, abandoned } in std::mem::take(&mut self.olds) {
            if (abandoned || !survives())
                && let Some(sector) = self.sectors.get_mut(number)
            {
                *sector = held;
            }
        }
        self.cut(self.length);
        self.durable_length = self.length;
    }

    /// Sectors that hold anything but zeros.
    pub(crate) fn written_sectors(&self) -> Vec<usize> {
        let sectors = self.sectors.iter().enumerate();
        sectors.filter(|(_, sector)| !matches!(sector, Sector::Zeros)).map(|(number, _)| number).collect()
    }

    /// Flips bits of one byte, in the page cache and on disk.
    pub(crate) fn flip(&mut self, offset: usize, bits: u8) {
        let (number, within) = (offset / SECTOR_BYTES, offset % SECTOR_BYTES);
        self.sectors[number].change(|bytes| bytes[within] ^= bits);
        if let Ok(known) = self.position(number) {
            self.olds[known].held.change(|bytes| bytes[within] ^= bits);
        }
    }
}
