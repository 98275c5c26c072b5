//! What a client shows to prove who it is.

use std::fmt;

/// Every token begins so: a program that looks for secrets in files recognises it.
pub(crate) const TOKEN_PREFIX: &str = "inft_";
/// A password is at most this long.
pub(crate) const PASSWORD_BYTES_MAX: usize = 1024;

/// What a client shows. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A token.
    Token(Vec<u8>),
    /// A user's name and password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Vec<u8>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Password { .. } => "Password(…)",
        })
    }
}
