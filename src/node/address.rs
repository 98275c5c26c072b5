//! Addresses: what is listened on, and what others are told.

use std::net::IpAddr;

/// Checks that `addr` is `host:port` with both, and that there is somewhere to connect to.
///
/// # Errors
/// Text that says what is wrong with it.
pub(super) fn check_address(addr: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{addr:?} is no address: {why}; expected host:port"));
    if addr.len() > 300 || addr.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong("it has characters that no address has, or too many");
    }
    if addr.contains("://") {
        return wrong("it is a URL; leave out everything up to //");
    }
    match split(addr) {
        None => wrong("it has no port"),
        Some(("", _)) => wrong("it has no host"),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            wrong("an IPv6 host has to stand in brackets")
        }
        Some((host, _)) if is_unspecified(host) => wrong(
            "it means every interface, so nobody can connect to it; name the host by which others reach it",
        ),
        Some((_, port)) => match port.parse::<u16>() {
            Ok(1..) => Ok(()),
            _ => wrong("its port is no number from 1 to 65535"),
        },
    }
}

/// The address that other nodes are told: `advertise` (`host` or `host:port`) if it is given,
/// otherwise `listen`, with `host_name` in place of "every interface".
#[must_use]
pub(super) fn advertised(listen: &str, advertise: Option<&str>, host_name: &str) -> String {
    let (listen_host, port) = split(listen).unwrap_or((listen, "0"));
    match advertise {
        Some(given) if check_address(given).is_ok() => given.to_owned(),
        Some(host) => format!("{host}:{port}"),
        None if is_every_interface(listen_host) => format!("{host_name}:{port}"),
        None => listen.to_owned(),
    }
}

/// The host of `host:port`.
#[must_use]
pub(super) fn host_of(addr: &str) -> &str {
    split(addr).map_or(addr, |(host, _)| host)
}

/// Whether to listen on that host means to listen everywhere.
#[must_use]
pub(super) fn is_every_interface(host: &str) -> bool {
    matches!(host, "" | "0.0.0.0" | "[::]")
}

/// Whether that host is the address that stands for all of a machine's own, however it is written.
fn is_unspecified(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "0" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

fn split(addr: &str) -> Option<(&str, &str)> {
    addr.rsplit_once(':')
}

#[cfg(test)]
mod tests;
