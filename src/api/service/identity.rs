//! Who asks.

use crate::kv::{Denial, Principal};

/// The caller, as far as it is known. One connection's requests may come from several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What the credentials have proved. `None`: there were none, or nothing is judged.
    pub(crate) by: Option<Principal>,
    /// The user's name.
    pub(crate) user: Option<String>,
    /// The token's name.
    pub(crate) token: Option<String>,
    /// The client's certificate, which was verified when the connection was made.
    pub(crate) certificate: Option<Shown>,
    /// Where the connection comes from.
    pub(crate) address: String,
    /// When it ends, seconds since 1970.
    pub(crate) ends_at: Option<u64>,
}

/// What counts of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Its name.
    pub(crate) name: String,
    /// Until when it is valid, seconds since 1970.
    pub(crate) ends_at: u64,
}

impl Identity {
    /// The name of the client's certificate.
    pub(crate) fn certificate_name(&self) -> Option<&String> {
        self.certificate.as_ref().map(|shown| &shown.name)
    }

    /// Whether it counts still, by a wall clock in microseconds since 1970. How much longer it
    /// will, microseconds.
    pub(crate) fn left_micros(&self, wall_micros: u64) -> Result<u64, Denial> {
        match self.ends_at {
            None => Ok(u64::MAX),
            Some(ends_at) => match ends_at.saturating_mul(1_000_000).saturating_sub(wall_micros) {
                0 => Err(Denial::Ended),
                left => Ok(left),
            },
        }
    }
}
