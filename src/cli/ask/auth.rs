//! `auth`, `user`, `role` and `token`: who may do what.

use crate::cli::ask::input::{bytes, client};
use crate::cli::ask::print::{Output, lines_of, readable, table};
use crate::cli::ask::secrets::new_password;
use crate::cli::auth_args::{
    AuthArgs, AuthCommand, RightArgs, RightName, RoleArgs, RoleCommand, TokenArgs, TokenCommand, UserArgs,
    UserCommand,
};
use crate::cli::client_args::OutputFormat;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::runtime;
use crate::cli::units::date;
use crate::client::{ContestKind, GrantSpec, TokenOwner};
use crate::codec::from_base64;
use crate::kv::KeyRange;
use crate::tls::WallClock;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

/// Runs a subcommand of `auth`.
pub(in crate::cli) fn auth(args: &AuthArgs) -> Result<(), Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        match args.command {
            AuthCommand::Enable => {
                let revision = client.enable_auth(true).await?;
                done(&mut out, args.output.output, revision, "credentials are needed from now on")?;
            }
            AuthCommand::Disable => {
                let revision = client.enable_auth(false).await?;
                done(&mut out, args.output.output, revision, "everybody may do everything again")?;
            }
            AuthCommand::Status => {
                let status = client.auth_status().await?;
                print_status(&mut out, args.output.output, &status)?;
            }
        }
        out.flush()
    })
}

fn print_status(out: &mut Output, format: Option<OutputFormat>, status: &Value) -> Result<(), Failure> {
    let is_enabled = status["enabled"].as_bool().unwrap_or_default();
    match format {
        Some(OutputFormat::Json) => out.line(status),
        Some(OutputFormat::Raw) => out.line(if is_enabled { "enabled" } else { "disabled" }),
        Some(OutputFormat::Table) | None => {
            out.line(if is_enabled {
                "credentials are needed"
            } else {
                "everybody may do everything: no credentials are needed"
            })?;
            for name in ["user", "token", "certificate"] {
                if let Some(value) = status[name].as_str() {
                    out.line(format_args!("{name} {value}"))?;
                }
            }
            Ok(())
        }
    }
}

/// Runs a subcommand of `user`.
pub(in crate::cli) fn user(args: &UserArgs) -> Result<(), Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let format = args.output.output;
        match &args.command {
            UserCommand::Add { name, roles, no_password } => {
                let password = if *no_password { None } else { Some(new_password(name)?) };
                let revision = client.add_user(name, password.as_deref(), roles).await?;
                done(&mut out, format, revision, &format!("user {name} is added"))?;
            }
            UserCommand::Ls => {
                let listed = client.auth_list("users").await?;
                list(&mut out, format, &listed["users"], &["user", "roles", "password"], |user| {
                    let has_password = user["has_password"].as_bool().unwrap_or_default();
                    vec![text(user, "name"), joined(user, "roles"), yes(has_password)]
                })?;
            }
            UserCommand::Rm { name } => {
                let revision = client.remove_user(name).await?;
                done(&mut out, format, revision, &format!("user {name} is removed"))?;
            }
            UserCommand::Passwd { name, no_password } => {
                let password = if *no_password { None } else { Some(new_password(name)?) };
                let revision = client.set_password(name, password.as_deref()).await?;
                done(&mut out, format, revision, &format!("user {name} has another password"))?;
            }
            UserCommand::GrantRole { name, role } => {
                let revision = client.change_user(name, std::slice::from_ref(role), &[]).await?;
                done(&mut out, format, revision, &format!("user {name} has the role {role}"))?;
            }
            UserCommand::RevokeRole { name, role } => {
                let revision = client.change_user(name, &[], std::slice::from_ref(role)).await?;
                done(&mut out, format, revision, &format!("user {name} does not have the role {role}"))?;
            }
        }
        out.flush()
    })
}

/// Runs a subcommand of `role`.
pub(in crate::cli) fn role(args: &RoleArgs) -> Result<(), Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let format = args.output.output;
        match &args.command {
            RoleCommand::Add { name } => {
                let revision = client.add_role(name, &[], &[]).await?;
                done(&mut out, format, revision, &format!("role {name} is added"))?;
            }
            RoleCommand::Ls => {
                let listed = client.auth_list("roles").await?;
                list(&mut out, format, &listed["roles"], &["role", "may"], |role| {
                    vec![text(role, "name"), rights(role).join(", ")]
                })?;
            }
            RoleCommand::Rm { name } => {
                let revision = client.remove_role(name).await?;
                done(&mut out, format, revision, &format!("role {name} is removed"))?;
            }
            RoleCommand::Grant(wanted) => {
                let (grants, admin) = right(wanted)?;
                let revision = client.change_role(&wanted.role, true, &grants, &admin).await?;
                done(&mut out, format, revision, &format!("role {} is changed", wanted.role))?;
            }
            RoleCommand::Revoke(wanted) => {
                let (grants, admin) = right(wanted)?;
                let revision = client.change_role(&wanted.role, false, &grants, &admin).await?;
                done(&mut out, format, revision, &format!("role {} is changed", wanted.role))?;
            }
        }
        out.flush()
    })
}

