//! Addresses: what is listened on, and what others are told.

/// Checks that `addr` is `host:port` with both.
///
/// # Errors
/// Text that says what is wrong with it.
pub(super) fn check_address(addr: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{addr:?} is no address: {why}; expected host:port"));
    if addr.len() > 300 || addr.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong("it has characters that no address has, or too many");
    }
    match split(addr) {
        None => wrong("it has no port"),
        Some(("", _)) => wrong("it has no host"),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            wrong("an IPv6 host has to stand in brackets")
        }
        Some((_, port)) => match port.parse::<u16>() {
            Ok(1..) => Ok(()),
            _ => wrong("its port is no number from 1 to 65535"),
        },
    }
}

/// What the others are told: `advertise` (`host` or `host:port`), where it is given; otherwise `listen`, with `host_name`
/// in the place of "every interface".
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

fn split(addr: &str) -> Option<(&str, &str)> {
    addr.rsplit_once(':')
}

#[cfg(test)]
mod tests;
