//! Where a node's HTTP API is.

use crate::codec::HostPort;
use hyper::header::HeaderValue;
use std::fmt;
use std::str::FromStr;

/// Where a node's HTTP API is. It is read from `host:port`, from `:port` (this machine), or from
/// `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was given, without `http://`.
    text: String,
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

    /// What the header `Host` says.
    pub(super) fn host(&self) -> HeaderValue {
        self.host.clone()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err("a node does not speak TLS: expected HOST:PORT or http://HOST:PORT".to_owned());
        }
        let wrong = || "expected HOST:PORT, as in localhost:8001 or http://localhost:8001".to_owned();
        let text = text.strip_prefix("http://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
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
        Ok(Self { text: text.to_owned(), address, host })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
