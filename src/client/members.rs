//! The members: who they are, and what operators order.

use crate::client::attempts::Client;
use crate::client::error::{CallError, CallFailure};
use crate::client::request::Ask;
use crate::client::target::Target;
use crate::replica::Level;
use hyper::header::IF_MATCH;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// A change takes so much longer than other calls: a new member has to catch up.
const CHANGE_TIME: Duration = Duration::from_secs(30);

/// The members, as a node sees them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MembersReport {
    /// The index of the configuration in force: what [`OrderOptions::expected`] is compared with.
    pub configuration: u64,
    /// Whether it is known to be committed.
    pub committed: bool,
    /// Whether it is a joint state: a change of the voters is under way.
    pub joint: bool,
    /// The node whose view this is.
    pub told_by: String,
    /// All members, by their ids.
    pub members: Vec<MemberHealth>,
}

/// A member, as a node sees it. What only the leader knows is `None` elsewhere.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MemberHealth {
    /// Its number in the cluster.
    pub id: u64,
    /// Its `--node-id`.
    pub name: String,
    /// Where the other nodes reach it.
    pub raft_addr: String,
    /// Where its HTTP API is.
    pub http_addr: String,
    /// `voter`, `learner`, `joining` or `leaving`.
    pub standing: String,
    /// Whether it leads.
    pub leader: bool,
    /// `ok`, `silent`, `catching-up`, `withdrawn`, or `unknown`.
    pub health: String,
    /// How far its log is known to agree with the leader's.
    pub match_index: Option<u64>,
    /// Entries that it lacks.
    pub lag: Option<u64>,
    /// Since it was last heard from.
    pub silent_seconds: Option<f64>,
    /// Why it takes no part any more.
    pub withdrawn: Option<String>,
}

/// A node that is to become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeToAdd {
    /// Its `--node-id`.
    pub name: String,
    /// Where the other nodes reach it: `host:port`.
    pub raft_addr: String,
}

/// When an order is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderOptions {
    /// Only if the configuration is this one ([`MembersReport::configuration`]).
    pub expected: Option<u64>,
    /// Even if the members that answer would be no quorum of those that remain.
    pub force: bool,
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OrderReport {
    /// The index of the configuration now.
    pub configuration: u64,
    /// The members that were added or promoted.
    #[serde(default)]
    pub members: Vec<MemberStanding>,
    /// The members that were removed.
    #[serde(default)]
    pub removed: Vec<MemberStanding>,
    /// The leader, after a transfer.
    pub leader: Option<MemberStanding>,
}

/// A member that an order was about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MemberStanding {
    /// Its number in the cluster.
    pub id: u64,
    /// Its `--node-id`.
    pub name: String,
    /// `voter`, or `learner`: it still catches up, or stays one.
    pub standing: Option<String>,
}

impl Client {
    /// The members: as the leader sees them, or as the node that is asked does, if the leader does
    /// not answer or `level` is [`Level::Local`].
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn members(&mut self, level: Level) -> Result<MembersReport, CallError> {
        self.told(Ask::get(Target::new("/v1/members").with_level(level).into_text(), &[200])).await
    }

    /// The same as the node writes it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn members_json(&mut self, level: Level) -> Result<Value, CallError> {
        self.told(Ask::get(Target::new("/v1/members").with_level(level).into_text(), &[200])).await
    }

    /// Adds nodes. They become voters in one change once all have caught up, in which the members
    /// `replaces` leave; with `learners` set they stay learners. An order that is repeated does no
    /// harm, but it is the caller that repeats it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn add_members(
        &mut self,
        nodes: &[NodeToAdd],
        replaces: &[String],
        learners: bool,
        options: OrderOptions,
    ) -> Result<OrderReport, CallError> {
        let add = nodes.iter().map(|node| json!({ "name": node.name, "raft_addr": node.raft_addr }));
        let add: Vec<Value> = add.collect();
        let body = json!({ "add": add, "replace": replaces, "learner": learners }).to_string();
        let target = Target::new("/v1/members").with_flag("force", options.force);
        self.order(Ask::post(target.into_text(), body), options).await
    }

    /// Makes a learner a voter, once it has caught up. A member is named by its name or its id.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn promote_member(
        &mut self,
        member: &str,
        options: OrderOptions,
    ) -> Result<OrderReport, CallError> {
        let path = format!("{}/promote", member_path(member));
        let target = Target::new(path).with_flag("force", options.force);
        self.order(Ask::post(target.into_text(), ""), options).await
    }

    /// Removes a member, named by its name or its id. One that leads hands over first.
    ///
    /// # Errors
    /// [`CallError`]; of the kind [`NotFound`](crate::client::ErrorKind::NotFound): there is no
    /// such member.
    pub async fn remove_member(
        &mut self,
        member: &str,
        options: OrderOptions,
    ) -> Result<OrderReport, CallError> {
        let target = Target::new(member_path(member)).with_flag("force", options.force);
        self.order(Ask::delete(target.into_text()), options).await
    }

    /// Hands leadership to a member, or to the one that is ready best.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn transfer_leadership(
        &mut self,
        to: Option<&str>,
        options: OrderOptions,
    ) -> Result<OrderReport, CallError> {
        let body = to.map_or_else(String::new, |to| json!({ "to": to }).to_string());
        self.order(Ask::post("/v1/leader/transfer".to_owned(), body), options).await
    }

    async fn order(
        &mut self,
        ask: Result<Ask, CallFailure>,
        options: OrderOptions,
    ) -> Result<OrderReport, CallError> {
        let ask = ask.map(|ask| ask.waiting(CHANGE_TIME)).and_then(|ask| match options.expected {
            Some(index) => ask.with_header(IF_MATCH, &format!("\"{index}\"")),
            None => Ok(ask),
        });
        self.told(ask).await
    }
}

/// The path of a member.
fn member_path(member: &str) -> String {
    Target::below("/v1/members/", member.as_bytes()).into_text()
}
