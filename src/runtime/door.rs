//! What both ports do for each connection that comes in: count connections by caller, and log once
//! that accepting fails.

use crate::codec::host_of;
use crate::raft::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A caller with at most this many connections may use the reserve.
const FEW: usize = 8;
/// An episode is over when nothing has failed for this time.
const EPISODE_MICROS: u64 = 10_000_000;
/// The reserve is one place in this many.
const RESERVED_ONE_IN: usize = 16;

/// What counts as one caller: an IPv4 address, or an IPv6 network of 64 bits, which is what one
/// host or customer has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// A host.
    Host(IpAddr),
    /// An address that is no IP address (in a simulation).
    Other(String),
}

impl Caller {
    /// The network of 48 bits that it is in, which is what one site has: 65,536 callers.
    pub(crate) fn site(&self) -> Option<Ipv6Addr> {
        match self {
            Self::Host(IpAddr::V6(ip)) if !ip.is_loopback() => {
                Some(Ipv6Addr::from(u128::from(*ip) & !(u128::MAX >> 48)))
            }
            Self::Host(_) | Self::Other(_) => None,
        }
    }

    /// What it counts for where one must not take all: its site, if it has one, or itself.
    pub(crate) fn group(&self) -> Self {
        self.site().map_or_else(|| self.clone(), |site| Self::Host(IpAddr::V6(site)))
    }

    /// The caller behind `from`, as a listener names it: `host:port`.
    pub(crate) fn of(from: &str) -> Self {
        let ip = from.parse::<SocketAddr>().map(|addr| addr.ip().to_canonical());
        match ip {
            Ok(IpAddr::V6(ip)) if !ip.is_loopback() => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                Self::Host(IpAddr::V6(Ipv6Addr::from(network)))
            }
            Ok(ip) => Self::Host(ip),
            Err(_) => Self::Other(host_of(from).to_owned()),
        }
    }
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are too many connections.
    All,
    /// There are too many from its address.
    Address,
}

/// A number of places, which one caller cannot take all: an address, or a site of IPv6. The last
/// ones are for callers that have few.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    per_address_max: usize,
    taken: usize,
    /// How many each has, by [`Caller::group`].
    by_group: BTreeMap<Caller, usize>,
    /// The same the other way round: the one that has most comes last.
    by_count: BTreeSet<(usize, Caller)>,
}

impl Places {
    /// At most `max` places, and for one caller at most `per_address_max` of them.
    pub(crate) fn new(max: usize, per_address_max: usize) -> Self {
        let (by_group, by_count) = Default::default();
        Self { max, per_address_max, taken: 0, by_group, by_count }
    }

    /// Takes one.
    pub(crate) fn take(&mut self, caller: &Caller) -> Result<(), Full> {
        let mine = self.of(caller);
        if self.missing(caller) > 0 {
            return Err(Full::All);
        }
        if mine >= self.per_address_max {
            return Err(Full::Address);
        }
        self.taken += 1;
        self.set(caller.group(), mine, mine + 1);
        Ok(())
    }

    /// Gives back one that was taken.
    pub(crate) fn give_back(&mut self, caller: &Caller) {
        self.taken -= 1;
        let mine = self.of(caller);
        self.set(caller.group(), mine, mine.saturating_sub(1));
    }

    /// How many have to be given back before there is one for that caller.
    pub(crate) fn missing(&self, caller: &Caller) -> usize {
        let reserve = if self.of(caller) < FEW { 0 } else { self.max / RESERVED_ONE_IN };
        (self.taken + reserve + 1).saturating_sub(self.max)
    }

    /// How many a caller has, with its site.
    pub(crate) fn of(&self, caller: &Caller) -> usize {
        self.by_group.get(&caller.group()).copied().unwrap_or(0)
    }

    /// The caller, or site, that has most, and how many.
    pub(crate) fn busiest(&self) -> Option<(&Caller, usize)> {
        self.by_count.last().map(|(count, group)| (group, *count))
    }

    fn set(&mut self, group: Caller, before: usize, after: usize) {
        self.by_count.remove(&(before, group.clone()));
        if after == 0 {
            self.by_group.remove(&group);
        } else {
            self.by_count.insert((after, group.clone()));
            self.by_group.insert(group, after);
        }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Whether nine of ten are taken.
    pub(crate) fn is_low(&self) -> bool {
        self.taken * 10 >= self.max * 9
    }
}

/// Something that fails again and again for one reason, with successes in between: it is logged
/// when it begins, and when it has been over for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Episode {
    failures: u64,
    last: Time,
}

impl Episode {
    /// It failed. Returns whether to log that.
    pub(crate) fn failed(&mut self, now: Time) -> bool {
        self.failures += 1;
        self.last = now;
        self.failures == 1
    }

    /// It went well. How often it had failed before, if that is over now.
    pub(crate) fn ended(&mut self, now: Time) -> Option<u64> {
        let is_over = self.failures > 0 && now.since(self.last) >= EPISODE_MICROS;
        is_over.then(|| std::mem::take(&mut self.failures))
    }
}

#[cfg(test)]
mod tests;