/// Runs a subcommand of `token`.
pub(in crate::cli) fn token(args: &TokenArgs) -> Result<(), Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let format = args.output.output;
        match &args.command {
            TokenCommand::Create { name, for_user, roles, ttl } => {
                let owner = match for_user {
                    Some(user) => TokenOwner::User(user.clone()),
                    None => TokenOwner::Roles(roles.clone()),
                };
                let ttl = ttl.as_ref().map(Duration::as_secs).map(|seconds| seconds.max(1));
                let made = client.add_token(name, &owner, ttl).await?;
                match format {
                    Some(OutputFormat::Json) => {
                        let (name, ends_at) = (made.name, made.ends_at);
                        out.line(json!({ "name": name, "token": made.token, "ends_at": ends_at }))?;
                    }
                    _ => out.line(&made.token)?,
                }
            }
            TokenCommand::Ls => {
                let listed = client.auth_list("tokens").await?;
                let now = WallClock::of_the_system().seconds();
                list(&mut out, format, &listed["tokens"], &["token", "user", "roles", "ends"], |token| {
                    let ends = token["ends_at"].as_u64().map_or_else(String::new, |at| {
                        if at > now { date(at) } else { format!("{} (ended)", date(at)) }
                    });
                    vec![text(token, "name"), text(token, "user"), joined(token, "roles"), ends]
                })?;
            }
            TokenCommand::Revoke { name } => {
                let revision = client.revoke_token(name).await?;
                done(&mut out, format, revision, &format!("token {name} is revoked"))?;
            }
        }
        out.flush()
    })
}

/// What the arguments name: a grant, or a right to administer.
fn right(args: &RightArgs) -> Result<(Vec<GrantSpec>, Vec<String>), Failure> {
    let own = |argument: &OsStr| bytes(argument);
    let usage = |text: &str| Failure::new(ExitStatus::Usage, text);
    let of_contest = |kind: ContestKind, name: &OsStr| {
        let beginning = kind.keys(name.as_bytes()).map(KeyRange::prefix);
        beginning.ok_or_else(|| usage("--lock, --election: a name has 1 to 256 bytes, none of which is 0"))
    };
    let range = match (&args.exact, &args.prefix, &args.start, &args.lock, &args.election) {
        (Some(key), ..) => Some(KeyRange::one(own(key))),
        (_, Some(prefix), ..) => Some(KeyRange::prefix(own(prefix))),
        (_, _, Some(start), ..) => Some(KeyRange { start: own(start), end: args.end.as_deref().map(own) }),
        (_, _, _, Some(name), _) => Some(of_contest(ContestKind::Lock, name)?),
        (.., Some(name)) => Some(of_contest(ContestKind::Election, name)?),
        (None, None, None, None, None) => None,
    };
    let name = match args.right {
        RightName::Read => "read",
        RightName::Write => "write",
        RightName::ReadWrite => "read-write",
        RightName::Members => "members",
        RightName::Security => "security",
        RightName::Backups => "backups",
        RightName::Settings => "settings",
    };
    let is_of_keys = matches!(args.right, RightName::Read | RightName::Write | RightName::ReadWrite);
    match (range, is_of_keys) {
        (Some(range), true) => Ok((vec![GrantSpec { access: name.to_owned(), range }], Vec::new())),
        (None, false) => Ok((Vec::new(), vec![name.to_owned()])),
        (None, true) => Err(usage(
            "which keys: --exact, --prefix ('' is every key), --start and --end, --lock, or --election",
        )),
        (Some(_), false) => Err(usage("a right to administer is not one to keys")),
    }
}

/// What a role may do, in words.
fn rights(role: &Value) -> Vec<String> {
    let grants = role["grants"].as_array().into_iter().flatten().map(|grant| {
        let access = text(grant, "access");
        let named = |name: &str| {
            let plain = grant[name].as_str().map(|text| text.as_bytes().to_vec());
            plain.or_else(|| from_base64(grant[format!("{name}64")].as_str()?.as_bytes()).ok())
        };
        let shown = |name: &str| named(name).map(|bytes| readable(&bytes));
        let of_contest = || match ContestKind::of_keys(&named("prefix")?)? {
            (ContestKind::Lock, name) => Some(format!("lock {}", readable(name))),
            (ContestKind::Election, name) => Some(format!("election {}", readable(name))),
        };
        match (shown("key"), shown("prefix"), shown("start"), shown("end")) {
            (Some(key), ..) => format!("{access} {key}"),
            (_, Some(prefix), ..) => {
                format!("{access} {}", of_contest().unwrap_or_else(|| format!("{prefix}*")))
            }
            (_, _, start, end) => {
                format!("{access} {}..{}", start.unwrap_or_default(), end.unwrap_or_default())
            }
        }
    });
    let admin = role["admin"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    grants.chain(admin).collect()
}

fn done(out: &mut Output, format: Option<OutputFormat>, revision: u64, words: &str) -> Result<(), Failure> {
    match format {
        Some(OutputFormat::Json) => out.line(json!({ "revision": revision })),
        Some(OutputFormat::Raw) => out.line(revision),
        Some(OutputFormat::Table) | None => out.line(words),
    }
}

fn list(
    out: &mut Output,
    format: Option<OutputFormat>,
    items: &Value,
    header: &[&str],
    row: impl Fn(&Value) -> Vec<String>,
) -> Result<(), Failure> {
    let items = items.as_array().map_or(&[][..], Vec::as_slice);
    match format {
        Some(OutputFormat::Json) => items.iter().try_for_each(|item| out.line(item)),
        Some(OutputFormat::Raw) => items.iter().try_for_each(|item| out.line(text(item, "name"))),
        Some(OutputFormat::Table) | None => {
            let mut rows = table(header);
            for item in items {
                rows.add_row(row(item));
            }
            out.line(lines_of(rows))
        }
    }
}

fn text(object: &Value, name: &str) -> String {
    object[name].as_str().unwrap_or_default().to_owned()
}

fn joined(object: &Value, name: &str) -> String {
    let items = object[name].as_array().into_iter().flatten().filter_map(Value::as_str);
    items.collect::<Vec<_>>().join(", ")
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests;
