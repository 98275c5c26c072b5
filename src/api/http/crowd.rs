//! What clients get when nearly all connections are taken.

/// In a crowd, connections get this part of their time-outs: one in 10.
pub(super) const CROWDED_PART: u64 = 10;

/// Whether nearly all connections are taken, and whether the client at hand has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowd {
    pub(super) crowded: bool,
    pub(super) is_known: bool,
}

impl Crowd {
    /// What a client gets of a time-out, seconds: a tenth in a crowd, unless it is known.
    pub(super) fn part_of(self, seconds: u64) -> u64 {
        if self.crowded && !self.is_known { seconds.div_ceil(CROWDED_PART) } else { seconds }
    }
}
