//! Which addresses other nodes are told.

use crate::codec::{HostPort, host_of};

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
