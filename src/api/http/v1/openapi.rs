//! `GET /openapi.json`: the API for programs, from the table of routes.

use crate::api::http::answer::{Answer, Content};
use crate::api::http::route::{BodyKind, Needs, Operation, ParameterKind, Route};
use crate::api::http::v1::json::Json;
use crate::kv::AdminRight;
use crate::runtime::Env;
use bytes::Bytes;
use std::sync::OnceLock;

/// The description (OpenAPI 3.1), which is the same for all clients.
pub(in crate::api::http) fn page<E: Env>(routes: impl Iterator<Item = &'static Route<E>>) -> Answer {
    static PAGE: OnceLock<Bytes> = OnceLock::new();
    Answer::page(Content::Json, PAGE.get_or_init(|| describe(routes).into()).clone())
}

fn describe<E: Env>(routes: impl Iterator<Item = &'static Route<E>>) -> Vec<u8> {
    let mut json = Json::object();
    json.text("openapi", "3.1.0");
    json.field("info").within(*b"{}", |json| {
        json.text("title", "InfinityStore").text("version", env!("CARGO_PKG_VERSION"));
    });
    json.field("paths").within(*b"{}", |json| {
        for route in routes {
            json.field(route.path).within(*b"{}", |json| {
                for operation in route.operations {
                    write_operation(json, route, operation);
                }
            });
        }
    });
    json.field("components").within(*b"{}", |json| {
        json.field("schemas").within(*b"{}", |json| {
            json.field("Problem").raw(PROBLEM.as_bytes());
        });
        json.field("securitySchemes").raw(SCHEMES.as_bytes());
    });
    json.field("security").raw(SECURITY.as_bytes());
    json.end_line()
}

const SCHEMES: &str =
    r#"{"token":{"type":"http","scheme":"bearer"},"password":{"type":"http","scheme":"basic"}}"#;
/// Either of them, or nothing as long as the cluster is open.
const SECURITY: &str = r#"[{"token":[]},{"password":[]},{}]"#;

/// What a request needs, once the cluster is not open any more.
const fn needs_of(needs: Needs) -> &'static str {
    match needs {
        Needs::Nothing => "nothing",
        Needs::CredentialsForAll => "credentials, for more than whether the node is ready",
        Needs::Credentials => "credentials",
        Needs::Keys => "rights to the keys",
        Needs::Right(AdminRight::Members) => "the right members",
        Needs::Right(AdminRight::Security) => "the right security",
        Needs::Right(AdminRight::Backups) => "the right backups",
        Needs::Right(AdminRight::Settings) => "the right settings",
    }
}

const PROBLEM: &str = r#"{"type":"object","required":["status","code","detail"],"properties":{"type":{"type":"string"},"title":{"type":"string"},"status":{"type":"integer"},"code":{"type":"string"},"detail":{"type":"string"},"outcome":{"type":"string","enum":["not-applied","unknown"]},"revision":{"type":"integer"},"configuration":{"type":"integer"},"present":{"type":"object"}}}"#;

fn write_operation<E: Env>(json: &mut Json, route: &Route<E>, operation: &Operation<E>) {
    json.field(&operation.method.to_ascii_lowercase()).within(*b"{}", |json| {
        json.text("operationId", operation.id).text("summary", operation.about);
        json.text("x-needs", needs_of(operation.needs));
        if operation.needs == Needs::Nothing {
            json.field("security").raw(b"[]");
        }
        json.field("parameters").within(*b"[]", |json| {
            if let Some((_, name)) = route.path.split_once('{') {
                let name = name.split_once('}').map_or(name, |(name, _)| name);
                write_parameter(json, (name, "path", true), "", ParameterKind::Bytes);
            }
            for parameter in operation.parameters.unwrap_or_default() {
                write_parameter(json, (parameter.name, "query", false), parameter.about, parameter.kind);
            }
            for header in operation.headers {
                let (about, kind) = header_of(header);
                write_parameter(json, (header, "header", false), about, kind);
            }
        });
        if let Some(kind) = content_type(operation.body) {
            json.field("requestBody").within(*b"{}", |json| write_content(json, kind, None));
        }
        json.field("responses").within(*b"{}", |json| {
            json.field("200").within(*b"{}", |json| {
                json.text("description", "it succeeded");
                if let Some(kind) = content_type(operation.success) {
                    write_content(json, kind, None);
                }
            });
            json.field("default").within(*b"{}", |json| {
                json.text("description", "it failed");
                if route.has_problems() {
                    let schema = r##"{"$ref":"#/components/schemas/Problem"}"##;
                    write_content(json, "application/problem+json", Some(schema));
                }
            });
        });
    });
}

/// What a header says, where its name is not enough, and how.
fn header_of(name: &str) -> (&'static str, ParameterKind) {
    match name {
        "Idempotency-Since" => {
            let about =
                "with Idempotency-Key: a revision of the store that you had seen before the first attempt";
            (about, ParameterKind::Number)
        }
        _ => ("", ParameterKind::Bytes),
    }
}

fn write_parameter(
    json: &mut Json,
    (name, place, required): (&str, &str, bool),
    about: &str,
    kind: ParameterKind,
) {
    json.within(*b"{}", |json| {
        json.text("name", name).text("in", place).flag("required", required);
        if !about.is_empty() {
            json.text("description", about);
        }
        json.field("schema").raw(schema(kind).as_bytes());
        if kind == ParameterKind::Flag {
            json.flag("allowEmptyValue", true);
        }
    });
}

fn write_content(json: &mut Json, kind: &str, schema: Option<&str>) {
    json.field("content").within(*b"{}", |json| {
        json.field(kind).within(*b"{}", |json| {
            if let Some(schema) = schema {
                json.field("schema").raw(schema.as_bytes());
            }
        });
    });
}

const fn content_type(kind: BodyKind) -> Option<&'static str> {
    match kind {
        BodyKind::None => None,
        BodyKind::Raw => Some("application/octet-stream"),
        BodyKind::Json => Some("application/json"),
        BodyKind::Text => Some("text/plain"),
        BodyKind::Events => Some("text/event-stream"),
    }
}

const fn schema(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::Bytes | ParameterKind::Base64 | ParameterKind::Duration => r#"{"type":"string"}"#,
        ParameterKind::Number => r#"{"type":"integer","format":"int64","minimum":0}"#,
        ParameterKind::Signed => r#"{"type":"integer","format":"int64"}"#,
        ParameterKind::Flag => r#"{"type":"boolean"}"#,
        ParameterKind::Level => r#"{"type":"string","enum":["linearizable","local"]}"#,
    }
}
