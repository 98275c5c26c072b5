//! The level of the cluster, as the model knows it: from one level on answers are dated.

use crate::checks::keyspace::model::{Model, Sums};
use infinitystore::codec::FeatureLevel;
use infinitystore::kv::Settings;

impl Model {
    /// An entry that raises the level of the cluster: the state's hash has it.
    pub fn raise_level(&mut self, level: FeatureLevel) {
        self.shadow.raise_level(level);
        let mut sums = Sums { is_repeated: false, hash: self.shadow.state_hash(), ..self.now().clone() };
        if level >= FeatureLevel::DATES_ANSWERS {
            let is_new = sums.revision + self.grants == 0 && self.rules.len() == 1;
            self.answers.date(sums.revision, !is_new || sums.settings != Settings::default());
            sums.forgotten_below = self.answers.forgotten_below();
            self.dated_at = self.dated_at.min(self.sums.len());
        }
        self.sums.push(sums);
    }

    /// Whether answers are dated after the entry of an index.
    #[must_use]
    pub const fn are_dated_at(&self, index: usize) -> bool {
        self.dated_at <= index
    }
}
