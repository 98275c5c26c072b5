//! The numbers of the files' formats.

use crate::codec::FeatureLevel;

/// The format of segments and snapshot files, and the only one that this program reads. What is in
/// them depends on the level of the cluster: the identity of a directory says the level at least.
pub(crate) const FORMAT_VERSION: u32 = 7;

/// The number in an identity of a directory whose log and snapshots are of that level at most.
pub(crate) fn format_of(level: FeatureLevel) -> u32 {
    level.get().into()
}

/// The level that a number in an identity stands for, if this program reads it.
pub(crate) fn level_of(format: u32) -> Option<FeatureLevel> {
    let level = u16::try_from(format).ok().map(FeatureLevel::new)?;
    (FeatureLevel::OLDEST..=FeatureLevel::NEWEST).contains(&level).then_some(level)
}
