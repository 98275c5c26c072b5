//! Users, roles and tokens: what is done about them.

use crate::api::service::audit::Deed;
use crate::api::service::authenticator::{Authenticator, hash_of_token};
use crate::api::service::credentials::TOKEN_PREFIX;
use crate::api::service::error::{ErrorCode, ServiceError};
use crate::api::service::passwords::fill;
use crate::api::service::service::{Call, Service, strange};
use crate::codec::to_base64_url;
use crate::kv::{AdminRight, Found, Op, Outcome, Query, Security, SecurityChange, Subject, TokenOwner};
use crate::replica::{ClientRequest, Level};
use crate::runtime::Env;
use std::fmt;
use std::sync::Arc;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// A token that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewToken {
    pub(crate) name: String,
    pub(crate) owner: TokenOwner,
    /// How long it counts, seconds.
    pub(crate) ttl_seconds: Option<u64>,
}

/// A token that was made. It is told once.
pub(crate) struct TokenMade {
    pub(crate) text: String,
    /// Seconds since 1970.
    pub(crate) ends_at: Option<u64>,
    pub(crate) revision: u64,
}

impl fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMade").field("ends_at", &self.ends_at).finish_non_exhaustive()
    }
}

impl<E: Env> Service<'_, E> {
    /// Users, roles and tokens.
    pub(crate) async fn security(&self, level: Level) -> Result<Arc<Security>, ServiceError> {
        match self.read(Query::Security, level).await?.found {
            Found::Security(security) => Ok(security),
            other => Err(strange(&other)),
        }
    }

    /// Changes them. The revision of the rules now. It has no idempotency key: names are its keys.
    pub(crate) async fn secure(&self, change: SecurityChange) -> Result<u64, ServiceError> {
        check_new_name(&change)?;
        match self.write(&Call::default(), Op::Secure(Box::new(change))).await? {
            Outcome::Secured(revision) => Ok(revision),
            other => Err(strange(&other)),
        }
    }

    /// Adds a user. Whether the caller may do that is found out before a password is hashed.
    pub(crate) async fn add_user(
        &self,
        authenticator: &Authenticator,
        (name, password): (String, Option<String>),
        roles: Vec<String>,
    ) -> Result<u64, ServiceError> {
        let change = SecurityChange::AddUser { name: name.clone(), password: None, roles: roles.clone() };
        check_new_name(&change)?;
        Op::Secure(Box::new(change.clone())).check()?;
        self.may_secure(&change).await?;
        let password = match password {
            Some(password) => Some(authenticator.hash(self.env, &password).await?),
            None => None,
        };
        self.secure(SecurityChange::AddUser { name, password, roles }).await
    }

    /// Gives a user another password, or none. Judged before it is hashed, too.
    pub(crate) async fn set_password(
        &self,
        authenticator: &Authenticator,
        name: String,
        password: Option<String>,
    ) -> Result<u64, ServiceError> {
        let change = SecurityChange::SetPassword { name: name.clone(), password: None };
        Op::Secure(Box::new(change.clone())).check()?;
        if !self.is_user(&name) {
            self.may_secure(&change).await?;
        }
        let password = match password {
            Some(password) => Some(authenticator.hash(self.env, &password).await?),
            None => None,
        };
        self.secure(SecurityChange::SetPassword { name, password }).await
    }

    /// Whether such a change may be made. A hash costs much: nobody has one made for nothing. The
    /// store judges the change itself again.
    async fn may_secure(&self, change: &SecurityChange) -> Result<(), ServiceError> {
        let deed = || Deed::of(&ClientRequest::write(Op::Secure(Box::new(change.clone()))));
        let judged = self.permit(AdminRight::Security, Level::Linearizable, deed).await;
        judged.map_err(ServiceError::not_applied)
    }

    /// Whether the caller came as that user.
    fn is_user(&self, name: &str) -> bool {
        let Some(who) = self.asker.who.as_deref() else { return false };
        let is_a_user = who.by.is_some_and(|by| matches!(by.subject, Subject::User(_)));
        is_a_user && who.user.as_deref() == Some(name)
    }

    /// Makes a token.
    pub(crate) async fn add_token(&self, wanted: NewToken) -> Result<TokenMade, ServiceError> {
        let NewToken { name, owner, ttl_seconds } = wanted;
        let mut random = [0; TOKEN_BYTES];
        fill(self.env, &mut random);
        let text = format!("{TOKEN_PREFIX}{}", to_base64_url(&random).trim_end_matches('='));
        let now = self.env.wall_micros() / 1_000_000;
        let ends_at = ttl_seconds.map(|ttl_seconds| now.saturating_add(ttl_seconds));
        let hash = hash_of_token(text.as_bytes());
        let revision = self.secure(SecurityChange::AddToken { name, hash, owner, ends_at }).await?;
        Ok(TokenMade { text, ends_at, revision })
    }
}

/// A name that is given out is ASCII. The state machine takes other letters, too, and which these
/// are comes with the compiler: members that were built by two would not have the same state.
fn check_new_name(change: &SecurityChange) -> Result<(), ServiceError> {
    use SecurityChange::{AddRole, AddToken, AddUser};
    match change {
        AddUser { name, .. } | AddRole { name, .. } | AddToken { name, .. } if !name.is_ascii() => {
            let detail =
                "a new name of a user, a role or a token has letters from a to z, digits, and marks of -_.@+";
            Err(ServiceError::new(ErrorCode::BadName, detail).not_applied())
        }
        _ => Ok(()),
    }
}
