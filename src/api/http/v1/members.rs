//! `/v1/members` and `/v1/leader/transfer`.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::conditions;
use crate::api::http::v1::input::{self, Freshness};
use crate::api::http::v1::json::Json;
use crate::api::http::v1::object::parse_json;
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::problem::Problem;
use crate::api::service::{Condition, ServiceError};
use crate::kv::Revision;
use crate::node::{MemberDone, MemberOrder, MemberView, NewNode, OrderConditions, OrderDone};
use crate::replica::{ClientError, Level};
use crate::runtime::Env;
use hyper::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// One node to add, or several.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    name: Option<String>,
    raft_addr: Option<String>,
    #[serde(default)]
    add: Vec<NodeBody>,
    #[serde(default)]
    replace: Named,
    #[serde(default)]
    learner: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeBody {
    name: String,
    raft_addr: String,
}

/// A member, or several: names, or ids as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    One(NameOrId),
    Several(Vec<NameOrId>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrId {
    Id(u64),
    Name(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransferBody {
    to: Option<NameOrId>,
}

impl Default for Named {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl NameOrId {
    fn into_text(self) -> String {
        match self {
            // A number is an id, whatever the members are called.
            Self::Id(id) => format!("id:{id}"),
            Self::Name(name) => name,
        }
    }
}

impl Named {
    fn into_texts(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.into_text()],
            Self::Several(several) => several.into_iter().map(NameOrId::into_text).collect(),
        }
    }
}

/// The members.
pub(super) async fn list<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let level = parameters.level()?;
    let freshness = Freshness::of(context, level);
    if !freshness.suffices() {
        return Err(ServiceError::of_client(&ClientError::Stale, false).into());
    }
    let view = service(context, call).members(level == Level::Linearizable).await?;
    let mut json = Json::object();
    json.number("configuration", view.configuration)
        .flag("committed", view.committed)
        .flag("joint", view.joint)
        .text("told_by", &view.told_by);
    json.list("members", &view.members, |json, member| {
        write_member(json, member, view.leader == Some(member.id));
    });
    let answer = Answer::json(StatusCode::OK, json.end_line()).tagged(Revision(view.configuration));
    Ok(freshness.told(context, answer))
}

fn write_member(json: &mut Json, member: &MemberView, is_leader: bool) {
    json.within(*b"{}", |json| {
        json.number("id", member.id.get())
            .text("name", &member.name)
            .text("raft_addr", &member.raft_addr)
            .text("http_addr", &member.http_addr)
            .text("standing", member.standing.name())
            .flag("leader", is_leader)
            .text("health", member.health.name());
        if let Some(index) = member.match_index {
            json.number("match_index", index);
        }
        if let Some(lag) = member.lag {
            json.number("lag", lag);
        }
        if let Some(replication) = member.replication {
            json.text("replication", replication.name());
        }
        if let Some(micros) = member.silent_micros {
            json.seconds("silent_seconds", micros);
        }
        if let Some(why) = &member.withdrawn {
            json.text("withdrawn", why);
        }
    });
}

/// Adds nodes.
pub(super) async fn add<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let conditions = conditions_of(call, &parameters)?;
    let AddBody { name, raft_addr, add, replace, learner } = input::json_body(context, call).await?;
    let nodes = match (name, raft_addr, add.is_empty()) {
        (Some(name), Some(raft_addr), true) => vec![NewNode { name, raft_addr }],
        (None, None, false) => {
            add.into_iter().map(|NodeBody { name, raft_addr }| NewNode { name, raft_addr }).collect()
        }
        _ => {
            let detail = "the body has name and raft_addr of a node, or a list of such objects under add";
            return Err(Problem::bad("bad-field", detail));
        }
    };
    let order = MemberOrder::Add { nodes, replaces: replace.into_texts(), learners: learner };
    carry_out(context, call, order, conditions).await
}

/// Makes a learner a voter.
pub(super) async fn promote<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let conditions = conditions_of(call, &parameters)?;
    let order = MemberOrder::Promote(member_in_path(call)?);
    carry_out(context, call, order, conditions).await
}

/// Removes a member.
pub(super) async fn remove<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let conditions = conditions_of(call, &parameters)?;
    let order = MemberOrder::Remove(vec![member_in_path(call)?]);
    carry_out(context, call, order, conditions).await
}

/// Hands leadership over.
pub(super) async fn transfer<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let conditions = OrderConditions { expected: expected(call)?, force: false };
    let (body, _held) = input::raw_body(context, call, input::SMALL_BODY_BYTES_MAX).await?;
    let to = if body.is_empty() { None } else { parse_json::<TransferBody>(&body)?.to };
    carry_out(context, call, MemberOrder::Transfer(to.map(NameOrId::into_text)), conditions).await
}

async fn carry_out<E: Env>(
    context: &Arc<Context<E>>,
    call: &Call,
    order: MemberOrder,
    conditions: OrderConditions,
) -> Result<Answer, Problem> {
    let is_transfer = matches!(order, MemberOrder::Transfer(_));
    let OrderDone { configuration, members, removed, leader } =
        service(context, call).manage(order, conditions).await?;
    let mut json = Json::object();
    json.number("configuration", configuration);
    if is_transfer {
        json.field("leader");
        match &leader {
            Some(leader) => write_done(&mut json, leader, false),
            None => {
                json.raw(b"null");
            }
        }
    }
    for (name, done) in [("members", &members), ("removed", &removed)] {
        if !done.is_empty() {
            json.list(name, done, |json, member| write_done(json, member, name == "members"));
        }
    }
    Ok(Answer::json(StatusCode::OK, json.end_line()).tagged(Revision(configuration)))
}

fn write_done(json: &mut Json, member: &MemberDone, has_standing: bool) {
    json.within(*b"{}", |json| {
        json.number("id", member.id.get()).text("name", &member.name);
        if has_standing {
            json.text("standing", member.standing.name());
        }
    });
}

/// When a change may be carried out.
fn conditions_of(call: &Call, parameters: &Parameters) -> Result<OrderConditions, Problem> {
    Ok(OrderConditions { expected: expected(call)?, force: parameters.flag("force")? })
}

/// The configuration that the client expects.
fn expected(call: &Call) -> Result<Option<u64>, Problem> {
    match conditions::of(call)? {
        None | Some(Condition::Exists) => Ok(None),
        Some(Condition::Is(Revision(index))) => Ok(Some(index)),
        Some(Condition::IsMissing | Condition::IsNot(_)) => {
            let detail = "the members have If-Match alone, with the ETag of GET /v1/members";
            Err(Problem::bad("bad-condition", detail))
        }
    }
}

/// The member that stands in the path, by id or by name.
fn member_in_path(call: &Call) -> Result<String, Problem> {
    let bytes = input::path_variable(call)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Problem::bad("bad-encoding", "the member in the path is no text"))?;
    Ok(text.to_owned())
}
