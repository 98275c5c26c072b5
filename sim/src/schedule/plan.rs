//! What is decided before a run, and what clients ask.

use crate::schedule::fault::Fault;
use crate::schedule::settings::Settings;
use infinitystore::codec::FeatureLevels;
use serde::{Deserialize, Serialize};

/// Everything that is decided before a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Seed of all that is drawn during the run.
    pub seed: u64,
    /// Machines that are voters from the start: slots `0..voters`.
    pub voters: usize,
    /// Machines that may be added: slots `voters..voters + spares`.
    pub spares: usize,
    /// How long faults and clients go on; afterwards faults end, and the cluster has to recover.
    pub duration_micros: u64,
    /// How the surroundings behave all the time.
    pub settings: Settings,
    /// What strikes when, in order of time.
    pub faults: Vec<Timed<Fault>>,
    /// What each client asks, in order of time.
    pub clients: Vec<Vec<Timed<Operation>>>,
    /// What each client of the keyspace asks, in order of time.
    #[serde(default)]
    pub keyspace: Vec<Vec<Timed<KeyspaceOperation>>>,
    /// Whether there are users, roles and tokens: clients of the keyspace come as somebody, and the
    /// last of them are administrators.
    #[serde(default)]
    pub users: bool,
    /// Whether all machines begin with the oldest release, and are upgraded one by one.
    #[serde(default)]
    pub mixed: bool,
}

/// Something at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// Microseconds from the start.
    pub at: u64,
    /// What happens then.
    pub what: T,
}

impl Schedule {
    /// The feature levels that machines speak at first.
    #[must_use]
    pub const fn first_levels(&self) -> FeatureLevels {
        if self.mixed { FeatureLevels::OF_THE_OLDEST } else { FeatureLevels::OF_THIS_RELEASE }
    }

    /// All machines.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.voters + self.spares
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which machine it asks.
    pub slot: usize,
    /// The key.
    pub key: u8,
    /// What it asks.
    pub kind: OperationKind,
}

/// What a client does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    /// Sets it to a value that no other operation sets.
    Set,
    /// Removes it.
    Delete,
    /// Reads it, linearizably.
    Get,
}

/// What a client of the keyspace asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceOperation {
    /// Which machine it asks.
    pub slot: usize,
    /// What it asks.
    pub kind: KeyspaceKind,
    /// Decides all that `kind` leaves open: keys, values, revisions, conditions.
    pub draw: u64,
}

/// What a client does with the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyspaceKind {
    /// Sets a key, with or without a lease.
    Put,
    /// Removes a range.
    Delete,
    /// A transaction.
    Txn,
    /// Adds to a number.
    Increment,
    /// Sets a key if it is still what it was.
    Swap,
    /// Reads a key.
    Key,
    /// Reads a range, page after page, as of one revision.
    Scan,
    /// Reads a page of the past.
    Past,
    /// Lists leases, the keys of one, or the settings.
    List,
    /// Grants a lease.
    Grant,
    /// Renews one.
    Renew,
    /// Asks for the time that one has.
    TimeLeft,
    /// Ends one.
    Revoke,
    /// Ends one and grants it again, without waiting for the first answer.
    Regrant,
    /// Forgets the past.
    Compact,
    /// Makes the cluster's limits small.
    Limit,
    /// Makes them large again.
    Unlimit,
    /// Repeats a command under its idempotency key.
    Repeat,
    /// Does another one under a key that was used.
    Reuse,
    /// Waits for a change.
    Watch,
    /// Changes users, roles and tokens, or whether they count.
    Secure,
}
