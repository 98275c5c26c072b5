//! What a client shows to say who it is.

use crate::codec::to_base64;
use hyper::header::HeaderValue;
use std::fmt;

/// What a client shows to say who it is. It is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(HeaderValue);

impl Credentials {
    /// A token. `None`: it has characters that no token has.
    #[must_use]
    pub fn token(token: &str) -> Option<Self> {
        Self::of(format!("Bearer {token}"))
    }

    /// A user's name and password. `None`: the name has a `:` in it.
    #[must_use]
    pub fn password(user: &str, password: &str) -> Option<Self> {
        let is_good = !user.contains(':');
        is_good.then(|| Self::of(format!("Basic {}", to_base64(format!("{user}:{password}").as_bytes()))))?
    }

    fn of(header: String) -> Option<Self> {
        let mut value = HeaderValue::try_from(header).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// The header `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}
