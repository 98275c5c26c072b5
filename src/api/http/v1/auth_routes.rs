//! The rows of the table of routes that begin with `/v1/auth`.

use crate::api::http::route::{BodyKind, Needs, Operation, Route, WhileStarting};
use crate::api::http::v1::parameter_lists::{LEVELS, NONE};
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::rows::{operation, read, write};
use crate::api::http::v1::{auth, input};
use crate::kv::AdminRight;
use crate::runtime::Env;
use std::marker::PhantomData;

/// The routes of `/v1/auth` on this `Env`.
pub(in crate::api::http) struct AuthRoutes<E>(PhantomData<E>);

const SECURITY: Needs = Needs::Right(AdminRight::Security);

/// A row with one operation that changes something.
macro_rules! order {
    ($path:literal, $method:literal, $id:literal, $needs:expr, $about:literal, $handler:expr, $body:ident) => {
        Route {
            path: $path,
            rest: false,
            is_probe: false,
            operations: &[write!($method, $id, $needs, $about, NONE, $handler, &[], $body, &[])],
        }
    };
}

/// A row whose operations list what there is, and add to it.
macro_rules! list {
    ($path:literal, ($get:literal, $get_about:literal, $list:expr), ($post:literal, $post_about:literal, $add:expr)) => {
        Route {
            path: $path,
            rest: false,
            is_probe: false,
            operations: &[
                read!($get, SECURITY, $get_about, LEVELS, $list, &[], Json, &[]),
                write!("POST", $post, SECURITY, $post_about, NONE, $add, &[], Json, &[]),
            ],
        }
    };
}

impl<E: Env> AuthRoutes<E> {
    pub(in crate::api::http) const ALL: &'static [Route<E>] = &[
        Route {
            path: "/v1/auth/status",
            rest: false,
            is_probe: false,
            operations: &[read!(
                "authStatus",
                Needs::Credentials,
                "whether credentials are needed, and who you are",
                NONE,
                auth::status,
                &[],
                Json,
                &[]
            )],
        },
        order!(
            "/v1/auth/enable",
            "POST",
            "enableAuth",
            SECURITY,
            "ask for credentials from now on",
            auth::enable,
            None
        ),
        order!(
            "/v1/auth/disable",
            "POST",
            "disableAuth",
            SECURITY,
            "let everybody do everything again",
            auth::disable,
            None
        ),
        list!(
            "/v1/auth/users",
            ("listUsers", "the users", auth::users),
            ("addUser", "add a user", auth::add_user)
        ),
        order!(
            "/v1/auth/users/{name}",
            "DELETE",
            "removeUser",
            SECURITY,
            "remove a user, and its tokens",
            auth::remove_user,
            None
        ),
        order!(
            "/v1/auth/users/{name}/password",
            "PUT",
            "setPassword",
            // One's own needs no right.
            Needs::Credentials,
            "give a user another password",
            auth::set_password,
            Json
        ),
        order!(
            "/v1/auth/users/{name}/roles",
            "POST",
            "changeUser",
            SECURITY,
            "give roles to a user, or take them",
            auth::change_user,
            Json
        ),
        list!(
            "/v1/auth/roles",
            ("listRoles", "the roles", auth::roles),
            ("addRole", "add a role", auth::add_role)
        ),
        order!(
            "/v1/auth/roles/{name}",
            "DELETE",
            "removeRole",
            SECURITY,
            "remove a role",
            auth::remove_role,
            None
        ),
        order!(
            "/v1/auth/roles/{name}/grants",
            "POST",
            "changeRole",
            SECURITY,
            "give rights to a role, or take them",
            auth::change_role,
            Json
        ),
        list!(
            "/v1/auth/tokens",
            ("listTokens", "the tokens, without what is shown", auth::tokens),
            ("addToken", "make a token, which is told once", auth::add_token)
        ),
        order!(
            "/v1/auth/tokens/{name}",
            "DELETE",
            "revokeToken",
            SECURITY,
            "revoke a token",
            auth::revoke_token,
            None
        ),
    ];
}
