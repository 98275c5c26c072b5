//! The content of one simulated file: what reads see (the page cache), and what a power loss would leave.
//!
//! Pages that were never written, or with zeros alone, take up no room: most of a segment of the log is fill.

use crate::disk::SECTOR_BYTES;
use std::collections::BTreeMap;

const PAGE_BYTES: usize = 4096;
const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// A page; `None`: zeros.
type Page = Option<Box<[u8; PAGE_BYTES]>>;

/// What the disk holds of a page that differs from the page cache, or may.
#[derive(Debug, Default)]
struct Old {
    /// Meaningful in the sectors of the two masks only.
    page: Page,
    /// Sectors that were written and not synced.
    unsynced: u8,
    /// Sectors whose fsync failed: nothing will ever write them again by itself.
    abandoned: u8,
}

/// A file's content.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// What reads see; as many pages as `length` needs.
    pages: Vec<Page>,
    length: usize,
    /// Length on disk.
    durable_length: usize,
    /// By page.
    olds: BTreeMap<usize, Old>,
}

impl Content {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Reads up to `buffer.len()` bytes at `offset`: how many there are.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: usize) -> usize {
        let start = offset.min(self.length);
        let count = buffer.len().min(self.length - start);
        let mut rest = &mut buffer[..count];
        let mut at = start;
        while !rest.is_empty() {
            let within = at % PAGE_BYTES;
            let now = rest.len().min(PAGE_BYTES - within);
            let (part, later) = rest.split_at_mut(now);
            part.copy_from_slice(&bytes_of(&self.pages[at / PAGE_BYTES])[within..within + now]);
            (rest, at) = (later, at + now);
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
            let within = at % PAGE_BYTES;
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES - within));
            self.write_in_page(at / PAGE_BYTES, within, now);
            (rest, at) = (later, at + now.len());
        }
    }

    fn write_in_page(&mut self, number: usize, within: usize, bytes: &[u8]) {
        // A sector that is written as it is already is the same whether the write survives or not. But a sector whose fsync
        // failed is written again now, whatever it holds.
        let abandoned =
            if self.olds.is_empty() { 0 } else { self.olds.get(&number).map_or(0, |old| old.abandoned) };
        let page = bytes_of(&self.pages[number]);
        if abandoned == 0 && page[within..within + bytes.len()] == *bytes {
            return;
        }
        let mut changed = 0;
        let (mut at, end) = (within, within + bytes.len());
        while at < end {
            let stop = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            let bit = 1 << (at / SECTOR_BYTES);
            if abandoned & bit != 0 || page[at..stop] != bytes[at - within..stop - within] {
                changed |= bit;
            }
            at = stop;
        }
        if changed == 0 {
            return;
        }
        self.touch(number, changed);
        let page = self.pages[number].get_or_insert_with(|| Box::new(ZEROS));
        page[within..end].copy_from_slice(bytes);
    }

    /// Before these sectors of a page change: remembers what the disk holds of them.
    fn touch(&mut self, number: usize, sectors: u8) {
        let page = &self.pages[number];
        let old = self.olds.entry(number).or_insert_with(|| Old { page: page.clone(), ..Old::default() });
        let fresh = sectors & !old.unsynced & !old.abandoned;
        let known = old.unsynced | old.abandoned;
        if known != 0 && fresh != 0 {
            let now = bytes_of(page);
            let held = old.page.get_or_insert_with(|| Box::new(ZEROS));
            for_sectors(fresh, |range| held[range.clone()].copy_from_slice(&now[range]));
        }
        old.unsynced |= sectors;
        old.abandoned &= !sectors;
    }

    /// Cuts, or extends with zeros.
    pub(crate) fn set_len(&mut self, length: usize) {
        if length >= self.length {
            return self.lengthen(length);
        }
        let first = length / PAGE_BYTES;
        for number in first..self.pages.len() {
            let start = number * PAGE_BYTES;
            let (from, to) = (length.max(start) - start, self.length.min(start + PAGE_BYTES) - start);
            let sectors =
                (from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)).fold(0, |mask, sector| mask | 1 << sector);
            self.touch(number, sectors);
        }
        if let Some(page) = &mut self.pages[first] {
            page[length % PAGE_BYTES..].fill(0);
        }
        self.length = length;
        self.pages.truncate(length.div_ceil(PAGE_BYTES));
    }

    fn lengthen(&mut self, length: usize) {
        self.length = length;
        self.pages.resize(length.div_ceil(PAGE_BYTES), None);
    }

    /// The disk holds now what reads see, but for what an earlier failure left out.
    pub(crate) fn sync(&mut self) {
        self.olds.retain(|_, old| {
            old.unsynced = 0;
            old.abandoned != 0
        });
        self.durable_length = self.length;
    }

    /// An fsync failed: the pages count as clean, and were not written.
    pub(crate) fn fail_sync(&mut self) {
        for old in self.olds.values_mut() {
            old.abandoned |= std::mem::take(&mut old.unsynced);
        }
    }

    /// The power went: each sector that was written and not synced survives, or not.
    pub(crate) fn power_lost(&mut self, mut survives: impl FnMut() -> bool) {
        if self.length != self.durable_length && !survives() {
            self.pages.resize(self.durable_length.div_ceil(PAGE_BYTES), None);
            self.length = self.durable_length;
        }
        for (number, old) in std::mem::take(&mut self.olds) {
            let mut lost = old.abandoned;
            for_sectors(old.unsynced, |range| {
                if !survives() {
                    lost |= 1 << (range.start / SECTOR_BYTES);
                }
            });
            let Some(page) = self.pages.get_mut(number).filter(|_| lost != 0) else { continue };
            let (page, old) = (page.get_or_insert_with(|| Box::new(ZEROS)), bytes_of(&old.page));
            for_sectors(lost, |range| page[range.clone()].copy_from_slice(&old[range]));
        }
        self.clear_beyond_end();
        self.durable_length = self.length;
    }

    /// What is beyond the end of the file would be read as zeros, were it longer.
    fn clear_beyond_end(&mut self) {
        let within = self.length % PAGE_BYTES;
        if let Some(Some(page)) = self.pages.last_mut().filter(|_| within > 0) {
            page[within..].fill(0);
        }
    }

    /// Sectors that hold anything but zeros.
    pub(crate) fn written_sectors(&self) -> Vec<usize> {
        let mut written = Vec::new();
        for (number, page) in self.pages.iter().enumerate() {
            let Some(page) = page else { continue };
            let sectors = page.chunks(SECTOR_BYTES).enumerate();
            let held = sectors.filter(|(_, sector)| sector.iter().any(|&byte| byte != 0));
            written.extend(held.map(|(within, _)| number * PAGE_BYTES / SECTOR_BYTES + within));
        }
        written
    }

    /// Flips one bit of a page that holds something, in the page cache and on disk.
    pub(crate) fn flip(&mut self, offset: usize, bit: u8) {
        let (number, within) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
        if let Some(page) = &mut self.pages[number] {
            page[within] ^= bit;
        }
        if let Some(old) = self.olds.get_mut(&number) {
            old.page.get_or_insert_with(|| Box::new(ZEROS))[within] ^= bit;
        }
    }
}

