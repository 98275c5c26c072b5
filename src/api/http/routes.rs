//! The table of routes. A new route is a row here, or in `v1::routes`: dispatch, 404, 405, the
//! metrics' names, the page at `/` and `/openapi.json` come from it.

use crate::api::http::route::{BodyKind, Needs, Operation, Route, WhileStarting};
use crate::api::http::v1::auth_routes::AuthRoutes;
use crate::api::http::v1::{openapi, routes};
use crate::api::http::{get, health, help, join, set, status};
use crate::kv::AdminRight;
use crate::runtime::Env;
use std::future::ready;
use std::marker::PhantomData;
use std::ops::Range;

/// What requests to any other path are counted as.
const OTHER: &str = "other";

/// The routes of a server on this `Env`.
pub(super) struct Routes<E>(PhantomData<E>);

impl<E: Env> Routes<E> {
    /// Those that are not of `/v1`. The ones that are asked most come first.
    const PLAIN: &'static [Route<E>] = &[
        Route {
            path: "/set",
            rest: false,
            is_probe: false,
            operations: &[Operation {
                method: "POST",
                handler: |context, call| Box::pin(set::handle(context, call)),
                while_starting: WhileStarting::RefusesWrite,
                needs: Needs::Keys,
                about: "set or delete a key",
                id: "set",
                parameters: None,
                headers: &[],
                body: BodyKind::Json,
                success: BodyKind::Json,
                examples: &[
                    "curl -i -X POST http://HOST/set -d '{\"key\":\"foo\", \"value\":\"bar\",\"action\":\"set\"}'",
                    "curl -i -X POST http://HOST/set -d '{\"key\":\"foo\",\"action\":\"delete\"}'",
                ],
            }],
        },
        Route {
            path: "/get",
            rest: false,
            is_probe: false,
            operations: &[Operation {
                method: "GET",
                handler: |context, call| Box::pin(get::handle(context, call)),
                while_starting: WhileStarting::Refuses,
                needs: Needs::Keys,
                about: "read a key",
                id: "get",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Json,
                examples: &[
                    "curl -X GET  'http://HOST/get?key=foo'",
                    "curl -X GET  'http://HOST/get?key=foo&level=local'",
                ],
            }],
        },
        Route {
            path: "/join",
            rest: false,
            is_probe: false,
            operations: &[Operation {
                method: "POST",
                handler: |context, call| Box::pin(join::handle(context, call)),
                while_starting: WhileStarting::RefusesWrite,
                needs: Needs::Right(AdminRight::Members),
                about: "add or replace a node",
                id: "join",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Json,
                examples: &["curl -i -X POST 'http://HOST/join?nodeid=node-2&nodeaddr=localhost:8010'"],
            }],
        },
        Route {
            path: "/v1/status",
            rest: false,
            is_probe: false,
            operations: &[Operation {
                method: "GET",
                handler: |context, call| Box::pin(status::handle(context, call)),
                while_starting: WhileStarting::Refuses,
                needs: Needs::CredentialsForAll,
                about: "this node, and the cluster as it sees it",
                id: "status",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Json,
                examples: &["curl http://HOST/v1/status"],
            }],
        },
        Route {
            path: "/livez",
            rest: false,
            is_probe: true,
            operations: &[Operation {
                method: "GET",
                handler: |_, _| Box::pin(ready(health::live())),
                while_starting: WhileStarting::Answers,
                needs: Needs::Nothing,
                about: "whether the process runs",
                id: "live",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Text,
                examples: &["curl http://HOST/livez"],
            }],
        },
        Route {
            path: "/readyz",
            rest: false,
            is_probe: true,
            operations: &[Operation {
                method: "GET",
                handler: |context, call| Box::pin(health::ready(context, call.query())),
                while_starting: WhileStarting::NotReady,
                needs: Needs::Nothing,
                about: "whether it can serve",
                id: "ready",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Text,
                examples: &["curl http://HOST/readyz?verbose"],
            }],
        },
        Route {
            path: "/metrics",
            rest: false,
            is_probe: false,
            operations: &[Operation {
                method: "GET",
                handler: |context, call| Box::pin(status::metrics(context, call)),
                while_starting: WhileStarting::Refuses,
                needs: Needs::Credentials,
                about: "for Prometheus",
                id: "metrics",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Text,
                examples: &["curl http://HOST/metrics"],
            }],
        },
        Route {
            path: "/openapi.json",
            rest: false,
            is_probe: false,
            operations: &[Operation {
                method: "GET",
                handler: |_, _| Box::pin(ready(openapi::page(Self::all()))),
                while_starting: WhileStarting::Answers,
                needs: Needs::Nothing,
                about: "this API, for programs",
                id: "openapi",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Json,
                examples: &["curl http://HOST/openapi.json"],
            }],
        },
        Route {
            path: "/",
            rest: false,
            is_probe: false,
            operations: &[Operation {
                method: "GET",
                handler: |_, _| Box::pin(ready(help::page(Self::all()))),
                while_starting: WhileStarting::Answers,
                needs: Needs::Nothing,
                about: "these commands, as text",
                id: "help",
                parameters: None,
                headers: &[],
                body: BodyKind::None,
                success: BodyKind::Text,
                examples: &[],
            }],
        },
    ];

    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = &'static Route<E>> {
        Self::PLAIN.iter().chain(routes::Routes::<E>::ALL).chain(AuthRoutes::<E>::ALL)
    }

    /// The place of a path's route among [`Self::names`], the route, and where in the path its
    /// `{name}` stands. The last place and `None`: there is no route.
    #[expect(clippy::type_complexity, reason = "one caller takes it apart at once")]
    pub(super) fn of(path: &str) -> (usize, Option<(&'static Route<E>, Option<Range<usize>>)>) {
        let mut place = 0;
        for route in Self::all() {
            if let Some(variable) = route.matches(path) {
                return (place, Some((route, variable)));
            }
            place += 1;
        }
        (place, None)
    }

    /// What requests are counted under.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Self::all().map(|route| route.path).chain([OTHER])
    }
}
