//! `GET /v1/status` and `GET /metrics`: the node's view of itself and the cluster.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::health::is_ready;
use crate::api::http::identify::plain_refusal;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::problem::Problem;
use crate::api::service::ErrorCode;
use crate::codec::{FeatureLevel, FeatureLevels};
use crate::node::NodeStatus;
use crate::raft::{LogId, NodeId, ReplicationState, RoleName};
use crate::replica::{MemberStatus, Standing};
use crate::runtime::{Certificates, Env, Metrics};
use hyper::StatusCode;
use serde::Serialize;
use std::sync::atomic::Ordering;

pub(super) async fn handle<E: Env>(context: &Context<E>, call: &Call) -> Answer {
    let status = match service(context, call).status().await {
        Ok(status) => status,
        // A caller without a name learns as much as a probe does.
        Err(error)
            if matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::Starting) && is_nobody(call) =>
        {
            let status = context.node().status().await;
            let is_ready = is_ready(&status, context.metrics.disk_full.get() != 0);
            return Answer::json(
                StatusCode::OK,
                format!("{{\"alive\":true,\"ready\":{is_ready}}}\n").into_bytes(),
            );
        }
        Err(error) => return Problem::from(error).answer(),
    };
    let disk = disk_view(&status, &context.metrics);
    let tls = tls_view(&context.metrics.certificates);
    Answer::json(StatusCode::OK, render(&status, &disk, http_view(context), tls))
}

fn is_nobody(call: &Call) -> bool {
    call.asker.who.as_ref().is_none_or(|who| who.by.is_none())
}

pub(super) async fn metrics<E: Env>(context: &Context<E>, call: &Call) -> Answer {
    let status = match service(context, call).status().await {
        Ok(status) => status,
        Err(error) => return plain_refusal(&error),
    };
    context.metrics.http_watchers.set(i64::try_from(context.pages.watchers()).unwrap_or(i64::MAX));
    context.metrics.http_memory.set(i64::try_from(context.budget.used()).unwrap_or(i64::MAX));
    let scrub = context.metrics.scrub.status();
    context.metrics.scrub_bytes.inner().store(scrub.bytes, Ordering::Relaxed);
    context.metrics.scrub_passes.inner().store(scrub.passes, Ordering::Relaxed);
    context.metrics.scrub_damaged.set(i64::try_from(scrub.damaged.len()).unwrap_or(i64::MAX));
    let alarms = context.metrics.alarm_board.list().len();
    context.metrics.alarms.set(i64::try_from(alarms).unwrap_or(i64::MAX));
    let repair = context.metrics.repair.status();
    context.metrics.repairs.inner().store(repair.mended, Ordering::Relaxed);
    context.metrics.repair_bytes.set(i64::try_from(repair.bytes_fetched).unwrap_or(i64::MAX));
    // Set from what the budget counted: the request path keeps one count.
    context.metrics.http_memory_refused.inner().store(context.budget.refused(), Ordering::Relaxed);
    Answer::open_metrics(context.metrics.render(&status))
}

#[derive(Serialize)]
struct StatusView<'s> {
    version: &'static str,
    cluster: String,
    name: &'s str,
    id: u64,
    store: String,
    role: &'static str,
    term: u64,
    leader: Option<LeaderView<'s>>,
    last_log: LogIdView,
    commit_index: u64,
    applied_index: u64,
    snapshot: LogIdView,
    snapshot_failure: Option<&'s str>,
    revision: u64,
    keys: usize,
    store_bytes: u64,
    compacted: u64,
    history_bytes: u64,
    answers_bytes: u64,
    oldest_answer_seconds: Option<f64>,
    leases: usize,
    state_hash: String,
    feature_level: u16,
    speaks: LevelsView,
    configuration: u64,
    joint: bool,
    members: Vec<MemberView<'s>>,
    queues: QueuesView,
    http: HttpView,
    tls: TlsView,
    disk_full: bool,
    disk: &'s DiskView,
    removed: bool,
    joining: bool,
    stopped: Option<&'s str>,
    withdrawn: Option<&'s str>,
    uptime_seconds: f64,
}

#[derive(Serialize)]
struct LeaderView<'s> {
    id: u64,
    name: Option<&'s str>,
    raft_addr: Option<&'s str>,
    http_addr: Option<&'s str>,
}

#[derive(Serialize)]
struct LogIdView {
    term: u64,
    index: u64,
}

