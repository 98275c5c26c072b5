//! Users, roles and tokens.

use crate::client::attempts::Client;
use crate::client::error::{CallError, CallFailure};
use crate::client::json::put_bytes;
use crate::client::request::Ask;
use crate::client::target::Target;
use crate::kv::KeyRange;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fmt;

/// What a role may do with some keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSpec {
    /// `read`, `write` or `read-write`.
    pub access: String,
    /// Which keys.
    pub range: KeyRange,
}

/// Whose rights a token has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOwner {
    /// A user's.
    User(String),
    /// Those of roles.
    Roles(Vec<String>),
}

/// A token that was made. It is told once.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct TokenGrant {
    /// Its name.
    pub name: String,
    /// What to show.
    pub token: String,
    /// When it ends, seconds since 1970.
    pub ends_at: Option<u64>,
}

impl fmt::Debug for TokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenGrant").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Changed {
    revision: u64,
}

impl GrantSpec {
    fn to_json(&self) -> Value {
        let Self { access, range } = self;
        let mut object = Map::new();
        object.insert("access".to_owned(), access.clone().into());
        match range.one_key() {
            Some(key) => put_bytes(&mut object, "key", key),
            None if KeyRange::prefix(range.start.clone()) == *range => {
                put_bytes(&mut object, "prefix", &range.start);
            }
            None => {
                put_bytes(&mut object, "start", &range.start);
                if let Some(end) = &range.end {
                    put_bytes(&mut object, "end", end);
                }
            }
        }
        object.into()
    }
}

impl Client {
    /// Whether the cluster asks for credentials, and who this client is.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn auth_status(&mut self) -> Result<Value, CallError> {
        self.told(Ask::get("/v1/auth/status".to_owned(), &[200])).await
    }

    /// Users, roles or tokens (`users`, `roles`, `tokens`), as the node writes them.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn auth_list(&mut self, what: &str) -> Result<Value, CallError> {
        self.told(Ask::get(format!("/v1/auth/{what}"), &[200])).await
    }

    /// Has the cluster ask for credentials from now on, or not any more. The revision of the rules.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn enable_auth(&mut self, enabled: bool) -> Result<u64, CallError> {
        let target = if enabled { "/v1/auth/enable" } else { "/v1/auth/disable" };
        self.changed(Ask::post(target.to_owned(), "")).await
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn add_user(
        &mut self,
        name: &str,
        password: Option<&str>,
        roles: &[String],
    ) -> Result<u64, CallError> {
        let body = json!({ "name": name, "password": password, "roles": roles });
        self.changed(Ask::post("/v1/auth/users".to_owned(), body.to_string())).await
    }

    /// Removes a user, with its tokens.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn remove_user(&mut self, name: &str) -> Result<u64, CallError> {
        self.changed(Ask::delete(path("users", name, ""))).await
    }

    /// Gives a user another password, or none.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn set_password(&mut self, name: &str, password: Option<&str>) -> Result<u64, CallError> {
        let body = json!({ "password": password }).to_string();
        self.changed(Ask::put(path("users", name, "/password"), body)).await
    }

    /// Gives a user roles, and takes others.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn change_user(
        &mut self,
        name: &str,
        grant: &[String],
        revoke: &[String],
    ) -> Result<u64, CallError> {
        let body = json!({ "grant": grant, "revoke": revoke }).to_string();
        self.changed(Ask::post(path("users", name, "/roles"), body)).await
    }

    /// Adds a role. Rights to administer are `members`, `security`, `backups` and `settings`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn add_role(
        &mut self,
        name: &str,
        grants: &[GrantSpec],
        admin: &[String],
    ) -> Result<u64, CallError> {
        let grants: Vec<Value> = grants.iter().map(GrantSpec::to_json).collect();
        let body = json!({ "name": name, "grants": grants, "admin": admin }).to_string();
        self.changed(Ask::post("/v1/auth/roles".to_owned(), body)).await
    }

    /// Removes a role.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn remove_role(&mut self, name: &str) -> Result<u64, CallError> {
        self.changed(Ask::delete(path("roles", name, ""))).await
    }

    /// Gives a role rights (`grants`), or takes them.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn change_role(
        &mut self,
        name: &str,
        grants: bool,
        what: &[GrantSpec],
        admin: &[String],
    ) -> Result<u64, CallError> {
        let what: Vec<Value> = what.iter().map(GrantSpec::to_json).collect();
        let body = if grants {
            json!({ "grant": what, "grant_admin": admin })
        } else {
            json!({ "revoke": what, "revoke_admin": admin })
        };
        self.changed(Ask::post(path("roles", name, "/grants"), body.to_string())).await
    }

    /// Makes a token, which ends after some seconds, or when it is revoked.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn add_token(
        &mut self,
        name: &str,
        owner: &TokenOwner,
        ttl_seconds: Option<u64>,
    ) -> Result<TokenGrant, CallError> {
        let mut body = json!({ "name": name, "ttl": ttl_seconds });
        match owner {
            TokenOwner::User(user) => body["user"] = user.clone().into(),
            TokenOwner::Roles(roles) => body["roles"] = roles.clone().into(),
        }
        self.told(Ask::post("/v1/auth/tokens".to_owned(), body.to_string())).await
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn revoke_token(&mut self, name: &str) -> Result<u64, CallError> {
        self.changed(Ask::delete(path("tokens", name, ""))).await
    }

    async fn changed(&mut self, ask: Result<Ask, CallFailure>) -> Result<u64, CallError> {
        let Changed { revision } = self.told(ask).await?;
        Ok(revision)
    }
}

fn path(what: &str, name: &str, rest: &str) -> String {
    let target = Target::below(&format!("/v1/auth/{what}/"), name.as_bytes());
    target.into_text() + rest
}
