//! `/v1/auth`: users, roles and tokens.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::input::{self, Freshness};
use crate::api::http::v1::json::Json;
use crate::api::http::v1::parameters::{Parameters, refuse_empty_end};
use crate::api::http::v1::problem::Problem;
use crate::api::service::NewToken;
use crate::codec::from_base64;
use crate::kv::{
    Access, AdminRight, AdminRights, Grant, KeyRange, Security, SecurityChange, TokenOwner, TokenRights,
};
use crate::runtime::Env;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserBody {
    name: String,
    password: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordBody {
    /// Null takes it away. Left out, it would be null by mistake.
    #[serde(deserialize_with = "Option::deserialize")]
    password: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RolesBody {
    #[serde(default)]
    grant: Vec<String>,
    #[serde(default)]
    revoke: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    name: String,
    #[serde(default)]
    grants: Vec<GrantBody>,
    #[serde(default)]
    admin: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantsBody {
    #[serde(default)]
    grant: Vec<GrantBody>,
    #[serde(default)]
    revoke: Vec<GrantBody>,
    #[serde(default)]
    grant_admin: Vec<String>,
    #[serde(default)]
    revoke_admin: Vec<String>,
}

/// What may be done with a key, a prefix, or a range.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    access: String,
    key: Option<String>,
    key64: Option<String>,
    prefix: Option<String>,
    prefix64: Option<String>,
    start: Option<String>,
    start64: Option<String>,
    end: Option<String>,
    end64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    name: String,
    user: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    ttl: Option<u64>,
}

/// Whether credentials are needed, and who asks.
pub(in crate::api::http) async fn status<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    // A caller that is not known is refused.
    service(context, call).members(false).await?;
    let security = context.node().facts().security();
    let mut json = Json::object();
    json.flag("enabled", security.is_enabled()).number("revision", security.revision());
    if let Some(who) = &call.asker.who {
        let certificate = who.certificate_name();
        let known =
            [("user", who.user.as_ref()), ("token", who.token.as_ref()), ("certificate", certificate)];
        for (name, value) in known {
            if let Some(value) = value {
                json.text(name, value);
            }
        }
    }
    Ok(Answer::json(StatusCode::OK, json.end_line()))
}

/// Requests are judged from now on.
pub(super) async fn enable<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    change(context, call, SecurityChange::Enable).await
}

/// They are not any more.
pub(super) async fn disable<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    change(context, call, SecurityChange::Disable).await
}

/// The users.
pub(super) async fn users<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    list(context, call, parameters, |json, security| {
        json.list("users", security.users(), |json, user| {
            json.within(*b"{}", |json| {
                json.text("name", &user.name).flag("has_password", user.password.is_some());
                json.list("roles", &user.roles, |json, role| {
                    json.element(role);
                });
            });
        });
    })
    .await
}

/// A new user.
pub(super) async fn add_user<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let UserBody { name, password, roles } = input::secret_body(context, call).await?;
    let service = service(context, call);
    let revision = service.add_user(&context.authenticator, (name, password), roles).await?;
    Ok(done(revision))
}

/// A user goes.
pub(super) async fn remove_user<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let name = name_in_path(call)?;
    change(context, call, SecurityChange::RemoveUser(name)).await
}

/// Another password.
pub(super) async fn set_password<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let name = name_in_path(call)?;
    let PasswordBody { password } = input::secret_body(context, call).await?;
    Ok(done(service(context, call).set_password(&context.authenticator, name, password).await?))
}

/// Other roles for a user.
pub(super) async fn change_user<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let name = name_in_path(call)?;
    let RolesBody { grant, revoke } = input::json_body(context, call).await?;
    change(context, call, SecurityChange::ChangeUser { name, grant, revoke }).await
}

/// The roles.
pub(super) async fn roles<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    list(context, call, parameters, |json, security| {
        json.list("roles", security.roles(), |json, role| {
            json.within(*b"{}", |json| {
                json.text("name", &role.name).list("grants", &role.grants, write_grant);
                json.list("admin", role.admin.iter(), |json, right| {
                    json.element(right.name());
                });
            });
        });
    })
    .await
}

/// A new role.
pub(super) async fn add_role<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let RoleBody { name, grants, admin } = input::json_body(context, call).await?;
    let (grants, admin) = (read_grants(grants)?, read_rights(&admin)?);
    change(context, call, SecurityChange::AddRole { name, grants, admin }).await
}

/// A role goes.
pub(super) async fn remove_role<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let name = name_in_path(call)?;
    change(context, call, SecurityChange::RemoveRole(name)).await
}

/// Other rights for a role.
pub(super) async fn change_role<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let name = name_in_path(call)?;
    let GrantsBody { grant, revoke, grant_admin, revoke_admin } = input::json_body(context, call).await?;
    let (grant, revoke) = (read_grants(grant)?, read_grants(revoke)?);
    let (grant_admin, revoke_admin) = (read_rights(&grant_admin)?, read_rights(&revoke_admin)?);
    let wanted = SecurityChange::ChangeRole { name, grant, revoke, grant_admin, revoke_admin };
    change(context, call, wanted).await
}

