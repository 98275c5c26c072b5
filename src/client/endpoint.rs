//! Where a node's HTTP API is.

use crate::codec::{HostPort, host_of, is_loopback};
use hyper::header::HeaderValue;
use std::fmt;
use std::str::FromStr;

/// Where a node's HTTP API is. It is read from `host:port`, from `:port` (this machine), from
/// `http://host:port`, or from `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was given, without `http://`.
    text: String,
    /// Whether it is reached over TLS.
    is_tls: bool,
    /// What is connected to: with a host.
    address: String,
    /// The same, for the header `Host`.
    host: HeaderValue,
}

impl Endpoint {
    /// What to connect to.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is reached over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it is on this machine, as its address says.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(host_of(&self.address))
    }

    /// What the header `Host` says.
    pub(super) fn host(&self) -> HeaderValue {
        self.host.clone()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected HOST:PORT, as in localhost:8001 or http://localhost:8001".to_owned();
        let given = text;
        let is_tls = text.starts_with("https://");
        let rest = text.strip_prefix("http://").or(text.strip_prefix("https://"));
        let text = rest.map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        let HostPort { host, port: 1.. } = HostPort::parse(text).map_err(|_| wrong())? else {
            return Err(wrong());
        };
        if !text.is_ascii() || host.contains(['/', '@', '?', '#']) || host.chars().any(char::is_whitespace) {
            return Err(wrong());
        }
        // A node listens on `:8001` if it listens on every interface. From here that is this
        // machine.
        let address = if host.is_empty() { format!("localhost{text}") } else { text.to_owned() };
        let host = HeaderValue::from_str(&address).map_err(|_| wrong())?;
        let text = if is_tls { given.strip_suffix('/').unwrap_or(given) } else { text };
        Ok(Self { text: text.to_owned(), is_tls, address, host })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
