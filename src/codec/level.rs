//! Feature levels: one number for what nodes say to each other, what stands in the log and what is
//! in the files.
//!
//! A release speaks a range of levels. Two nodes talk at the highest one that both speak. A cluster
//! has a level too: an entry of the log raises it, once all members speak it. What a level adds is
//! used from then on, and never before.

use crate::codec::wire::{DecodeError, Reader, Writer};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// What a release can say, log and store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(u16);

impl FeatureLevel {
    /// The oldest one that this release speaks.
    pub const OLDEST: Self = Self(7);
    /// The newest one.
    pub const NEWEST: Self = Self(8);
    /// The level of a cluster that no entry has raised. Neither the hash of its state nor a
    /// snapshot says it; they say every other. It stays this one, whatever a later release speaks.
    pub const UNTOLD: Self = Self(7);
    /// From here on nodes tell each other which levels they speak, and a cluster has a level. What
    /// no entry has raised is at the level before.
    pub const NEGOTIATES: Self = Self(8);
    /// From here on a remembered answer has the revision that it was made at, and a command may say
    /// what its client had seen before it asked first.
    pub const DATES_ANSWERS: Self = Self(8);

    /// The level of that number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The data of the entry that raises a cluster to it.
    #[must_use]
    pub fn to_data(self) -> Vec<u8> {
        let mut data = Vec::with_capacity(2);
        self.encode(&mut data);
        data
    }

    /// Reads that.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else.
    pub fn from_data(data: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(data);
        let level = Self::take(&mut reader)?;
        reader.finish("level")?;
        Ok(level)
    }

    /// Appends it to `out`.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u16(self.0);
    }

    /// Reads it. None is 0.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u16("level")? {
            0 => Err(DecodeError::Invalid { what: "level", value: 0 }),
            number => Ok(Self(number)),
        }
    }
}

/// The level of a cluster of which nothing says more.
impl Default for FeatureLevel {
    fn default() -> Self {
        Self::UNTOLD
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The levels that a node speaks: all from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeatureLevels {
    lowest: FeatureLevel,
    highest: FeatureLevel,
}

impl FeatureLevels {
    /// Those of this release.
    pub const OF_THIS_RELEASE: Self = Self { lowest: FeatureLevel::OLDEST, highest: FeatureLevel::NEWEST };
    /// Those of the oldest release that this one talks to.
    pub const OF_THE_OLDEST: Self = Self::only(FeatureLevel::OLDEST);

    /// From one to another; `None` if the first is higher.
    #[must_use]
    pub const fn new(lowest: FeatureLevel, highest: FeatureLevel) -> Option<Self> {
        if lowest.0 <= highest.0 { Some(Self { lowest, highest }) } else { None }
    }

    /// One level.
    #[must_use]
    pub const fn only(level: FeatureLevel) -> Self {
        Self { lowest: level, highest: level }
    }

    /// The lowest.
    #[must_use]
    pub const fn lowest(self) -> FeatureLevel {
        self.lowest
    }

    /// The highest.
    #[must_use]
    pub const fn highest(self) -> FeatureLevel {
        self.highest
    }

    /// Those of them that are not above a level; `None` if all are.
    #[must_use]
    pub fn up_to(self, highest: FeatureLevel) -> Option<Self> {
        Self::new(self.lowest, self.highest.min(highest))
    }

    /// Whether a level is among them.
    #[must_use]
    pub fn contains(self, level: FeatureLevel) -> bool {
        self.lowest <= level && level <= self.highest
    }

    /// The highest level that both sides speak and that is not below `least`; `None` if there is
    /// none.
    #[must_use]
    pub fn common(self, other: Self, least: FeatureLevel) -> Option<FeatureLevel> {
        let level = self.highest.min(other.highest);
        (level >= self.lowest && level >= other.lowest && level >= least).then_some(level)
    }

    /// Appends them to `out`.
    pub fn encode(self, out: &mut Vec<u8>) {
        self.lowest.encode(out);
        self.highest.encode(out);
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (lowest, highest) = (FeatureLevel::take(reader)?, FeatureLevel::take(reader)?);
        let value = u64::from(highest.get());
        Self::new(lowest, highest).ok_or(DecodeError::Invalid { what: "highest level", value })
    }
}

/// Those of this release.
impl Default for FeatureLevels {
    fn default() -> Self {
        Self::OF_THIS_RELEASE
    }
}

/// `7`, or `7 to 8`.
impl fmt::Display for FeatureLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            self.lowest.fmt(f)
        } else {
            write!(f, "{} to {}", self.lowest, self.highest)
        }
    }
}

#[cfg(test)]
mod tests;