/// A member as this node sees it; what only its leader, or only itself, knows is null elsewhere.
#[derive(Serialize)]
struct MemberView<'s> {
    id: u64,
    name: &'s str,
    raft_addr: &'s str,
    http_addr: &'s str,
    store: String,
    standing: &'static str,
    role: Option<&'static str>,
    term: Option<u64>,
    match_index: Option<u64>,
    commit_index: Option<u64>,
    applied_index: Option<u64>,
    lag: Option<u64>,
    replication: Option<&'static str>,
    silent_seconds: Option<f64>,
    snapshot_refused: Option<String>,
    withdrawn: Option<&'s str>,
    speaks: Option<LevelsView>,
    spoken_level: Option<u16>,
}

/// The feature levels that a node speaks.
#[derive(Clone, Copy, Debug, Serialize)]
struct LevelsView {
    lowest: u16,
    highest: u16,
}

impl LevelsView {
    fn of(levels: FeatureLevels) -> Self {
        Self { lowest: levels.lowest().get(), highest: levels.highest().get() }
    }
}

#[derive(Serialize)]
struct QueuesView {
    events: usize,
    storage: usize,
    proposals: usize,
    reads: usize,
    watches: usize,
}

/// The certificates of the ports; null where a port does not speak TLS.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct TlsView {
    client: Option<CertificateView>,
    peer: Option<CertificateView>,
}

#[derive(Clone, Debug, Serialize)]
struct CertificateView {
    name: String,
    expires_in_seconds: i64,
    trouble: Option<String>,
    reloads: u64,
    handshakes: u64,
    handshakes_failed: u64,
}

pub(super) fn tls_view(certificates: &Certificates) -> TlsView {
    let view = |port| {
        certificates.status(port).map(|status| CertificateView {
            name: status.name,
            expires_in_seconds: status.expires_in_seconds,
            trouble: status.trouble,
            reloads: status.reloads,
            handshakes: status.handshakes,
            handshakes_failed: status.handshakes_failed,
        })
    };
    TlsView { client: view("client"), peer: view("peer") }
}

/// The disk, and what was found on it.
#[derive(Default, Serialize)]
pub(super) struct DiskView {
    #[serde(skip)]
    pub(super) full: bool,
    slow: bool,
    write_seconds: f64,
    scrub: ScrubView,
    repairs: u64,
    alarms: usize,
}

/// How far the reading of what is at rest is.
#[derive(Default, Serialize)]
struct ScrubView {
    bytes: u64,
    passes: u64,
    pass_bytes: u64,
    pass_read: u64,
    last_pass_seconds_ago: Option<f64>,
    damaged: Vec<String>,
    mended: u64,
}

fn disk_view(status: &NodeStatus, metrics: &Metrics) -> DiskView {
    let scrub = metrics.scrub.status();
    let ago = |at: u64| status.uptime_micros.saturating_sub(at) as f64 / 1e6;
    DiskView {
        full: metrics.disk_full.get() != 0,
        slow: status.replica.disk_slow,
        write_seconds: status.replica.disk_write_micros as f64 / 1e6,
        scrub: ScrubView {
            bytes: scrub.bytes,
            passes: scrub.passes,
            pass_bytes: scrub.pass_bytes,
            pass_read: scrub.pass_read,
            last_pass_seconds_ago: scrub.last_pass_micros.map(ago),
            damaged: scrub.damaged.iter().map(|(file, why)| format!("{file}: {why}")).collect(),
            mended: scrub.mended,
        },
        repairs: metrics.repair.status().mended,
        alarms: metrics.alarm_board.list().len(),
    }
}

/// The HTTP server itself.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct HttpView {
    connections: usize,
    connections_max: usize,
    connections_low: bool,
    memory_bytes: usize,
    memory_bytes_max: usize,
    open_files_max: Option<u64>,
}

fn http_view<E: Env>(context: &Context<E>) -> HttpView {
    let connections = context.connections();
    HttpView {
        connections: connections.places.taken(),
        connections_max: context.options.connections_max,
        connections_low: connections.places.is_low(),
        memory_bytes: context.budget.used(),
        memory_bytes_max: context.budget.bytes_max(),
        open_files_max: context.options.open_files_max,
    }
}

