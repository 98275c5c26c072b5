//! From credentials to a principal.
//!
//! A node knows the rules that it has applied. Credentials that it does not know may be newer: it
//! looks for them again once it is up to date with the cluster, before it says no. Wrong ones cost
//! the address that they come from: after a few, it has to wait before more of its passwords are
//! tried, longer each time. Those that are known are never made to wait. A password counts as wrong
//! from when it is tried until it has proved right: so many at once are as many guesses.
//!
//! A certificate is not wrong: the port has verified it. Where its name is no user's, its holder is
//! somebody without credentials.

use crate::api::service::credentials::{Credentials, PASSWORD_BYTES_MAX};
use crate::api::service::error::{ErrorCode, ServiceError};
use crate::api::service::identity::Identity;
use crate::api::service::passwords::{Busy, PasswordCost, Passwords};
use crate::kv::{Principal, Security, Subject, TOKEN_HASH_BYTES, TokenRights, User};
use crate::node::NodeHandle;
use crate::raft::Time;
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::Env;
use crate::runtime::door::Caller;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Wrong credentials of one address before it has to wait.
const FREE_FAILURES: u32 = 8;
/// How long it waits first; twice as long after each one more …
const WAIT_MICROS: u64 = 250_000;
/// … up to this.
const WAIT_MICROS_MAX: u64 = 30_000_000;
/// Failures are forgotten after this time without another one.
const FORGOTTEN_MICROS: u64 = 600_000_000;
/// Addresses whose failures are remembered, at most; the oldest are forgotten first.
const ADDRESSES_MAX: usize = 4096;

/// Finds out who asks.
#[derive(Debug)]
pub(crate) struct Authenticator {
    passwords: Passwords,
    /// By [`Caller::group`]: a site of IPv6 has more networks than are remembered.
    failures: Mutex<BTreeMap<Caller, Failures>>,
}

/// A password that is being tried, and counts as wrong until it has proved right.
#[derive(Clone, Copy, Debug)]
struct Try {
    /// Until when its caller has to wait, with it …
    until: Time,
    /// … and without it.
    until_before: Time,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Time,
    /// Until when no more are tried.
    until: Time,
}

impl Authenticator {
    pub(crate) fn new(cost: PasswordCost) -> Self {
        Self { passwords: Passwords::new(cost), failures: Mutex::default() }
    }

