//! What the routes of `/v1` take behind the `?`.

use crate::api::http::route::ParameterKind::{Base64, Bytes, Duration, Flag, Level, Number, Signed};
use crate::api::http::route::{Parameter, ParameterKind};

const fn parameter(name: &'static str, kind: ParameterKind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

const KEY: Parameter = parameter("key", Bytes, "the key, where it does not stand in the path");
const KEY64: Parameter = parameter("key64", Base64, "the same in base64");
const PREFIX: Parameter = parameter("prefix", Bytes, "keys that begin with this");
const PREFIX64: Parameter = parameter("prefix64", Base64, "the same in base64");
const START: Parameter = parameter("start", Bytes, "keys from this one on");
const START64: Parameter = parameter("start64", Base64, "the same in base64");
const END: Parameter = parameter("end", Bytes, "keys below this one; left out: to the last");
const END64: Parameter = parameter("end64", Base64, "the same in base64");
const AT: Parameter = parameter("at", Number, "as of this revision of the store");
const LEVEL: Parameter =
    parameter("level", Level, "linearizable (the default), or local: as this node has it");
const MAX_STALENESS: Parameter =
    parameter("max_staleness", Duration, "a local read, if the state is no older than this");
const WAIT: Parameter = parameter("wait", Duration, "wait this long at most, up to 600s");
const AFTER: Parameter =
    parameter("after", Number, "wait for a change after this revision; left out: after the present one");
const TTL: Parameter = parameter("ttl", Duration, "with a new lease of this time");
const LEASE: Parameter = parameter("lease", Number, "the lease");
const LIMIT: Parameter = parameter("limit", Number, "how many at most");

pub(super) const PUT_KEY: &[Parameter] = &[TTL, LEASE];
pub(super) const PUT: &[Parameter] = &[KEY, KEY64, TTL, LEASE];
pub(super) const GET_KEY: &[Parameter] = &[AT, LEVEL, MAX_STALENESS, WAIT, AFTER];
pub(super) const DELETE_KEY: &[Parameter] = &[];
pub(super) const GET: &[Parameter] = &[
    PREFIX,
    PREFIX64,
    START,
    START64,
    END,
    END64,
    LIMIT,
    parameter("cursor", Bytes, "the page that follows; carries all but limit and level"),
    parameter("keys_only", Flag, "without the values"),
    parameter("count_only", Flag, "only how many there are"),
    parameter("delimiter", Bytes, "gather keys that go on with this behind the prefix, under prefixes"),
    parameter("delimiter64", Base64, "the same in base64"),
    AT,
    LEVEL,
    MAX_STALENESS,
    KEY,
    KEY64,
    WAIT,
    AFTER,
];
pub(super) const DELETE: &[Parameter] =
    &[PREFIX, PREFIX64, START, START64, END, END64, parameter("all", Flag, "every key"), KEY, KEY64];
pub(super) const NONE: &[Parameter] = &[];
pub(super) const INCREMENT: &[Parameter] = &[parameter("by", Signed, "what to add; left out: 1")];
pub(super) const WATCH: &[Parameter] = &[
    PREFIX,
    PREFIX64,
    START,
    START64,
    END,
    END64,
    KEY,
    KEY64,
    parameter("from", Number, "the first revision that is wanted; left out: the one that comes next"),
    parameter("previous", Flag, "with what each change replaced"),
    parameter("puts_only", Flag, "without deletions"),
    parameter("deletes_only", Flag, "without puts"),
];
pub(super) const LEASE_LIST: &[Parameter] =
    &[parameter("from", Number, "leases from this id on"), LIMIT, LEVEL, MAX_STALENESS];
pub(super) const LEASE_GET: &[Parameter] = &[
    parameter("from", Bytes, "keys of the lease from this one on"),
    parameter("from64", Base64, "the same in base64"),
    LIMIT,
];
pub(super) const TAKE: &[Parameter] = &[
    parameter("ttl", Duration, "with a new lease of this time; left out: 10s"),
    parameter("lease", Number, "with this lease instead"),
    parameter("wait", Duration, "wait this long at most, up to 600s; left out: not at all"),
    parameter("stay", Flag, "with lease: keep the place in the queue when that time is over"),
];
pub(super) const HELD_BY: &[Parameter] = &[LEASE];
pub(super) const HOLDER: &[Parameter] = &[LEVEL, MAX_STALENESS];
pub(super) const BACKUP: &[Parameter] = &[LEVEL, MAX_STALENESS];
pub(super) const SETTINGS: &[Parameter] = &[LEVEL, MAX_STALENESS];
pub(super) const LEVELS: &[Parameter] = &[LEVEL, MAX_STALENESS];
pub(super) const MEMBERS: &[Parameter] = &[
    parameter(
        "level",
        Level,
        "linearizable (the default): as the leader sees them; local: as this node does",
    ),
    MAX_STALENESS,
];
pub(super) const MEMBER_ORDER: &[Parameter] =
    &[parameter("force", Flag, "even if the members that answer would be no quorum of those that remain")];
