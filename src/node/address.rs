//! Which addresses other nodes are told.

use crate::codec::{HostPort, host_of};
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

/// Whether `addr` is good on one link only (RFC 3927, RFC 4291 §2.5.6). Machines in a cloud find
/// secrets of their own behind such an address.
#[must_use]
pub(super) fn is_link_local(addr: &str) -> bool {
    let host = host_of(addr);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        Err(_) => false,
    }
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
