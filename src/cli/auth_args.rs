//! What `auth`, `user`, `role` and `token` take.

use crate::cli::client_args::{ConnectArgs, OutputArgs};
use crate::cli::exit::{client_exit_codes, examples};
use crate::cli::units::duration_above_zero;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct AuthArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: AuthCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuthCommand {
    /// Ask for credentials from now on
    ///
    /// It is refused unless a user with the role root could get in afterwards.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore user add root --role root",
        "infinitystore auth enable"
    ))]
    Enable,
    /// Let everybody do everything again
    #[command(after_help = client_exit_codes!())]
    Disable,
    /// Say whether credentials are needed, and who you are
    #[command(after_help = client_exit_codes!())]
    Status,
}

#[derive(Debug, Args)]
pub(super) struct UserArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user, whose password is asked for, or read from standard input
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore user add root --role root",
        "cat password.txt | infinitystore user add app --role app",
        "infinitystore user add node-7 --role app --no-password    # it comes with a certificate, or a token"
    ))]
    Add {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// A role that it has; may be said several times [default: none]
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// It gets no password
        #[arg(long)]
        no_password: bool,
    },
    /// List the users
    #[command(after_help = client_exit_codes!())]
    #[command(visible_alias = "list")]
    Ls,
    /// Remove a user, and its tokens
    #[command(after_help = client_exit_codes!())]
    #[command(visible_alias = "remove")]
    Rm {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Give a user another password, which is asked for, or read from standard input
    #[command(after_help = client_exit_codes!())]
    Passwd {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// It gets no password any more
        #[arg(long)]
        no_password: bool,
    },
    /// Give a user a role
    #[command(after_help = client_exit_codes!())]
    GrantRole {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The role
        #[arg(value_name = "ROLE")]
        role: String,
    },
    /// Take a role from a user
    #[command(after_help = client_exit_codes!())]
    RevokeRole {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The role
        #[arg(value_name = "ROLE")]
        role: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct RoleArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: RoleCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum RoleCommand {
    /// Add a role, which may do nothing yet
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore role add app",
        "infinitystore role grant app read-write --prefix app/"
    ))]
    Add {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List the roles, and what they may do
    #[command(after_help = client_exit_codes!())]
    #[command(visible_alias = "list")]
    Ls,
    /// Remove a role
    #[command(after_help = client_exit_codes!())]
    #[command(visible_alias = "remove")]
    Rm {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Let a role do something
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore role grant app read-write --prefix app/",
        "infinitystore role grant reader read --exact greeting",
        "infinitystore role grant reader read --start a --end n",
        "infinitystore role grant app read-write --lock nightly    # or --election NAME",
        "infinitystore role grant operator members    # also: security, backups, settings"
    ))]
    Grant(RightArgs),
    /// Take it again: as it was granted
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore role revoke app read-write --prefix app/"
    ))]
    Revoke(RightArgs),
}

#[derive(Debug, Args)]
pub(super) struct RightArgs {
    /// The role
    #[arg(value_name = "ROLE")]
    pub(super) role: String,
    /// What
    #[arg(value_name = "RIGHT", value_enum)]
    pub(super) right: RightName,
    /// With this key alone [default: none]
    #[arg(long, value_name = "KEY", conflicts_with_all = ["prefix", "start", "end"])]
    pub(super) exact: Option<OsString>,
    /// With keys that begin with this; '' is every key [default: none]
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["start", "end"])]
    pub(super) prefix: Option<OsString>,
    /// With keys from this one on [default: none]
    #[arg(long, value_name = "KEY")]
    pub(super) start: Option<OsString>,
    /// With keys below this one [default: to the last]
    #[arg(long, value_name = "KEY", requires = "start")]
    pub(super) end: Option<OsString>,
    /// With the keys that the lock of this name is made of; to take it is read-write
    /// [default: none]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["exact", "prefix", "start", "end"])]
    pub(super) lock: Option<OsString>,
    /// The same of an election [default: none]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["exact", "prefix", "start", "end", "lock"])]
    pub(super) election: Option<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RightName {
    /// To see keys
    Read,
    /// To set and delete keys
    Write,
    /// Both
    ReadWrite,
    /// To add and remove members
    Members,
    /// To change users, roles and tokens: as good as all rights
    Security,
    /// To make backups of all there is
    Backups,
    /// To change limits, and to forget the past
    Settings,
}

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print it: it cannot be seen again
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore token create ci --role app --ttl 24h",
        "infinitystore token create laptop --for-user alice",
        "infinitystore token create ci --role app -o raw > ci.token"
    ))]
    #[command(group = ArgGroup::new("rights").required(true).args(["for_user", "roles"]))]
    Create {
        /// Its name, under which it is revoked
        #[arg(value_name = "NAME")]
        name: String,
        /// It has the rights of this user [default: none]
        #[arg(long, value_name = "USER")]
        for_user: Option<String>,
        /// It has the rights of this role; may be said several times [default: none]
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// It ends after this time [default: when it is revoked]
        #[arg(long, value_parser = duration_above_zero, value_name = "TIME")]
        ttl: Option<Duration>,
    },
    /// List the tokens
    #[command(after_help = client_exit_codes!())]
    #[command(visible_alias = "list")]
    Ls,
    /// Revoke a token
    #[command(after_help = client_exit_codes!())]
    Revoke {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}
