use super::FileImage;
use crate::hardware::file_image::SECTOR_BYTES;
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
    const END: usize = 12_000;
    let write = (0..END, 1..6_000_usize, 0..4_u8, any::<bool>());
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

fn read(content: &FileImage) -> Vec<u8> {
    let mut bytes = vec![9; content.len() + 1];
    let count = content.read(&mut bytes, 0);
    bytes.truncate(count);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// What reads see is what was written; after a power loss each sector is as it was written
    /// or as the disk held it, and what was synced (or whose sync failed) is as the disk has to
    /// hold it.
    #[test]
    fn a_file_is_what_the_plainest_model_says(steps in proptest::collection::vec(step(), 1..40)) {
        let (mut content, mut plain) = (FileImage::default(), Plain::default());
        for step in &steps {
            match step {
                Step::Write { offset, length, byte: 0 } => content.write_zeros(*length, *offset),
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
