//! What a store remembers of commands under idempotency keys, and what it has forgotten.

use crate::codec::FeatureLevel;
use crate::kv::command::{Command, ForgottenAnswer, Outcome, Refusal};
use crate::kv::store::Store;
use crate::kv::types::Revision;

impl Store {
    pub(super) fn remember(&mut self, key: &[u8], answer: (u128, &Outcome)) {
        self.answers.remember(key, answer, self.revision, self.settings.answers_bytes);
    }

    /// Why the answer to a first attempt may be forgotten, if its client says since when it counts.
    /// A first attempt was answered at that revision or later, since its client had seen it before.
    pub(super) fn forgotten(&self, command: &Command) -> Option<Refusal> {
        let since = command.since.filter(|_| self.answers.are_dated())?;
        let through = if since > self.revision {
            self.revision
        } else if self.answers.are_known_since(since) {
            return None;
        } else {
            Revision(self.answers.forgotten_below().0.saturating_sub(1))
        };
        Some(Refusal::AnswerForgotten(ForgottenAnswer { since, through }))
    }

    /// The cluster is about to be raised to a level. If answers are dated from that one on, what is
    /// known of those before is that they were made up to now, if there was any.
    pub(super) fn date_answers(&mut self, level: FeatureLevel) {
        if level >= FeatureLevel::DATES_ANSWERS && !self.answers.are_dated() {
            let below = if self.is_untouched() { Revision(0) } else { self.revision.next() };
            self.answers.date(below);
        }
    }

    /// What remembered answers take, bytes.
    #[must_use]
    pub const fn answers_bytes(&self) -> u64 {
        self.answers.bytes()
    }

    /// The number of the last answer that was remembered.
    #[must_use]
    pub const fn last_answer(&self) -> u64 {
        self.answers.last_number()
    }

    /// The number of the oldest answer that is remembered, if there is one. Denials do not count:
    /// they are forgotten apart.
    #[must_use]
    pub fn oldest_answer(&self) -> Option<u64> {
        self.answers.oldest_number()
    }

    /// Every answer that is forgotten, denials apart, was made at a revision below this one. 0:
    /// none is forgotten, or the level of the cluster is one at which nobody knows.
    #[must_use]
    pub const fn answers_forgotten_below(&self) -> Revision {
        self.answers.forgotten_below()
    }
}