    /// The hash of a new password.
    pub(crate) async fn hash<E: Env>(&self, env: &E, password: &str) -> Result<String, ServiceError> {
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            let detail = format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes");
            return Err(ServiceError::new(ErrorCode::BadPassword, detail).not_applied());
        }
        self.passwords.hash(env, password.as_bytes().to_vec()).await.map_err(|Busy| busy().not_applied())
    }

    /// The identity of a caller, by the credentials and the certificate that it shows. Without
    /// `wants_credentials` the request is one that callers without credentials are answered, too.
    /// Then nothing is asked of the cluster for a certificate that this node does not know.
    pub(crate) async fn authenticate<E: Env>(
        &self,
        env: &E,
        node: &NodeHandle,
        credentials: Option<&Credentials>,
        wants_credentials: bool,
        origin: Identity,
    ) -> Result<Identity, ServiceError> {
        let security = node.facts().security();
        let caller = Caller::of(&origin.address).group();
        let mut tried = None;
        if security.is_enabled() {
            let tried = (&caller, &mut tried);
            if let Some(known) = self.find(env, &security, credentials, &origin, tried).await? {
                return Ok(known);
            }
        } else if node.facts().is_open() {
            return Ok(origin);
        }
        if credentials.is_none() && (origin.certificate.is_none() || !wants_credentials) {
            return Ok(origin);
        }
        // They may have been given out since: this node may be behind. Or it has not applied yet
        // what it had when it ended, and so does not know whether they are asked for.
        let newer = match node.request(ClientRequest::Barrier).await {
            ClientReply::UpToDate => node.facts().security(),
            other => {
                // They are wrong, as far as anybody can say: a node without a quorum is no place to
                // guess at.
                if security.is_enabled() && credentials.is_some() && tried.is_none() {
                    self.note_failure(env.now(), &caller);
                }
                return Err(match other {
                    ClientReply::Failed(error) => told_to_strangers(&error),
                    _ => unknown(),
                });
            }
        };
        if !newer.is_enabled() {
            return Ok(origin);
        }
        if newer.revision() != security.revision()
            && let Some(known) = self.find(env, &newer, credentials, &origin, (&caller, &mut tried)).await?
        {
            return Ok(known);
        }
        if credentials.is_none() {
            return Ok(origin);
        }
        if tried.is_none() {
            self.note_failure(env.now(), &caller);
        }
        Err(unknown())
    }

    /// Finds the user that these rules give the credentials to. `None`: the try counts as wrong.
    async fn find<E: Env>(
        &self,
        env: &E,
        security: &Arc<Security>,
        credentials: Option<&Credentials>,
        origin: &Identity,
        (caller, tried): (&Caller, &mut Option<Try>),
    ) -> Result<Option<Identity>, ServiceError> {
        let principal = |subject| Some(Principal { subject, as_of: security.revision() });
        match credentials {
            None => {
                // It was good when the connection was made, and may have ended since.
                let now = env.wall_micros() / 1_000_000;
                let shown = origin.certificate.as_ref().filter(|shown| shown.ends_at > now);
                Ok(shown.and_then(|shown| Some((shown, security.user(&shown.name)?))).map(|(shown, user)| {
                    Identity {
                        by: principal(Subject::User(user.id)),
                        user: Some(user.name.clone()),
                        ends_at: Some(shown.ends_at),
                        ..origin.clone()
                    }
                }))
            }
            Some(Credentials::Token(text)) => {
                let now = env.wall_micros() / 1_000_000;
                let token = security.token_of_hash(&hash_of_token(text));
                let Some(token) = token.filter(|token| token.ends_at.is_none_or(|end| end > now)) else {
                    // Nothing is asked of the cluster for an address that only guesses.
                    return self.may_try(env.now(), caller).map(|()| None);
                };
                let user = match token.rights {
                    TokenRights::User(id) => security.user_of(id).map(|user| user.name.clone()),
                    TokenRights::Roles(_) => None,
                };
                Ok(Some(Identity {
                    by: principal(Subject::Token(token.id)),
                    user,
                    token: Some(token.name.clone()),
                    ends_at: token.ends_at,
                    ..origin.clone()
                }))
            }
            Some(Credentials::Password { user: name, password }) => {
                let user = security.user(name);
                let known = user.and_then(|user| Some((user, user.password.as_deref()?)));
                let is_remembered = || {
                    known.is_some_and(|(user, hash)| self.passwords.is_remembered(user.id, hash, password))
                };
                if !is_remembered() {
                    if tried.is_none() {
                        self.may_try(env.now(), caller)?;
                    }
                    let _turn = self.passwords.turn(caller).await.map_err(|Busy| busy())?;
                    // Another request may have shown the same one meanwhile.
                    if !is_remembered() && !self.try_password(env, password, known, (caller, tried)).await? {
                        return Ok(None);
                    }
                }
                let Some((user, _)) = known else { return Ok(None) };
                let by = principal(Subject::User(user.id));
                Ok(Some(Identity { by, user: Some(user.name.clone()), ..origin.clone() }))
            }
        }
    }

    /// Whether a password is right, which takes long. It is remembered then.
    async fn try_password<E: Env>(
        &self,
        env: &E,
        password: &[u8],
        known: Option<(&User, &str)>,
        (caller, tried): (&Caller, &mut Option<Try>),
    ) -> Result<bool, ServiceError> {
        let begun = match *tried {
            Some(begun) => begun,
            None => {
                // Its caller may have waited for its turn until it was one guess too many.
                self.may_try(env.now(), caller)?;
                self.note_failure(env.now(), caller)
            }
        };
        *tried = Some(begun);
        let is_right = self.passwords.is_right(env, password, known.map(|(_, hash)| hash)).await;
        if is_right != Ok(false) {
            self.take_back(caller, begun);
            *tried = None;
        }
        let is_right = is_right.map_err(|Busy| busy())?;
        if let Some((user, hash)) = known.filter(|_| is_right) {
            self.passwords.remember(env, user.id, hash, password);
        }
        Ok(is_right)
    }

    /// Whether an address may try credentials that are not known.
    fn may_try(&self, now: Time, caller: &Caller) -> Result<(), ServiceError> {
        match self.lock().get(caller) {
            Some(failures) if failures.until > now => Err(wait()),
            _ => Ok(()),
        }
    }

    fn note_failure(&self, now: Time, caller: &Caller) -> Try {
        let mut failures = self.lock();
        let is_old = |one: &Failures| now.since(one.last) > FORGOTTEN_MICROS;
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(caller) {
            failures.retain(|_, one| !is_old(one));
            let oldest = failures.iter().min_by_key(|(_, one)| one.last).map(|(caller, _)| caller.clone());
            if let Some(oldest) = oldest.filter(|_| failures.len() >= ADDRESSES_MAX) {
                failures.remove(&oldest);
            }
        }
        let known = failures.entry(caller.clone()).or_insert(Failures { count: 0, last: now, until: now });
        if is_old(known) {
            known.count = 0;
        }
        let until_before = known.until;
        known.count = known.count.saturating_add(1);
        known.last = now;
        if let Some(beyond) = known.count.checked_sub(FREE_FAILURES) {
            let wait = WAIT_MICROS.saturating_mul(1 << beyond.min(20)).min(WAIT_MICROS_MAX);
            known.until = now.plus(wait);
        }
        Try { until: known.until, until_before }
    }

    /// What was tried is right, or nobody could say. What was wrong before stays so: somebody who
    /// has a password must not guess at others for ever.
    fn take_back(&self, caller: &Caller, begun: Try) {
        let mut failures = self.lock();
        let Some(known) = failures.get_mut(caller) else { return };
        known.count = known.count.saturating_sub(1);
        if known.until == begun.until {
            known.until = begun.until_before;
        }
        if known.count == 0 {
            failures.remove(caller);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Caller, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a token is kept as.
pub(crate) fn hash_of_token(text: &[u8]) -> [u8; TOKEN_HASH_BYTES] {
    Sha256::digest(text).into()
}

/// The same for each kind: which part of the credentials is wrong is not told.
/// Why nobody can say whether credentials are good. Its own words tell of the node's disk and of
/// its cluster, and who asks is not known.
fn told_to_strangers(error: &ClientError) -> ServiceError {
    match error {
        ClientError::Refused(_) => {
            ServiceError::new(ErrorCode::Refused, "this node takes no part any more; its log says why")
        }
        _ => ServiceError::of_client(error, false),
    }
}

fn unknown() -> ServiceError {
    let detail =
        "the credentials are wrong, or count no more: check the user's name and password, or the token";
    ServiceError::new(ErrorCode::Unauthenticated, detail)
}

fn wait() -> ServiceError {
    let detail = "too many wrong credentials came from this address; wait, and try again";
    ServiceError::new(ErrorCode::TooManyAttempts, detail)
}

fn busy() -> ServiceError {
    ServiceError::new(
        ErrorCode::Overloaded,
        "this node cannot hash the password now, or too many wait for that; try again, or use a token",
    )
}

#[cfg(test)]
mod tests;
