//! The level of the cluster: it is raised once all members speak a higher one, and an older release
//! goes on until then.

use crate::record::violation::{Violation, check};
use crate::schedule::SECOND;
use infinitystore::codec::{FeatureLevel, FeatureLevels};
use infinitystore::raft::NodeId;
use std::collections::BTreeMap;

/// What a member said of its levels counts for three seconds on the leader, after it has come. With
/// clocks that are off, and messages that are late, this is enough.
const SAID_MICROS: u64 = 10 * SECOND;

/// What has been seen of levels.
#[derive(Debug, Default)]
pub struct LevelChecks {
    /// By machine: the highest level that a process of its has spoken, and when the last one ended
    /// that did; `None`: it runs.
    spoke: BTreeMap<usize, (FeatureLevel, Option<u64>)>,
    /// The highest level that a leader has proposed.
    raised: FeatureLevel,
}

impl LevelChecks {
    /// A process starts that speaks at most that level.
    pub fn started(&mut self, slot: usize, highest: FeatureLevel) {
        let known = self.spoke.entry(slot).or_insert((highest, None));
        if highest >= known.0 {
            *known = (highest, None);
        }
    }

    /// The process ends.
    pub fn ended(&mut self, slot: usize, now: u64) {
        if let Some((_, ended)) = self.spoke.get_mut(&slot) {
            ended.get_or_insert(now);
        }
    }

    /// A leader proposes a level, in a cluster of these machines.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn raised(&mut self, level: FeatureLevel, members: &[usize], now: u64) -> Result<(), Violation> {
        self.raised = self.raised.max(level);
        for slot in members {
            let spoke = self.spoke.get(slot);
            let is_known = spoke.is_some_and(|(highest, ended)| {
                *highest >= level && ended.is_none_or(|ended| now <= ended + SAID_MICROS)
            });
            check!(
                "a level is raised once all members speak it",
                is_known,
                "level {level} is proposed, and machine {slot} has spoken {spoke:?}"
            );
        }
        Ok(())
    }

    /// A leader proposes a level, and its members said this of theirs when they connected last.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn raised_after(
        &self,
        level: FeatureLevel,
        met: &[(NodeId, FeatureLevels)],
    ) -> Result<(), Violation> {
        let less = met.iter().find(|(_, speaks)| speaks.highest() < level);
        check!(
            "a level is not raised beyond what a member has said last",
            less.is_none(),
            "level {level} is proposed, and {less:?} connected last"
        );
        Ok(())
    }

    /// An older release refuses its directory.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn refuses(&self, slot: usize) -> Result<(), Violation> {
        check!(
            "an older release goes on while the level is low",
            self.raised > FeatureLevel::OLDEST,
            "machine {slot} refuses its directory, and no level was raised"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests;
