//! Which addresses other nodes are told.

use crate::codec::{self, HostPort, host_of};
use std::net::IpAddr;

/// Checks that `addr` is `host:port` with both, and that there is somewhere to connect to.
///
/// # Errors
/// Text that says what is wrong with it.
pub(super) fn check_address(addr: &str) -> Result<(), String> {
    match HostPort::parse_remote(addr) {
        Ok(_) => Ok(()),
        Err(why) => Err(format!("{addr:?} is no address: {why}; expected host:port")),
    }
}

/// Whether `addr` is written as one that is good on one link only. A name may stand for such an
/// address all the same: [`Env::connect_beyond_link`](crate::runtime::Env::connect_beyond_link).
#[must_use]
pub(super) fn is_link_local(addr: &str) -> bool {
    let host = host_of(addr);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok_and(codec::is_link_local)
}

/// The address that other nodes are told: `advertise` (`host` or `host:port`) if it is given,
/// otherwise `listen`, with `host_name` in place of "every interface".
#[must_use]
pub(super) fn advertised(listen: &str, advertise: Option<&str>, host_name: &str) -> String {
    let listens = HostPort::parse(listen).unwrap_or(HostPort { host: host_of(listen), port: 0 });
    match advertise {
        Some(given) if HostPort::parse_remote(given).is_ok() => given.to_owned(),
        Some(host) => format!("{host}:{}", listens.port),
        None if listens.is_every_interface() => format!("{host_name}:{}", listens.port),
        None => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests;