fn bytes_of(page: &Page) -> &[u8; PAGE_BYTES] {
    page.as_deref().unwrap_or(&ZEROS)
}

/// Calls `act` with the byte range, within the page, of each sector in the mask.
fn for_sectors(mask: u8, mut act: impl FnMut(std::ops::Range<usize>)) {
    for sector in 0..PAGE_BYTES / SECTOR_BYTES {
        if mask & (1 << sector) != 0 {
            act(sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, PAGE_BYTES};
    use crate::disk::SECTOR_BYTES;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    #[derive(Clone, Debug)]
    enum Step {
        Write { offset: usize, length: usize, byte: u8 },
        SetLen(usize),
        Sync,
        FailSync,
        PowerLoss { survives: Vec<bool> },
    }

    fn step() -> impl Strategy<Value = Step> {
        const END: usize = 3 * PAGE_BYTES;
        let write = (0..END, 1..2 * PAGE_BYTES, 0..4_u8, any::<bool>());
        prop_oneof![
            6 => write.prop_map(|(offset, length, byte, aligned)| {
                let offset = if aligned { offset / SECTOR_BYTES * SECTOR_BYTES } else { offset };
                Step::Write { offset, length, byte }
            }),
            1 => (0..END).prop_map(Step::SetLen),
            2 => Just(Step::Sync),
            1 => Just(Step::FailSync),
            1 => proptest::collection::vec(any::<bool>(), 64).prop_map(|survives| Step::PowerLoss { survives }),
        ]
    }

    /// The plainest model: bytes as read, and for each sector what the disk holds.
    #[derive(Default)]
    struct Plain {
        cache: Vec<u8>,
        old: std::collections::BTreeMap<usize, (Vec<u8>, bool)>,
        durable_length: usize,
    }

    impl Plain {
        fn sector(&self, number: usize) -> Vec<u8> {
            let at = |offset: usize| self.cache.get(offset).copied().unwrap_or(0);
            (number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES).map(at).collect()
        }

        fn touch(&mut self, number: usize) {
            let held = self.old.get(&number).map_or_else(|| self.sector(number), |(held, _)| held.clone());
            self.old.insert(number, (held, false));
        }

        fn take(&mut self, step: &Step) {
            match step {
                Step::Write { offset, length, byte } => {
                    let end = offset + length;
                    let longer = self.cache.len().max(end);
                    self.cache.resize(longer, 0);
                    for number in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
                        self.touch(number);
                    }
                    self.cache[*offset..end].fill(*byte);
                }
                Step::SetLen(length) => {
                    let touched = length / SECTOR_BYTES..self.cache.len().div_ceil(SECTOR_BYTES);
                    if *length < self.cache.len() {
                        touched.for_each(|number| self.touch(number));
                    }
                    self.cache.resize(*length, 0);
                }
                Step::Sync => {
                    self.old.retain(|_, (_, abandoned)| *abandoned);
                    self.durable_length = self.cache.len();
                }
                Step::FailSync => self.old.values_mut().for_each(|(_, abandoned)| *abandoned = true),
                Step::PowerLoss { .. } => unreachable!("compared by its bounds"),
            }
        }
    }

    fn read(content: &Content) -> Vec<u8> {
        let mut bytes = vec![9; content.len() + 1];
        let count = content.read(&mut bytes, 0);
        bytes.truncate(count);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// What reads see is what was written; after a power loss each sector is as it was written or as the disk held it, and
        /// what was synced (or whose sync failed) is as the disk has to hold it.
        #[test]
        fn a_file_is_what_the_plainest_model_says(steps in proptest::collection::vec(step(), 1..40)) {
            let (mut content, mut plain) = (Content::default(), Plain::default());
            for step in &steps {
                match step {
                    Step::Write { offset, length, byte } => content.write(&vec![*byte; *length], *offset),
                    Step::SetLen(length) => content.set_len(*length),
                    Step::Sync => content.sync(),
                    Step::FailSync => content.fail_sync(),
                    Step::PowerLoss { survives } => {
                        let mut draws = survives.iter().copied().cycle();
                        content.power_lost(|| draws.next().unwrap());
                        let found = read(&content);
                        if found.len() != plain.cache.len() {
                            prop_assert_eq!(found.len(), plain.durable_length);
                        }
                        plain.cache.resize(found.len(), 0);
                        for number in 0..found.len().div_ceil(SECTOR_BYTES) {
                            let end = found.len().min((number + 1) * SECTOR_BYTES);
                            let (sector, length) = (&found[number * SECTOR_BYTES..end], end - number * SECTOR_BYTES);
                            let new = &plain.sector(number)[..length];
                            match plain.old.get(&number) {
                                Some((held, true)) => prop_assert_eq!(sector, &held[..length]),
                                Some((held, false)) if sector != new => prop_assert_eq!(sector, &held[..length]),
                                _ => prop_assert_eq!(sector, new),
                            }
                        }
                        plain = Plain { durable_length: found.len(), cache: found, ..Plain::default() };
                        continue;
                    }
                }
                plain.take(step);
                prop_assert_eq!(read(&content), plain.cache.clone());
            }
        }
    }
}