/// The status as JSON, indented so that it can be read with curl alone, and a newline.
pub(super) fn render(status: &NodeStatus, disk: &DiskView, http: HttpView, tls: TlsView) -> Vec<u8> {
    let replica = &status.replica;
    let view = StatusView {
        version: env!("CARGO_PKG_VERSION"),
        cluster: status.cluster.to_string(),
        name: &status.name,
        id: replica.id.get(),
        store: status.store.to_string(),
        role: role_name(replica.role),
        term: replica.term.get(),
        leader: replica.leader.map(|id| leader_view(id, &replica.members)),
        last_log: log_id_view(replica.last_log),
        commit_index: replica.commit_index.get(),
        applied_index: replica.last_applied.get(),
        snapshot: log_id_view(replica.snapshot),
        snapshot_failure: replica.snapshot_failure.as_deref(),
        revision: replica.revision,
        keys: replica.keys,
        store_bytes: replica.store_bytes,
        compacted: replica.compacted,
        history_bytes: replica.history_bytes,
        answers_bytes: replica.answers_bytes,
        oldest_answer_seconds: replica.oldest_answer_micros.map(|micros| micros as f64 / 1e6),
        leases: replica.leases,
        state_hash: format!("{:032x}", replica.state_hash),
        feature_level: replica.level.get(),
        speaks: LevelsView::of(replica.speaks),
        configuration: replica.configuration.get(),
        joint: replica.joint,
        members: replica.members.iter().map(|member| member_view(member, status)).collect(),
        queues: QueuesView {
            events: status.event_queue,
            storage: status.storage_queue,
            proposals: replica.pending_proposals,
            reads: replica.pending_reads,
            watches: replica.pending_watches,
        },
        http,
        tls,
        disk_full: disk.full,
        disk,
        removed: status.removed,
        joining: status.joining,
        stopped: status.stopped.as_deref(),
        withdrawn: replica.withdrawn.as_deref(),
        uptime_seconds: status.uptime_micros as f64 / 1e6,
    };
    let mut json =
        serde_json::to_vec_pretty(&view).expect("the view has no map with keys that are not strings");
    json.push(b'\n');
    json
}

fn leader_view(id: NodeId, members: &[MemberStatus]) -> LeaderView<'_> {
    let member = members.iter().find(|member| member.id == id).map(|member| &member.member);
    LeaderView {
        id: id.get(),
        name: member.map(|member| member.name.as_str()),
        raft_addr: member.map(|member| member.raft_addr.as_str()),
        http_addr: member.map(|member| member.http_addr.as_str()),
    }
}

fn member_view<'s>(member: &'s MemberStatus, status: &NodeStatus) -> MemberView<'s> {
    let replica = &status.replica;
    let itself = member.id == replica.id;
    let leads = replica.leader == Some(member.id);
    // A leader agrees with itself.
    let leads_itself = itself && replica.role == RoleName::Leader;
    let role = if itself {
        Some(role_name(replica.role))
    } else if leads {
        Some("leader")
    } else {
        // While the term has a leader, its other members follow, as far as this node can know.
        replica.leader.map(|_| if member.standing == Standing::Learner { "learner" } else { "follower" })
    };
    MemberView {
        id: member.id.get(),
        name: &member.member.name,
        raft_addr: &member.member.raft_addr,
        http_addr: &member.member.http_addr,
        store: member.member.store_id.to_string(),
        standing: member.standing.name(),
        role,
        term: (itself || leads).then(|| replica.term.get()),
        match_index: member
            .match_index
            .map(|index| index.get())
            .or(leads_itself.then(|| replica.last_log.index.get())),
        commit_index: itself.then(|| replica.commit_index.get()),
        applied_index: itself.then(|| replica.last_applied.get()),
        lag: member.lag.or(leads_itself.then_some(0)),
        replication: member.replication.map(ReplicationState::name),
        silent_seconds: member.silent_micros.map(|micros| micros as f64 / 1e6),
        snapshot_refused: member.snapshot_refused.map(|why| why.to_string()),
        withdrawn: member.withdrawn.as_deref(),
        speaks: member.speaks.map(LevelsView::of),
        spoken_level: member.spoken_level.map(FeatureLevel::get),
    }
}

fn log_id_view(id: LogId) -> LogIdView {
    LogIdView { term: id.term.get(), index: id.index.get() }
}

/// A role in words.
pub(super) fn role_name(role: RoleName) -> &'static str {
    match role {
        RoleName::Follower => "follower",
        RoleName::PreCandidate => "pre-candidate",
        RoleName::Candidate => "candidate",
        RoleName::Leader => "leader",
    }
}
