//! The files with a node's certificate, which change while the node runs.

use crate::madsim_engine::time::now;
use crate::schedule::SECOND;
use infinitystore::tls::{CertificateSource, PemSet, TlsError};
use std::sync::{Mutex, PoisonError};

pub(super) const AUTHORITY: &str = include_str!("certificates/ca.pem");
const OTHER_AUTHORITY: &str = include_str!("certificates/other-ca.pem");
/// How often the files change.
const CHANGES_MICROS: u64 = 7 * SECOND;

/// A certificate and its key, in one text.
#[derive(Debug)]
pub(super) struct Files {
    name: String,
    pair: String,
    is_ours: bool,
    looks: Mutex<Looks>,
}

/// How often files were read, and what they were then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    pub looks: u64,
    /// How often they held a new certificate.
    pub reloads: u64,
    /// Whether they were no good.
    pub is_bad: bool,
    /// Which ones were good last.
    turn: Option<bool>,
}

impl Looks {
    /// The files are read, in this turn. Those that would be the same as before are now and then no
    /// good: nobody has to do without a new certificate for it.
    const fn look(&mut self, turn: bool) {
        let is_same = matches!(self.turn, Some(last) if last == turn);
        self.looks += 1;
        self.is_bad = is_same && !self.is_bad;
        if !is_same {
            self.reloads += self.turn.is_some() as u64;
            self.turn = Some(turn);
        }
    }
}

impl Files {
    /// Those of a node of that name.
    pub(super) fn new(name: String, pair: String, is_ours: bool) -> Self {
        Self { name, pair, is_ours, looks: Mutex::default() }
    }

    /// So far.
    pub(super) fn looks(&self) -> Looks {
        *self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CertificateSource for Files {
    fn read(&self) -> Result<PemSet, TlsError> {
        // The files change again and again, so that nodes take them into use while connections
        // live.
        let is_even = (now() / CHANGES_MICROS).is_multiple_of(2);
        let turn = if is_even { "" } else { "\n" };
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.look(is_even);
        let certificate = if looks.is_bad { "no certificate" } else { &*self.pair };
        let (certificate, key) =
            (format!("{certificate}{turn}").into_bytes(), self.pair.clone().into_bytes());
        // A node that trusts another cluster, too, is not trusted by it for that.
        let others = if self.is_ours { "" } else { OTHER_AUTHORITY };
        let authorities = format!("{AUTHORITY}{others}").into_bytes();
        Ok(PemSet { certificate, key, authorities })
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