/// The tokens.
pub(super) async fn tokens<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    list(context, call, parameters, |json, security| {
        json.list("tokens", security.tokens(), |json, token| {
            json.within(*b"{}", |json| {
                json.text("name", &token.name);
                match &token.rights {
                    TokenRights::User(id) => {
                        json.text("user", security.user_of(*id).map_or("", |user| &user.name));
                    }
                    TokenRights::Roles(roles) => {
                        json.list("roles", roles, |json, role| {
                            json.element(role);
                        });
                    }
                }
                if let Some(ends_at) = token.ends_at {
                    json.number("ends_at", ends_at);
                }
            });
        });
    })
    .await
}

/// A new token.
pub(super) async fn add_token<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let TokenBody { name, user, roles, ttl } = input::json_body(context, call).await?;
    let owner = match (user, roles.is_empty()) {
        (Some(user), true) => TokenOwner::User(user),
        (None, false) => TokenOwner::Roles(roles),
        _ => {
            let detail = "a token has the rights of a user, or roles of its own: say user, or roles";
            return Err(Problem::bad("bad-field", detail));
        }
    };
    if ttl == Some(0) {
        return Err(Problem::bad("bad-field", "ttl is at least one second; leave it out for no end"));
    }
    let wanted = NewToken { name: name.clone(), owner, ttl_seconds: ttl };
    let made = service(context, call).add_token(wanted).await?;
    let mut json = Json::object();
    json.number("revision", made.revision).text("name", &name).text("token", &made.text);
    if let Some(ends_at) = made.ends_at {
        json.number("ends_at", ends_at);
    }
    Ok(Answer::json(StatusCode::OK, json.end_line()))
}

/// A token counts no more.
pub(super) async fn revoke_token<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let name = name_in_path(call)?;
    change(context, call, SecurityChange::RevokeToken(name)).await
}

async fn change<E: Env>(
    context: &Arc<Context<E>>,
    call: &Call,
    change: SecurityChange,
) -> Result<Answer, Problem> {
    Ok(done(service(context, call).secure(change).await?))
}

async fn list<E: Env>(
    context: &Arc<Context<E>>,
    call: &Call,
    parameters: Parameters,
    write: impl FnOnce(&mut Json, &Security),
) -> Result<Answer, Problem> {
    let level = parameters.level()?;
    let freshness = Freshness::of(context, level);
    let security = service(context, call).security(level).await?;
    let mut json = Json::object();
    json.number("revision", security.revision());
    write(&mut json, &security);
    Ok(freshness.told(context, Answer::json(StatusCode::OK, json.end_line())))
}

fn done(revision: u64) -> Answer {
    let mut json = Json::object();
    json.number("revision", revision);
    Answer::json(StatusCode::OK, json.end_line())
}

fn name_in_path(call: &Call) -> Result<String, Problem> {
    let name = input::path_variable(call)?;
    String::from_utf8(name.to_vec()).map_err(|_| Problem::bad("bad-name", "the name in the path is no text"))
}

fn read_rights(names: &[String]) -> Result<AdminRights, Problem> {
    names.iter().try_fold(AdminRights::NONE, |rights, name| {
        let right = AdminRight::ALL.into_iter().find(|right| right.name() == name);
        let unknown = || Problem::bad("bad-field", "a right is members, security, backups or settings");
        Ok(rights.with(right.ok_or_else(unknown)?))
    })
}

fn read_grants(bodies: Vec<GrantBody>) -> Result<Vec<Grant>, Problem> {
    bodies.into_iter().map(read_grant).collect()
}

fn read_grant(body: GrantBody) -> Result<Grant, Problem> {
    let access = match &*body.access {
        "read" => Access::Read,
        "write" => Access::Write,
        "read-write" => Access::ReadWrite,
        _ => return Err(Problem::bad("bad-field", "access is read, write or read-write")),
    };
    let bytes = |text: Option<String>, text64: Option<String>| match (text, text64) {
        (Some(_), Some(_)) => Err(Problem::bad("bad-field", "a bound stands once: as text, or in base64")),
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(text)) => {
            let bad = |_| Problem::bad("bad-base64", "a bound in base64 is none");
            from_base64(text.as_bytes()).map(Bytes::from).map(Some).map_err(bad)
        }
        (None, None) => Ok(None),
    };
    let (key, prefix) = (bytes(body.key, body.key64)?, bytes(body.prefix, body.prefix64)?);
    let (start, end) = (bytes(body.start, body.start64)?, bytes(body.end, body.end64)?);
    let range = match (key, prefix, start, end) {
        (Some(key), None, None, None) if !key.is_empty() => KeyRange::one(key),
        (None, Some(prefix), None, None) => KeyRange::prefix(prefix),
        // Every key has to be meant: an empty object is more likely a slip.
        (None, None, Some(start), end) => {
            refuse_empty_end(end.as_ref())?;
            KeyRange { start, end }
        }
        _ => {
            let detail = "a grant is of one key, of a prefix (\"\" is every key), or from a start to an end";
            return Err(Problem::bad("bad-field", detail));
        }
    };
    Ok(Grant { range, access })
}

fn write_grant(json: &mut Json, grant: &Grant) {
    let Grant { range, access } = grant;
    json.within(*b"{}", |json| {
        json.text(
            "access",
            match access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "read-write",
            },
        );
        if let Some(key) = range.one_key() {
            json.bytes("key", "key64", key);
        } else if KeyRange::prefix(range.start.clone()) == *range {
            json.bytes("prefix", "prefix64", &range.start);
        } else {
            json.bytes("start", "start64", &range.start);
            if let Some(end) = &range.end {
                json.bytes("end", "end64", end);
            }
        }
    });
}
