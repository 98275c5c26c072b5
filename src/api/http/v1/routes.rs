//! The rows of the table of routes that begin with `/v1/`, `/v1/status` and `/v1/auth` apart.

use crate::api::http::route::{BodyKind, Needs, Operation, Route, WhileStarting};
use crate::api::http::v1::parameter_lists::{
    BACKUP, DELETE, DELETE_KEY, GET, GET_KEY, HELD_BY, HOLDER, INCREMENT, LEASE_GET, LEASE_LIST,
    MEMBER_ORDER, MEMBERS, NONE, PUT, PUT_KEY, SETTINGS, TAKE, WATCH,
};
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::rows::{operation, read, renew, write};
use crate::api::http::v1::{alarms, backup, input, key, leases, locks, members, range, store, txn, watch};
use crate::api::service::ContestKind;
use crate::kv::AdminRight;
use crate::runtime::Env;
use std::marker::PhantomData;

/// The routes of `/v1` on this `Env`.
pub(in crate::api::http) struct Routes<E>(PhantomData<E>);

const KEYS: Needs = Needs::Keys;
const CREDENTIALS: Needs = Needs::Credentials;
const SETTINGS_RIGHT: Needs = Needs::Right(AdminRight::Settings);
const MEMBERS_RIGHT: Needs = Needs::Right(AdminRight::Members);
const BACKUPS_RIGHT: Needs = Needs::Right(AdminRight::Backups);
const IF_MATCH: &[&str] = &["If-Match"];
const IDEMPOTENT: &[&str] = &["Idempotency-Key", "Idempotency-Since"];
const CONDITIONAL: &[&str] = &["If-Match", "If-None-Match"];
const CONDITIONAL_WRITE: &[&str] = &["If-Match", "If-None-Match", "Idempotency-Key", "Idempotency-Since"];

macro_rules! contest {
    ($path:literal, $kind:expr, $take:literal, $get:literal, $release:literal, $proclaim:literal, $examples:expr) => {
        Route {
            path: $path,
            rest: true,
            is_probe: false,
            operations: &[
                write!(
                    "POST",
                    $take,
                    KEYS,
                    "stand for it, and wait for it",
                    TAKE,
                    |context, call, parameters| locks::take(context, call, ($kind, parameters)),
                    IDEMPOTENT,
                    Raw,
                    $examples
                ),
                read!(
                    $get,
                    KEYS,
                    "who has it",
                    HOLDER,
                    |context, call, parameters| locks::get(context, call, ($kind, parameters)),
                    &[],
                    Json,
                    &[]
                ),
                write!(
                    "PUT",
                    $proclaim,
                    KEYS,
                    "give the holder's key another value",
                    HELD_BY,
                    |context, call, parameters| locks::proclaim(context, call, ($kind, parameters)),
                    IDEMPOTENT,
                    Raw,
                    &[]
                ),
                write!(
                    "DELETE",
                    $release,
                    KEYS,
                    "give it up",
                    HELD_BY,
                    |context, call, parameters| locks::release(context, call, ($kind, parameters)),
                    IDEMPOTENT,
                    None,
                    &[]
                ),
            ],
        }
    };
}

