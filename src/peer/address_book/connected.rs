//! A connection over which a peer speaks, and why it is closed.

use crate::codec::FeatureLevel;
use crate::peer::hello::{PING_MICROS, PeerHello};
use crate::raft::{Incarnation, StoreId, Time};
use crate::tls::PeerCertificate;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A peer that was heard within this time on an open connection lives: an idle connection says
/// something more often.
pub(super) const ALIVE_MICROS: u64 = 4 * PING_MICROS;

/// A connection over which a peer speaks.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(super) store: StoreId,
    pub(super) incarnation: Incarnation,
    /// When something last came, microseconds.
    heard_micros: AtomicU64,
    /// A later start of the same data directory speaks over another one, or the same start over so
    /// many that this one is not remembered.
    pub(super) superseded: AtomicBool,
    /// Until when it may still speak, microseconds, if it is known that it was removed.
    pub(super) removed_until_micros: AtomicU64,
    /// It has ended.
    pub(super) ended: AtomicBool,
    /// The caller's certificate, where connections are secured.
    pub(super) shown: Option<PeerCertificate>,
    /// The membership has come since, and has another name for the caller than its certificate.
    pub(super) is_misnamed: AtomicBool,
    /// The membership has come since, and does not name the caller; nor has anybody else.
    pub(super) is_unconfirmed: AtomicBool,
    /// The level at which both speak.
    pub(super) level: FeatureLevel,
    /// The cluster's level has been raised above it.
    pub(super) is_outgrown: AtomicBool,
}

/// Why a connection that was let in is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// A later start of the same data directory speaks over another one, or the same start over
    /// many others.
    Superseded,
    /// The caller was let in before this node knew that it had been removed. When it calls again,
    /// it is told so.
    Removed,
    /// The caller was let in before this node knew the member for which it speaks, and its
    /// certificate is not that member's.
    Misnamed,
    /// The caller was let in before this node knew any member, and is none of those that it knows
    /// now. Somebody has to confirm it.
    Unconfirmed,
    /// The level of the cluster has been raised above the one that is spoken here.
    Outgrown,
}

impl Connected {
    /// One that has just been let in.
    pub(super) const fn new(
        (store, incarnation): (StoreId, Incarnation),
        shown: Option<PeerCertificate>,
        level: FeatureLevel,
        now: Time,
    ) -> Self {
        Self {
            store,
            incarnation,
            heard_micros: AtomicU64::new(now.get()),
            superseded: AtomicBool::new(false),
            removed_until_micros: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
            shown,
            is_misnamed: AtomicBool::new(false),
            is_unconfirmed: AtomicBool::new(false),
            level,
            is_outgrown: AtomicBool::new(false),
        }
    }

    /// Something came.
    ///
    /// # Errors
    /// Why the connection has to be closed, if it has.
    pub(crate) fn heard(&self, now: Time) -> Result<(), Closing> {
        self.heard_micros.store(now.get(), Ordering::Relaxed);
        if self.superseded.load(Ordering::Relaxed) {
            return Err(Closing::Superseded);
        }
        if self.is_misnamed.load(Ordering::Relaxed) {
            return Err(Closing::Misnamed);
        }
        if self.is_outgrown.load(Ordering::Relaxed) {
            return Err(Closing::Outgrown);
        }
        if now.get() >= self.removed_until_micros.load(Ordering::Relaxed) {
            return Err(Closing::Removed);
        }
        if self.is_unconfirmed.load(Ordering::Relaxed) {
            return Err(Closing::Unconfirmed);
        }
        Ok(())
    }

    /// The level at which both speak.
    pub(crate) const fn level(&self) -> FeatureLevel {
        self.level
    }

    /// The connection has ended.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether a process other than `caller` lives at its other end.
    pub(super) fn is_twin_of(&self, caller: &PeerHello, now: Time) -> bool {
        let silent = now.get().saturating_sub(self.heard_micros.load(Ordering::Relaxed));
        self.store == caller.store
            && self.incarnation != caller.starts.incarnation()
            && !self.ended.load(Ordering::Relaxed)
            && silent < ALIVE_MICROS
    }
}
