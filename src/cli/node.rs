//! Running a node.

use crate::api::{AuditLog, HttpOptions, HttpServer};
use crate::cli::args::{Cli, NodeArgs};
use crate::cli::audit_file::AuditFile;
use crate::cli::descriptors::{self, Shares};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::logging;
use crate::cli::signals::{StopSignals, node_runtime};
use crate::cli::units::time;
use crate::cli::variables::unknown_variables;
use crate::codec::{FeatureLevel, FeatureLevels, HostPort, check_name, host_of};
use crate::node::{
    NewNode, Node, NodeExit, NodeOptions, NodeSlot, ScrubOptions, StartError, keep_certificates,
};
use crate::raft::{Config, ConfigError};
use crate::replica::ReplicaConfig;
use crate::runtime::{Env, Listener, Metrics, TokioEnv, TokioListener};
use crate::storage::RealDisk;
use clap::CommandFactory as _;
use std::io::Write as _;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// The largest value, in the longest JSON, has to fit.
const REQUEST_MEMORY_MIN: u64 = 20 << 20;
/// A shorter interval between heartbeats is a mistake (a wrong unit, say): networks and disks
/// answer no faster.
const HEARTBEAT_MICROS_MIN: u64 = 1_000;
/// At a lower rate, a file that a newer snapshot has replaced would be closed between two chunks.
const SNAPSHOT_SEND_RATE_MIN: u64 = 1 << 20;
/// A start on a full disk is tried again after this time.
const NO_ROOM_RETRY_MICROS: u64 = 2_000_000;
/// How long requests may take to be answered when the node has ended by itself. Each of them is
/// told that it has.
const LAST_ANSWERS_MICROS: u64 = 2_000_000;
/// How long work that still runs when the node has ended (a blocking lookup, say) may take.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs a node until it is told to stop, or has to.
pub(super) fn run(args: &NodeArgs) -> Result<(), Failure> {
    logging::start(&args.log)?;
    let unknown = unknown_variables(&Cli::command(), std::env::vars_os().map(|(name, _)| name));
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        tracing::warn!(%names, "these environment variables mean nothing to this program; are they mistyped?");
    }
    let mut options = node_options(args)?;
    let open_files_max = descriptors::raise();
    let shares = descriptors::share(open_files_max, args.http_connections);
    if shares.http < args.http_connections {
        tracing::warn!(
            open_files = open_files_max,
            http_connections = shares.http,
            asked = args.http_connections,
            "the limit of open files allows fewer http connections than asked for; raise it (ulimit -Hn, LimitNOFILE=)"
        );
    }
    options.transport.connections_max = shares.raft;
    args.tls.warn_of_clear_text(&args.http_addr);
    let mut http = http_options(args, &options, shares, open_files_max)?;
    http.tls = args.tls.for_clients()?;
    let runtime = node_runtime(args.threads)?;
    let result = runtime.block_on(serve(args, options, http));
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    match result? {
        Ended::Well => Ok(()),
        Ended::ToBeginAgain(why) => begin_again(&why),
    }
}

/// How a node that did not fail has ended.
enum Ended {
    /// It was told to.
    Well,
    /// It sets its data aside when it is started again, and why.
    ToBeginAgain(String),
}

/// Becomes the same program with the same words anew, as a supervisor would start it.
fn begin_again(why: &str) -> Result<(), Failure> {
    tracing::warn!("this node starts itself again");
    let failed = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    let text = format!("{why}; it could not start itself again ({failed}): start it");
    Err(Failure::new(ExitStatus::Fatal, text))
}