impl<E: Env> Routes<E> {
    /// The ones that are asked most come first.
    pub(in crate::api::http) const ALL: &'static [Route<E>] = &[
        Route {
            path: "/v1/kv/{key}",
            rest: true,
            is_probe: false,
            operations: &[
                read!(
                    "getKey",
                    KEYS,
                    "read a key, or wait until it changes",
                    GET_KEY,
                    key::get,
                    CONDITIONAL,
                    Raw,
                    &["curl -i http://HOST/v1/kv/foo"]
                ),
                write!(
                    "PUT",
                    "putKey",
                    KEYS,
                    "set a key to the body",
                    PUT_KEY,
                    key::put,
                    CONDITIONAL_WRITE,
                    Raw,
                    &["curl -X PUT http://HOST/v1/kv/foo --data-binary bar"]
                ),
                write!(
                    "DELETE",
                    "deleteKey",
                    KEYS,
                    "delete a key",
                    DELETE_KEY,
                    key::delete,
                    CONDITIONAL_WRITE,
                    None,
                    &["curl -X DELETE http://HOST/v1/kv/foo"]
                ),
            ],
        },
        Route {
            path: "/v1/kv",
            rest: false,
            is_probe: false,
            operations: &[
                read!(
                    "listKeys",
                    KEYS,
                    "list keys, in pages of one revision",
                    GET,
                    range::get,
                    CONDITIONAL,
                    Json,
                    &["curl 'http://HOST/v1/kv?prefix=a/&limit=100'"]
                ),
                write!(
                    "PUT",
                    "putKeyOfQuery",
                    KEYS,
                    "set a key that stands in the query",
                    PUT,
                    key::put,
                    CONDITIONAL_WRITE,
                    Raw,
                    &[]
                ),
                write!(
                    "DELETE",
                    "deleteKeys",
                    KEYS,
                    "delete keys",
                    DELETE,
                    range::delete,
                    CONDITIONAL_WRITE,
                    None,
                    &["curl -X DELETE 'http://HOST/v1/kv?prefix=a/'"]
                ),
            ],
        },
        Route {
            path: "/v1/range",
            rest: false,
            is_probe: false,
            operations: &[renew!(
                "POST",
                "askRange",
                KEYS,
                "list keys, with the parameters as JSON",
                NONE,
                range::ask,
                CONDITIONAL,
                Json,
                &[]
            )],
        },
        Route {
            path: "/v1/watch",
            rest: false,
            is_probe: false,
            operations: &[read!(
                "watch",
                KEYS,
                "changes as they happen, as server-sent events",
                WATCH,
                watch::handle,
                &["Last-Event-ID"],
                Events,
                &["curl -N 'http://HOST/v1/watch?prefix=a/'"]
            )],
        },
        Route {
            path: "/v1/txn",
            rest: false,
            is_probe: false,
            operations: &[write!(
                "POST",
                "transact",
                KEYS,
                "compare, and do one thing or the other",
                NONE,
                txn::handle,
                IDEMPOTENT,
                Json,
                &[
                    "curl -X POST http://HOST/v1/txn -d '{\"if\":[{\"key\":\"a\",\"version\":0}],\"then\":[{\"put\":{\"key\":\"a\",\"value\":\"x\"}}]}'"
                ]
            )],
        },
        Route {
            path: "/v1/incr/{key}",
            rest: true,
            is_probe: false,
            operations: &[write!(
                "POST",
                "increment",
                KEYS,
                "add to a number",
                INCREMENT,
                key::increment,
                IDEMPOTENT,
                None,
                &["curl -X POST 'http://HOST/v1/incr/visits?by=1'"]
            )],
        },
        Route {
            path: "/v1/leases",
            rest: false,
            is_probe: false,
            operations: &[
                write!(
                    "POST",
                    "grantLease",
                    CREDENTIALS,
                    "make a lease",
                    NONE,
                    leases::grant,
                    IDEMPOTENT,
                    Json,
                    &["curl -X POST http://HOST/v1/leases -d '{\"ttl\":10}'"]
                ),
                read!("listLeases", KEYS, "the leases", LEASE_LIST, leases::list, &[], Json, &[]),
            ],
        },
        Route {
            path: "/v1/leases/{id}",
            rest: false,
            is_probe: false,
            operations: &[
                read!(
                    "getLease",
                    KEYS,
                    "a lease's time, and its keys",
                    LEASE_GET,
                    leases::get,
                    &[],
                    Json,
                    &[]
                ),
                write!(
                    "DELETE",
                    "revokeLease",
                    KEYS,
                    "end a lease, and delete its keys",
                    NONE,
                    leases::revoke,
                    IDEMPOTENT,
                    None,
                    &[]
                ),
            ],
        },
        Route {
            path: "/v1/leases/{id}/keepalive",
            rest: false,
            is_probe: false,
            operations: &[renew!(
                "POST",
                "renewLease",
                KEYS,
                "let a lease's time begin anew",
                NONE,
                leases::keep_alive,
                &[],
                None,
                &[]
            )],
        },
        contest!(
            "/v1/locks/{name}",
            ContestKind::Lock,
            "takeLock",
            "getLock",
            "releaseLock",
            "putLockValue",
            &["curl -X POST 'http://HOST/v1/locks/nightly?ttl=10s&wait=5s'"]
        ),
        contest!(
            "/v1/elections/{name}",
            ContestKind::Election,
            "campaign",
            "getLeader",
            "resign",
            "proclaim",
            &["curl -X POST 'http://HOST/v1/elections/api?ttl=10s' -d http://me:80"]
        ),
        Route {
            path: "/v1/compact",
            rest: false,
            is_probe: false,
            operations: &[write!(
                "POST",
                "compact",
                SETTINGS_RIGHT,
                "forget what was before a revision",
                NONE,
                store::compact,
                IDEMPOTENT,
                Json,
                &[]
            )],
        },
        Route {
            path: "/v1/snapshot",
            rest: false,
            is_probe: false,
            operations: &[read!(
                "backup",
                BACKUPS_RIGHT,
                "a backup of all there is",
                BACKUP,
                backup::handle,
                &[],
                Raw,
                &[]
            )],
        },
        Route {
            path: "/v1/settings",
            rest: false,
            is_probe: false,
            operations: &[
                read!(
                    "getSettings",
                    CREDENTIALS,
                    "the limits of the cluster",
                    SETTINGS,
                    store::settings,
                    &[],
                    Json,
                    &[]
                ),
                write!(
                    "PUT",
                    "putSettings",
                    SETTINGS_RIGHT,
                    "change them, all at once",
                    NONE,
                    store::configure,
                    IDEMPOTENT,
                    Json,
                    &[]
                ),
            ],
        },
        Route {
            path: "/v1/members",
            rest: false,
            is_probe: false,
            operations: &[
                read!(
                    "listMembers",
                    CREDENTIALS,
                    "the members, and how they are",
                    MEMBERS,
                    members::list,
                    &[],
                    Json,
                    &["curl http://HOST/v1/members"]
                ),
                write!(
                    "POST",
                    "addMembers",
                    MEMBERS_RIGHT,
                    "add nodes, which become voters or replace others",
                    MEMBER_ORDER,
                    members::add,
                    IF_MATCH,
                    Json,
                    &[
                        "curl -X POST http://HOST/v1/members -d '{\"name\":\"node-4\",\"raft_addr\":\"localhost:8030\"}'"
                    ]
                ),
            ],
        },
        Route {
            path: "/v1/members/{id}",
            rest: false,
            is_probe: false,
            operations: &[write!(
                "DELETE",
                "removeMember",
                MEMBERS_RIGHT,
                "remove a member, by id or by name",
                MEMBER_ORDER,
                members::remove,
                IF_MATCH,
                None,
                &["curl -X DELETE http://HOST/v1/members/node-4"]
            )],
        },
        Route {
            path: "/v1/members/{id}/promote",
            rest: false,
            is_probe: false,
            operations: &[write!(
                "POST",
                "promoteMember",
                MEMBERS_RIGHT,
                "make a learner a voter, once it has caught up",
                MEMBER_ORDER,
                members::promote,
                IF_MATCH,
                None,
                &[]
            )],
        },
        Route {
            path: "/v1/alarms",
            rest: false,
            is_probe: false,
            operations: &[read!(
                "listAlarms",
                CREDENTIALS,
                "what befell this node's data, until somebody has seen it",
                NONE,
                alarms::list,
                &[],
                Json,
                &[]
            )],
        },
        Route {
            path: "/v1/alarms/{id}",
            rest: false,
            is_probe: false,
            operations: &[write!(
                "DELETE",
                "acknowledgeAlarm",
                MEMBERS_RIGHT,
                "say that you have seen an alarm",
                NONE,
                alarms::acknowledge,
                &[],
                None,
                &[]
            )],
        },
        Route {
            path: "/v1/leader/transfer",
            rest: false,
            is_probe: false,
            operations: &[write!(
                "POST",
                "transferLeadership",
                MEMBERS_RIGHT,
                "hand leadership to a member, or to the one that is ready best",
                NONE,
                members::transfer,
                IF_MATCH,
                Json,
                &["curl -X POST http://HOST/v1/leader/transfer -d '{\"to\":\"node-2\"}'"]
            )],
        },
    ];
}
