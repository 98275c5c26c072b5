//! Names and addresses as text: their limits, and what `host:port` consists of. This is the only
//! place that takes an address apart.

use core::net::IpAddr;

/// Bytes of a node's name, at most. The name is the name of a directory too.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of an address, at most: the longest name of a host has 253, and the port follows it.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// Names below it are this machine's (RFC 6761).
const LOCAL_DOMAIN: &[u8] = b".localhost";

/// The rule that a name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 128 bytes without blanks and slashes, and does not begin with a dot")]
pub struct NameError;

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Blanks, control characters, or more than [`ADDRESS_BYTES_MAX`] bytes.
    #[error("it has characters that no address has, or too many")]
    Characters,
    /// `scheme://…`.
    #[error("it is a URL; leave out everything up to //")]
    Url,
    /// There is no colon.
    #[error("it has no port")]
    NoPort,
    /// Nothing stands before the colon.
    #[error("it has no host")]
    NoHost,
    /// An IPv6 host without brackets.
    #[error("an IPv6 host has to stand in brackets")]
    Brackets,
    /// The address that stands for all of a machine's own.
    #[error("it means every interface, so nobody can connect to it; name the host by which others reach it")]
    EveryInterface,
    /// The port is no number, or 0 where it has to be known.
    #[error("its port is no number from 1 to 65535")]
    Port,
}

/// Checks the name of a node.
///
/// # Errors
/// [`NameError`], which says what a name is.
///
/// ```
/// use infinitystore::codec::check_name;
///
/// assert!(check_name("node-1").is_ok());
/// assert!(check_name("../node-1").is_err());
/// ```
pub fn check_name(name: &str) -> Result<(), NameError> {
    let is_bad = name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.starts_with('.')
        || name.chars().any(|c| c == '/' || c.is_control() || c.is_whitespace());
    if is_bad { Err(NameError) } else { Ok(()) }
}

/// An address, taken apart. It borrows from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// A name or an IP address, with its brackets if it is IPv6. Empty: every interface.
    pub host: &'a str,
    /// The port. 0: any free one.
    pub port: u16,
}

impl<'a> HostPort<'a> {
    /// Takes an address to listen on apart: `host:port`, or `:port` for every interface.
    ///
    /// # Errors
    /// [`AddressError`] if there is no port, or if it is no number from 0 to 65535.
    ///
    /// ```
    /// use infinitystore::codec::HostPort;
    ///
    /// let address = HostPort::parse("[::1]:8000").expect("an address");
    /// assert_eq!((address.host, address.port), ("[::1]", 8000));
    /// assert!(HostPort::parse("localhost").is_err());
    /// ```
    pub fn parse(text: &'a str) -> Result<Self, AddressError> {
        let (host, port) = split(text).ok_or(AddressError::NoPort)?;
        Ok(Self { host, port: number(port)? })
    }

    /// Takes an address to connect to apart: both parts are there, and somebody can be behind it.
    ///
    /// # Errors
    /// [`AddressError`], which says what is wrong with it.
    pub fn parse_remote(text: &'a str) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(AddressError::Characters);
        }
        if text.contains("://") {
            return Err(AddressError::Url);
        }
        let (host, port) = split(text).ok_or(AddressError::NoPort)?;
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        if host.contains(':') && !host.starts_with('[') {
            return Err(AddressError::Brackets);
        }
        if is_unspecified(host) {
            return Err(AddressError::EveryInterface);
        }
        match number(port)? {
            0 => Err(AddressError::Port),
            port => Ok(Self { host, port }),
        }
    }

    /// Whether to listen there means to listen on every interface.
    #[must_use]
    pub fn is_every_interface(self) -> bool {
        matches!(self.host, "" | "0.0.0.0" | "[::]")
    }
}

/// The host of an address. A text without a port is all host.
#[must_use]
pub fn host_of(text: &str) -> &str {
    split(text).map_or(text, |(host, _)| host)
}

/// Whether only this machine reaches that host (a name or an IP address, with or without brackets).
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let name = bare.as_bytes();
    let end = name.get(name.len().saturating_sub(LOCAL_DOMAIN.len())..).unwrap_or_default();
    let is_name = bare.eq_ignore_ascii_case("localhost") || end.eq_ignore_ascii_case(LOCAL_DOMAIN);
    is_name || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether an address is good on one link only (RFC 3927, RFC 4291 §2.5.6). Machines in a cloud
/// find secrets of their own behind such an address.
#[must_use]
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once(':')
}

fn number(port: &str) -> Result<u16, AddressError> {
    // `parse` alone takes a sign.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|_| is_number).ok_or(AddressError::Port)
}

/// Whether that host is the address that stands for all of a machine's own, however it is written.
fn is_unspecified(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "0" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

#[cfg(test)]
mod tests;