/// The node's options, checked as far as they can be without touching anything.
pub(super) fn node_options(args: &NodeArgs) -> Result<NodeOptions, Failure> {
    let usage = |text: String| Failure::new(ExitStatus::Usage, text);
    let name = &args.node_id;
    check_name(name).map_err(|rule| usage(format!("--node-id {name:?}: {rule}")))?;
    for (flag, addr) in [("--raft-addr", &args.raft_addr), ("--http-addr", &args.http_addr)] {
        if HostPort::parse(addr).is_err() {
            return Err(usage(format!("{flag} {addr}: expected HOST:PORT, or :PORT for every interface")));
        }
    }
    if args.heartbeat_interval < HEARTBEAT_MICROS_MIN {
        let rule =
            "heartbeats more often than every 1ms would be all that the nodes do; the default is 100ms";
        return Err(usage(format!("--heartbeat-interval {}us: {rule}", args.heartbeat_interval)));
    }
    if (1..SNAPSHOT_SEND_RATE_MIN).contains(&args.snapshot_send_rate) {
        let rule =
            "a snapshot would be out of date when it arrives; at least 1MiB a second, or 0 for no bound";
        return Err(usage(format!("--snapshot-send-rate {}: {rule}", args.snapshot_send_rate)));
    }
    let raft = Config {
        heartbeat_interval_micros: args.heartbeat_interval,
        election_timeout_micros: args.election_timeout,
        log_tail_entries: args.log_tail_entries,
        log_tail_bytes: args.log_tail_bytes,
        snapshot_bytes_per_second_max: args.snapshot_send_rate,
        lease_drift_ppm: args.lease_reads,
        ..Config::default()
    };
    raft.validate().map_err(|error| usage(in_flags(&error)))?;
    let initial_cluster = args
        .initial_cluster
        .iter()
        .map(|named| NewNode { name: named.name.clone(), raft_addr: named.raft_addr.clone() });
    let initial_cluster: Vec<NewNode> = initial_cluster.collect();
    let own = own_address(args, &initial_cluster).map_err(usage)?;
    let advertise = args.advertise_raft_addr.clone().or(own);
    let mut options = NodeOptions {
        data_dir: data_dir(args),
        raft_addr: args.raft_addr.clone(),
        http_addr: args.advertise_http_addr.clone().unwrap_or_else(|| args.http_addr.clone()),
        advertise,
        initial_cluster,
        exits_when_removed: args.exit_when_removed,
        join: args.join.clone(),
        request_timeout_micros: args.request_timeout,
        segment_bytes: args.segment_bytes,
        scrub: ScrubOptions { bytes_per_second: args.scrub_rate, rest_micros: args.scrub_interval },
        replica: ReplicaConfig {
            raft,
            snapshot_log_bytes: args.snapshot_log_bytes,
            snapshot_log_entries: args.snapshot_log_entries,
            ..ReplicaConfig::default()
        },
        insecure: args.tls.insecure,
        ..NodeOptions::new(name)
    };
    if let Some(highest) = args.protocol_max {
        let ours = FeatureLevels::OF_THIS_RELEASE;
        let levels = ours.up_to(FeatureLevel::new(highest));
        options.speak(levels.ok_or_else(|| {
            usage(format!("--protocol-max {highest}: this release speaks feature level {ours}"))
        })?);
    }
    options.transport.tls = args.tls.for_members(name)?;
    options.check_secured().map_err(start_failure)?;
    Ok(options)
}

/// The address of this node in the initial cluster, whose list makes sense; `None` if there is no
/// list.
fn own_address(args: &NodeArgs, listed: &[NewNode]) -> Result<Option<String>, String> {
    if listed.is_empty() {
        return Ok(None);
    }
    let wrong = |text: String| Err(format!("--initial-cluster: {text}"));
    for (place, node) in listed.iter().enumerate() {
        let rest = &listed[place + 1..];
        if rest.iter().any(|other| other.name == node.name) {
            return wrong(format!("{} is there twice", node.name));
        }
        if rest.iter().any(|other| other.raft_addr == node.raft_addr) {
            return wrong(format!("the address {} is there twice", node.raft_addr));
        }
    }
    let Some(own) = listed.iter().find(|node| node.name == args.node_id) else {
        return wrong(format!("this node, --node-id {}, is not among them", args.node_id));
    };
    let (flag, known) = match &args.advertise_raft_addr {
        Some(known) => ("--advertise-raft-addr", known),
        None => ("--raft-addr", &args.raft_addr),
    };
    let is_same = match (HostPort::parse(known), HostPort::parse(&own.raft_addr)) {
        (Ok(known), Ok(own)) => {
            known.port == own.port && (known.is_every_interface() || known.host == own.host)
        }
        // A host alone is advertised.
        (Err(_), Ok(own)) => known == own.host,
        (_, Err(_)) => false,
    };
    if is_same {
        return Ok(Some(own.raft_addr.clone()));
    }
    wrong(format!("it says {} for this node, and {flag} says {known}", own.raft_addr))
}

/// The HTTP server's options. `shares` are what the system allows.
pub(super) fn http_options(
    args: &NodeArgs,
    node: &NodeOptions,
    shares: Shares,
    open_files_max: Option<u64>,
) -> Result<HttpOptions, Failure> {
    if args.request_memory < REQUEST_MEMORY_MIN {
        let rule = "one large value takes 13 MiB of it; at least 20MiB are needed";
        return Err(Failure::new(
            ExitStatus::Usage,
            format!("--request-memory {}: {rule}", args.request_memory),
        ));
    }
    let known = [Some(&node.raft_addr), Some(&node.http_addr), node.advertise.as_ref()];
    let host = |addr: &String| host_of(addr).to_owned();
    let mut hosts: Vec<String> = known.into_iter().flatten().map(host).collect();
    hosts.push(rustix::system::uname().nodename().to_string_lossy().into_owned());
    hosts.extend(args.allow_host.iter().cloned());
    let connections = shares.http;
    Ok(HttpOptions {
        connections_max: connections,
        refusals_max: shares.refused,
        connections_per_address_max: args
            .http_connections_per_address
            .unwrap_or((connections - connections / 4).max(1)),
        requests_max: args.http_requests,
        rate_per_address: args.http_rate_per_address,
        rate_per_user: args.http_rate_per_user,
        open_files_max,
        hosts,
        memory_bytes_max: usize::try_from(args.request_memory).unwrap_or(usize::MAX),
        ..HttpOptions::default()
    })
}

