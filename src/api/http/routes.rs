//! The table of routes. A new route is a row here: dispatch, 404, 405, the metrics' names and the
//! page at `/` come from it.

use crate::api::http::route::{GET, POST, Route, WhileStarting};
use crate::api::http::{get, health, help, join, set, status};
use crate::runtime::Env;
use std::future::ready;
use std::marker::PhantomData;

/// What requests to any other path are counted as.
const OTHER: &str = "other";

/// The routes of a server on this `Env`.
pub(super) struct Routes<E>(PhantomData<E>);

impl<E: Env> Routes<E> {
    /// The ones that are asked most come first.
    const ALL: &'static [Route<E>] = &[
        Route {
            path: "/set",
            methods: POST,
            handler: |context, call| Box::pin(set::handle(context, call.take_body())),
            is_probe: false,
            while_starting: WhileStarting::RefusesWrite,
            about: "set or delete a key",
            examples: &[
                "curl -i -X POST http://HOST/set -d '{\"key\":\"foo\", \"value\":\"bar\",\"action\":\"set\"}'",
                "curl -i -X POST http://HOST/set -d '{\"key\":\"foo\",\"action\":\"delete\"}'",
            ],
        },
        Route {
            path: "/get",
            methods: GET,
            handler: |context, call| Box::pin(get::handle(context, call.query())),
            is_probe: false,
            while_starting: WhileStarting::Refuses,
            about: "read a key",
            examples: &[
                "curl -X GET  'http://HOST/get?key=foo'",
                "curl -X GET  'http://HOST/get?key=foo&level=local'",
            ],
        },
        Route {
            path: "/join",
            methods: POST,
            handler: |context, call| Box::pin(join::handle(context, call.query())),
            is_probe: false,
            while_starting: WhileStarting::Refuses,
            about: "add or replace a node",
            examples: &["curl -i -X POST 'http://HOST/join?nodeid=node-2&nodeaddr=localhost:8010'"],
        },
        Route {
            path: "/v1/status",
            methods: GET,
            handler: |context, _| Box::pin(status::handle(context)),
            is_probe: false,
            while_starting: WhileStarting::Refuses,
            about: "this node, and the cluster as it sees it",
            examples: &["curl http://HOST/v1/status"],
        },
        Route {
            path: "/livez",
            methods: GET,
            handler: |_, _| Box::pin(ready(health::live())),
            is_probe: true,
            while_starting: WhileStarting::Answers,
            about: "whether the process runs",
            examples: &["curl http://HOST/livez"],
        },
        Route {
            path: "/readyz",
            methods: GET,
            handler: |context, call| Box::pin(health::ready(context, call.query())),
            is_probe: true,
            while_starting: WhileStarting::NotReady,
            about: "whether it can serve",
            examples: &["curl http://HOST/readyz?verbose"],
        },
        Route {
            path: "/metrics",
            methods: GET,
            handler: |context, _| Box::pin(status::metrics(context)),
            is_probe: false,
            while_starting: WhileStarting::Refuses,
            about: "for Prometheus",
            examples: &["curl http://HOST/metrics"],
        },
        Route {
            path: "/",
            methods: GET,
            handler: |_, _| Box::pin(ready(help::page(Self::ALL))),
            is_probe: false,
            while_starting: WhileStarting::Answers,
            about: "these commands, as text",
            examples: &[],
        },
    ];

    /// The route of a path, and its place among [`Self::names`]. `None` and the last place: there
    /// is none.
    pub(super) fn of(path: &str) -> (usize, Option<&'static Route<E>>) {
        let place = Self::ALL.iter().position(|route| route.path == path);
        (place.unwrap_or(Self::ALL.len()), place.map(|place| &Self::ALL[place]))
    }

    /// What requests are counted under.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|route| route.path).chain([OTHER])
    }
}