fn data_dir(args: &NodeArgs) -> PathBuf {
    args.data_dir.clone().unwrap_or_else(|| PathBuf::from("data").join(&args.node_id))
}

async fn serve(args: &NodeArgs, options: NodeOptions, http_options: HttpOptions) -> Result<Ended, Failure> {
    let mut signals = StopSignals::for_node()?;
    let env = TokioEnv::new(RealDisk);
    // Before the node: a port that is taken is found out before anything is made on the disk. A
    // name takes as long as the name server does.
    let listener = tokio::select! {
        biased;
        signal = signals.next() => return Ok(stopped_while_starting(signal)),
        listener = env.listen_to_clients(&args.http_addr) => {
            listener.map_err(|error| cannot_listen(&args.http_addr, &error))?
        }
    };
    let http_url = reachable(&listener.local_addr().unwrap_or_else(|_| args.http_addr.clone()));
    let audit = audit_log(&env, args)?;
    let http_options = HttpOptions { audit: audit.clone(), ..http_options };
    let serving = serve_on(&env, (listener, http_url), signals, args, options, http_options);
    AuditLog::kept_by(audit, &env, serving).await
}

async fn serve_on(
    env: &TokioEnv<RealDisk>,
    (listener, http_url): (TokioListener, String),
    mut signals: StopSignals,
    args: &NodeArgs,
    options: NodeOptions,
    http_options: HttpOptions,
) -> Result<Ended, Failure> {
    let raft_addr = options.raft_addr.clone();
    let is_secured = http_options.tls.is_some();
    let metrics = Metrics::new();
    for (port, tls) in [("client", &http_options.tls), ("peer", &options.transport.tls)] {
        if let Some(tls) = tls {
            metrics.certificates.add(port, tls);
        }
    }
    env.spawn(keep_certificates(env.clone(), metrics.clone()));
    // Before the node, too: a large store takes a while to load, and a supervisor asks meanwhile
    // how the process is. After the port for peers: a supervisor that finds the process alive may
    // have another node connect to it.
    let peers = tokio::select! {
        biased;
        signal = signals.next() => return Ok(stopped_while_starting(signal)),
        peers = Node::listen(env, &options) => peers.map_err(start_failure)?,
    };
    let slot = NodeSlot::default();
    let http = HttpServer::start(env.clone(), listener, http_options, slot.clone(), metrics.clone());
    let node = tokio::select! {
        biased;
        signal = signals.next() => return Ok(stopped_while_starting(signal)),
        started = start(env, options, metrics, peers) => started.map_err(start_failure)?,
    };
    slot.fill(node.handle());
    let scheme = if is_secured { "https" } else { "http" };
    // The program that started it may have closed the pipe. That is no reason not to serve.
    let _ = writeln!(
        std::io::stdout(),
        "{} serves on {scheme}://{http_url}, peers on {raft_addr}, data in {}",
        args.node_id,
        data_dir(args).display()
    );

    let starter_gone = watch_stdin(args.stop_with_stdin);
    let told = tokio::select! {
        biased;
        signal = signals.next() => signal,
        () = starter_gone.notified() => "the end of standard input",
        exit = node.stopped() => {
            // What was under way is answered, and written down: the order to remove this node may
            // have come in here, say.
            let patience = if exit == NodeExit::Removed { args.stop_timeout } else { LAST_ANSWERS_MICROS };
            http.stop(env.now().plus(patience)).await;
            return ended(exit);
        }
    };
    tracing::info!("stopping on {told}; once more stops at once");
    let graceful = async {
        http.stop(env.now().plus(args.stop_timeout)).await;
        node.stop();
        node.stopped().await
    };
    tokio::select! {
        biased;
        exit = graceful => ended(exit),
        signal = signals.next() => {
            Err(Failure::new(ExitStatus::Interrupted, format!("stopped at once by a second signal, {signal}")))
        }
    }
}

/// Nothing was promised yet: what is being read or rewritten may stop anywhere, as in a crash.
fn stopped_while_starting(signal: &str) -> Ended {
    tracing::info!("stopped by {signal} while starting");
    Ended::Well
}

/// The audit log, if there is to be one. A node that cannot write it does not start.
fn audit_log(env: &TokioEnv<RealDisk>, args: &NodeArgs) -> Result<Option<AuditLog>, Failure> {
    let Some(path) = &args.audit_log else { return Ok(None) };
    let cannot = |error: io::Error| {
        Failure::new(ExitStatus::Usage, format!("--audit-log {}: {error}", path.display()))
    };
    let file = AuditFile::open(path.clone(), args.audit_log_bytes).map_err(cannot)?;
    AuditLog::start(env, Box::new(file)).map(Some).map_err(cannot)
}

/// Starts the node. If the disk is full, it starts as soon as there is room.
async fn start(
    env: &TokioEnv<RealDisk>,
    options: NodeOptions,
    metrics: Metrics,
    peers: TokioListener,
) -> Result<Node, StartError> {
    let mut peers = Some(peers);
    loop {
        let peers = match peers.take() {
            Some(peers) => peers,
            None => Node::listen(env, &options).await?,
        };
        match Node::start_on(env.clone(), options.clone(), metrics.clone(), peers).await {
            Err(StartError::NoRoom(text)) => {
                if metrics.disk_full.get() == 0 {
                    tracing::error!("{text}; until then this node tries every few seconds");
                }
                metrics.disk_full.set(1);
                env.sleep_until(env.now().plus(NO_ROOM_RETRY_MICROS)).await;
            }
            started => {
                metrics.disk_full.set(0);
                return started;
            }
        }
    }
}

/// What is wrong with limits, in the words of the flags.
fn in_flags(error: &ConfigError) -> String {
    match error {
        ConfigError::ElectionTooShort { election_micros, heartbeat_micros } => format!(
            "--election-timeout {}: it must be at least 3 times the --heartbeat-interval, which is {}",
            time(*election_micros),
            time(*heartbeat_micros)
        ),
        ConfigError::Drift(_) => format!("--lease-reads: {error}"),
        ConfigError::Zero { field: "election_timeout_micros" } => {
            "--election-timeout 0s: it must be above zero".to_owned()
        }
        ConfigError::Zero { .. } => format!("--election-timeout, --heartbeat-interval: {error}"),
    }
}

fn ended(exit: NodeExit) -> Result<Ended, Failure> {
    match exit {
        NodeExit::Stopped => Ok(Ended::Well),
        NodeExit::Rebuild(why) => Ok(Ended::ToBeginAgain(why)),
        NodeExit::Removed => {
            let text =
                "this node was removed from its cluster; wipe its data directory before it joins again";
            Err(Failure::new(ExitStatus::Removed, text))
        }
        NodeExit::Failed(text) => Err(Failure::new(ExitStatus::Fatal, text)),
        NodeExit::Outgrown(text) => Err(Failure::new(ExitStatus::Outgrown, text)),
        NodeExit::DiskFailed(text) => Err(Failure::new(ExitStatus::DiskFailed, text)),
    }
}

fn cannot_listen(addr: &str, error: &io::Error) -> Failure {
    let text = if error.kind() == io::ErrorKind::AddrInUse {
        format!(
            "cannot listen on {addr} for clients: the port is in use; stop the other process or choose another --http-addr"
        )
    } else {
        format!(
            "cannot listen on {addr} for clients: {error}; --http-addr must name an address of this machine, or :PORT for all"
        )
    };
    Failure::new(ExitStatus::Address, text)
}

fn start_failure(error: StartError) -> Failure {
    let status = match &error {
        StartError::BadOption(_) | StartError::Insecure { .. } => ExitStatus::Usage,
        StartError::PortInUse { .. } | StartError::Listen { .. } => ExitStatus::Address,
        StartError::Storage(_) | StartError::NoRoom(_) => ExitStatus::Data,
        StartError::Removed { .. } => ExitStatus::Removed,
        StartError::Thread(_) => ExitStatus::Failure,
    };
    Failure::new(status, error.to_string())
}

/// An address that can be pasted on this machine: `localhost` for every interface.
pub(super) fn reachable(bound: &str) -> String {
    match HostPort::parse(bound) {
        Ok(bound) if bound.is_every_interface() => format!("localhost:{}", bound.port),
        _ => bound.to_owned(),
    }
}

/// Notified when standard input ends, if that is asked for. A thread, since reading it blocks; it
/// ends with the process.
fn watch_stdin(asked: bool) -> Arc<Notify> {
    let ended = Arc::new(Notify::new());
    if asked {
        let told = ended.clone();
        std::thread::spawn(move || {
            let mut scratch = [0; 64];
            let mut stdin = io::stdin();
            while stdin.read(&mut scratch).is_ok_and(|count| count > 0) {}
            told.notify_one();
        });
    }
    ended
}
