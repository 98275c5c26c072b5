//! What the command line takes.

use crate::cli::auth_args::{AuthArgs, RoleArgs, TokenArgs, UserArgs};
use crate::cli::client_args::{
    BackupArgs, ElectArgs, ExportArgs, ImportArgs, KvArgs, LeaseArgs, LockArgs, SettingsArgs, StatusArgs,
};
use crate::cli::exit::{self, backup_exit_codes, client_exit_codes, examples, hold_exit_codes};
use crate::cli::member_args::{AlarmArgs, LeaderArgs, MemberArgs, NamedAddress, named_address};
use crate::cli::tls_args::{ClientTlsArgs, NodeTlsArgs, TlsCommand};
use crate::cli::units::{bytes, bytes_above_zero, count_above_zero, micros, micros_above_zero, percent_ppm};
use crate::cli::variables::{is_overruled, variables_used, with_its_variable, without_variables};
use crate::client::Endpoint;
use clap::builder::NonEmptyStringValueParser;
use clap::error::ContextKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// A replicated key-value store. Without a subcommand, runs a node.
#[derive(Debug, Parser)]
#[command(name = "infinitystore", version, after_help = exit::HELP, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) node: NodeArgs,
    /// Flags whose values come from the environment, and from which variable.
    #[arg(skip)]
    variables: Vec<(String, String)>,
}

impl Cli {
    /// What the command line and the environment say. A variable that is empty counts as one that
    /// is not set: it is what `NAME=${OTHER}` leaves, in a unit or a compose file, where there is
    /// no `OTHER`.
    ///
    /// # Errors
    /// Wrong usage, or a text that was asked for.
    pub(super) fn from_arguments(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<OsString> = with_double_dashes(arguments).collect();
        let mut command = without_variables(Self::command(), &|arg| is_overruled(arg, &arguments));
        let matches = command
            .try_get_matches_from_mut(&arguments)
            .map_err(|error| with_its_own_usage(error, &arguments))
            .map_err(|error| with_its_variable(error, &command, &arguments))?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        cli.variables = variables_used(&command, &matches);
        Ok(cli)
    }

    /// `text`, and of each flag that it names and that the environment has set, which variable that
    /// was.
    pub(super) fn name_variables(&self, text: &str) -> String {
        let names = |flag: &str| {
            let mut found = text.match_indices(flag).map(|(at, _)| &text[at + flag.len()..]);
            found.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
        };
        let mut named = text.to_owned();
        for (flag, variable) in self.variables.iter().filter(|(flag, _)| names(flag)) {
            named.push_str(&format!(" ({flag} is from the environment variable {variable})"));
        }
        named
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a cluster to try, on this machine: several nodes, joined, with the commands to talk to
    /// them
    Dev(DevArgs),
    /// Put load on a cluster and measure it
    ///
    /// It overwrites keys that are a k and 15 digits (k000000000000000 and so on), and leaves them
    /// there: as many as --keys says, at most.
    Bench(BenchArgs),
    /// Look into a write-ahead log
    #[command(subcommand)]
    Wal(WalCommand),
    /// Look into a snapshot file
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Make a cluster of one of a member, when its cluster has lost the majority for good
    ///
    /// Says what the member has and what may be lost, and changes nothing without --accept-loss.
    /// Then it asks. The member must be stopped. It keeps everything in the member's log, and
    /// writes into the data directory what was done. The old members must never run again.
    #[command(after_help = exit::HELP)]
    Recover(RecoverArgs),
    /// Read, write and follow keys
    #[command(after_help = client_exit_codes!())]
    Kv(KvArgs),
    /// Leases: keys that end when nobody renews them
    #[command(after_help = client_exit_codes!())]
    Lease(LeaseArgs),
    /// Run a command while holding a lock
    ///
    /// COMMAND finds the fencing number in INFINITYSTORE_FENCE and the lease in
    /// INFINITYSTORE_LEASE. Hand the fencing number to whatever the lock protects, which should
    /// refuse a number that is lower than one that it has seen: no lock alone can keep a process
    /// that was paused from going on too late. The lock is kept for as long as COMMAND runs, and
    /// given back when it ends. When it is lost all the same, COMMAND is stopped. SIGTERM, SIGHUP
    /// and SIGINT are passed on to it.
    #[command(after_help = hold_exit_codes!(), after_long_help = examples!(hold_exit_codes:
        "infinitystore lock nightly -- ./backup.sh",
        "infinitystore lock nightly --wait 0s -- ./backup.sh     # or not at all, if another one holds it",
        "infinitystore lock nightly -- sh -c 'echo my fence is $INFINITYSTORE_FENCE'"
    ))]
    Lock(LockArgs),
    /// Stand for election, and run a command while leading
    ///
    /// As `lock`, but the others can see VALUE: who leads. Without COMMAND this prints a line when
    /// it leads, and leads until you stop it.
    #[command(after_help = hold_exit_codes!(), after_long_help = examples!(hold_exit_codes:
        "infinitystore elect api http://me:8080 -- ./serve.sh",
        "infinitystore elect api http://me:8080"
    ))]
    Elect(ElectArgs),
    /// The limits that the cluster shares
    #[command(after_help = client_exit_codes!())]
    Settings(SettingsArgs),
    /// Whether the cluster asks for credentials: enable, disable, status
    #[command(after_help = client_exit_codes!())]
    Auth(AuthArgs),
    /// Users: list, add, remove, password, roles
    #[command(after_help = client_exit_codes!())]
    User(UserArgs),
    /// Roles: list, add, remove, grant, revoke
    #[command(after_help = client_exit_codes!())]
    Role(RoleArgs),
    /// Tokens: list, create, revoke
    #[command(after_help = client_exit_codes!())]
    Token(TokenArgs),
    /// The members of the cluster: list, add, promote, remove, replace
    #[command(after_help = client_exit_codes!())]
    Member(MemberArgs),
    /// The leader of the cluster
    #[command(after_help = client_exit_codes!())]
    Leader(LeaderArgs),
    /// What befell the nodes' data, until a person has seen it: list, acknowledge
    #[command(after_help = client_exit_codes!())]
    Alarm(AlarmArgs),
    /// What the nodes say of themselves
    ///
    /// Asks every endpoint. The exit code is 0 if one of them answers.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore status",
        "infinitystore status --endpoints localhost:8001,localhost:8011,localhost:8021 -o json"
    ))]
    Status(StatusArgs),
    /// Save a backup, look at one, and make a data directory of one
    #[command(after_help = backup_exit_codes!())]
    Backup(BackupArgs),
    /// Write all keys to standard output, as JSON lines
    ///
    /// All of them are as of one revision, however much is written meanwhile. The first line says
    /// which one, and the last line how many keys there are, so that an export that was cut short
    /// is told from a whole one.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore export > all.jsonl",
        "infinitystore export users/ --at 17 > users.jsonl"
    ))]
    Export(ExportArgs),
    /// Write the keys of an export
    ///
    /// Keys that are there are overwritten, and no key is deleted. Each batch of keys is one
    /// transaction, which is done once although it may be sent again. If an import fails halfway,
    /// it can be begun anew. Keys that had a lease are left out, unless you say --with-leased: they
    /// were meant to end.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore import all.jsonl",
        "infinitystore export --endpoints here:8001 | infinitystore import --endpoints there:8001"
    ))]
    Import(ImportArgs),
    /// Certificates: make them for a whole cluster, and see what is in them
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Print what makes a shell complete this command line
    #[command(
        after_long_help = "Examples:\n  infinitystore completions bash > ~/.local/share/bash-completion/completions/infinitystore\n  infinitystore completions fish > ~/.config/fish/completions/infinitystore.fish"
    )]
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL", value_enum)]
        shell: Shell,
    },
    /// Print the manual page, or write all manual pages into a folder
    #[command(
        after_long_help = "Examples:\n  infinitystore man | man -l -\n  infinitystore man ~/.local/share/man/man1"
    )]
    Man {
        /// Where to write a page for each command [default: this command's own, to standard output]
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum WalCommand {
    /// Read all of a data directory's log and snapshots, and say whether they are sound
    #[command(after_help = exit::HELP)]
    Verify(LookArgs),
    /// Say how much a data directory's log holds
    #[command(after_help = exit::HELP)]
    Stat(LookArgs),
    /// Print the records of a data directory's log, readably; changes nothing
    #[command(after_help = exit::HELP)]
    Dump {
        /// The data directory, as in data/node1
        #[arg(env = "INFINITYSTORE_DATA_DIR", default_value = "data/node1")]
        dir: PathBuf,
        /// For programs: a JSON object a line
        #[arg(long, env = "INFINITYSTORE_JSON")]
        json: bool,
    },
    /// Say what is damaged in the data directory of a cluster of one, and go on without it
    ///
    /// A member of a larger cluster repairs itself from the others when it starts. A node alone
    /// cannot. This shows what would be lost, and changes nothing without --accept-loss. Then it
    /// asks. What comes before the first damage is kept, and the damaged files are set aside.
    #[command(after_help = exit::HELP)]
    Repair {
        /// The data directory, as in data/node1
        #[arg(env = "INFINITYSTORE_DATA_DIR", default_value = "data/node1")]
        dir: PathBuf,
        /// Go on without what is lost
        #[arg(long)]
        accept_loss: bool,
        /// Do not ask
        #[arg(long, requires = "accept_loss")]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct LookArgs {
    /// The data directory, as in data/node1
    #[arg(env = "INFINITYSTORE_DATA_DIR", default_value = "data/node1")]
    pub(super) dir: PathBuf,
    /// For programs: a JSON object a line
    #[arg(long, env = "INFINITYSTORE_JSON")]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Print what is in a snapshot file: its description, and its keys
    #[command(after_help = exit::HELP)]
    Dump {
        /// The file, as in data/node1/snapshots-1/00000000000000000042-1.snap
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// For programs: a JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Read all of a snapshot file, and check that it is what was written
    #[command(after_help = exit::HELP)]
    Verify {
        /// The file, as in data/node1/snapshots-1/00000000000000000042-1.snap
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// For programs: a JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// The data directory of the member that goes on
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Go on without what is lost
    #[arg(long)]
    pub(super) accept_loss: bool,
    /// Do not ask
    #[arg(long, requires = "accept_loss")]
    pub(super) yes: bool,
}

/// A node.
#[derive(Clone, Debug, Args)]
pub(super) struct NodeArgs {
    /// Name of this node
    #[arg(long, env = "INFINITYSTORE_NODE_ID", default_value = "node1", value_name = "NAME")]
    pub(super) node_id: String,
    /// Where to listen for the other nodes; `:PORT` means every interface
    #[arg(long, env = "INFINITYSTORE_RAFT_ADDR", default_value = "localhost:8000", value_name = "HOST:PORT")]
    pub(super) raft_addr: String,
    /// Where to listen for clients; `:PORT` means every interface
    #[arg(long, env = "INFINITYSTORE_HTTP_ADDR", default_value = ":8001", value_name = "HOST:PORT")]
    pub(super) http_addr: String,
    /// Where the data is [default: data/<node-id>]
    #[arg(long, env = "INFINITYSTORE_DATA_DIR", value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Raft addresses of members of a cluster to join, if this node has no data yet [default: none]
    #[arg(long, env = "INFINITYSTORE_JOIN", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new(), value_name = "HOST:PORT,…")]
    pub(super) join: Vec<String>,
    /// The nodes of a new cluster, this one among them, and their raft addresses: the same list on
    /// all of them. The first by name makes the cluster. Means nothing once this node has data
    /// [default: none]
    #[arg(long, env = "INFINITYSTORE_INITIAL_CLUSTER", value_delimiter = ',', value_parser = named_address, conflicts_with = "join", value_name = "NAME=HOST:PORT,…")]
    pub(super) initial_cluster: Vec<NamedAddress>,
    /// End with exit code 7 when this node was removed from its cluster
    #[arg(long, env = "INFINITYSTORE_EXIT_WHEN_REMOVED")]
    pub(super) exit_when_removed: bool,
    /// Where the other nodes reach this one, if not at --raft-addr [default: --raft-addr, or the
    /// host's name]
    #[arg(long, env = "INFINITYSTORE_ADVERTISE_RAFT_ADDR", value_name = "HOST[:PORT]")]
    pub(super) advertise_raft_addr: Option<String>,
    /// Where clients reach this node, if not at --http-addr [default: --http-addr]
    #[arg(long, env = "INFINITYSTORE_ADVERTISE_HTTP_ADDR", value_name = "HOST:PORT")]
    pub(super) advertise_http_addr: Option<String>,
    /// A leader that has told a node nothing for this long sends it a heartbeat; at least 1ms
    #[arg(long, env = "INFINITYSTORE_HEARTBEAT_INTERVAL", default_value = "100ms", value_parser = micros, value_name = "TIME")]
    pub(super) heartbeat_interval: u64,
    /// A follower stands for election after a silence between this and twice this; at least 3
    /// heartbeat intervals
    #[arg(long, env = "INFINITYSTORE_ELECTION_TIMEOUT", default_value = "600ms", value_parser = micros, value_name = "TIME")]
    pub(super) election_timeout: u64,
    /// Leaders answer reads at once while a quorum has promised to elect nobody else. DRIFT bounds
    /// how far the clock of any node is off in rate; beyond it, reads may be stale [default: off;
    /// 1% without a DRIFT]
    #[arg(long, env = "INFINITYSTORE_LEASE_READS", value_parser = percent_ppm, num_args = 0..=1, require_equals = true, default_missing_value = "1%", value_name = "DRIFT")]
    pub(super) lease_reads: Option<u32>,
    /// After this long a client is told that its request failed, or that its outcome is unknown
    #[arg(long, env = "INFINITYSTORE_REQUEST_TIMEOUT", default_value = "5s", value_parser = micros_above_zero, value_name = "TIME")]
    pub(super) request_timeout: u64,
    /// How long requests under way may still take when the node is told to stop
    #[arg(long, env = "INFINITYSTORE_STOP_TIMEOUT", default_value = "5s", value_parser = micros, value_name = "TIME")]
    pub(super) stop_timeout: u64,
    /// Size of one file of the log
    #[arg(long, env = "INFINITYSTORE_SEGMENT_BYTES", default_value = "64MiB", value_parser = bytes_above_zero, value_name = "BYTES")]
    pub(super) segment_bytes: u64,
    /// Take a snapshot when the log has grown by this many bytes, and by as many bytes as the store
    /// held at the last snapshot …
    #[arg(long, env = "INFINITYSTORE_SNAPSHOT_LOG_BYTES", default_value = "64MiB", value_parser = bytes_above_zero, value_name = "BYTES")]
    pub(super) snapshot_log_bytes: u64,
    /// … or by this many entries, and by a quarter of the keys that it had then
    #[arg(long, env = "INFINITYSTORE_SNAPSHOT_LOG_ENTRIES", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "COUNT")]
    pub(super) snapshot_log_entries: u64,
    /// Entries kept in the log behind a snapshot, for nodes that lag, at most …
    #[arg(long, env = "INFINITYSTORE_LOG_TAIL_ENTRIES", default_value_t = 10_000, value_name = "COUNT")]
    pub(super) log_tail_entries: u64,
    /// … and bytes of entries, at most
    #[arg(long, env = "INFINITYSTORE_LOG_TAIL_BYTES", default_value = "32MiB", value_parser = bytes_above_zero, value_name = "BYTES")]
    pub(super) log_tail_bytes: u64,
    /// Bytes of snapshots that a leader sends in a second, to all nodes that lag together; 0: as
    /// many as it can
    #[arg(long, env = "INFINITYSTORE_SNAPSHOT_SEND_RATE", default_value = "95MiB", value_parser = bytes, value_name = "BYTES")]
    pub(super) snapshot_send_rate: u64,
    /// Read what is at rest on the disk again, so many bytes a second at most; 0: never
    #[arg(long, env = "INFINITYSTORE_SCRUB_RATE", default_value = "4MiB", value_parser = bytes, value_name = "BYTES")]
    pub(super) scrub_rate: u64,
    /// From the end of one reading of all that is at rest to the next
    #[arg(long, env = "INFINITYSTORE_SCRUB_INTERVAL", default_value = "3600s", value_parser = micros_above_zero, value_name = "TIME")]
    pub(super) scrub_interval: u64,
    /// HTTP connections at the same time; one more ends an idle one, or is answered 503
    #[arg(long, env = "INFINITYSTORE_HTTP_CONNECTIONS", default_value_t = 10_000, value_parser = count_above_zero, value_name = "COUNT")]
    pub(super) http_connections: usize,
    /// HTTP connections at the same time from one address [default: three of four]
    #[arg(long, env = "INFINITYSTORE_HTTP_CONNECTIONS_PER_ADDRESS", value_parser = count_above_zero, value_name = "COUNT")]
    pub(super) http_connections_per_address: Option<usize>,
    /// HTTP requests under way at the same time; while there are as many, addresses take turns
    #[arg(long, env = "INFINITYSTORE_HTTP_REQUESTS", default_value_t = 512, value_parser = count_above_zero, value_name = "COUNT")]
    pub(super) http_requests: usize,
    /// HTTP requests a second from one address; those beyond wait a second and are answered 429
    /// [default: no limit]
    #[arg(long, env = "INFINITYSTORE_HTTP_RATE_PER_ADDRESS", value_name = "COUNT")]
    pub(super) http_rate_per_address: Option<NonZeroU32>,
    /// The same of one user, token or client certificate [default: no limit]
    #[arg(long, env = "INFINITYSTORE_HTTP_RATE_PER_USER", value_name = "COUNT")]
    pub(super) http_rate_per_user: Option<NonZeroU32>,
    /// Memory for HTTP requests and answers under way; a request for which there is none is
    /// answered 503. At least 20MiB
    #[arg(long, env = "INFINITYSTORE_REQUEST_MEMORY", default_value = "256MiB", value_parser = bytes_above_zero, value_name = "BYTES")]
    pub(super) request_memory: u64,
    /// Further names under which clients reach this node, beside its addresses and its host name;
    /// `*` for any [default: none]
    #[arg(long, env = "INFINITYSTORE_ALLOW_HOST", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new(), value_name = "NAME,…")]
    pub(super) allow_host: Vec<String>,
    /// Write down who did what, a JSON object a line, into this file [default: nowhere]
    #[arg(long, env = "INFINITYSTORE_AUDIT_LOG", value_name = "FILE")]
    pub(super) audit_log: Option<PathBuf>,
    /// Set that file aside when it has grown to this, as FILE.1; eight older ones are kept
    #[arg(long, env = "INFINITYSTORE_AUDIT_LOG_BYTES", default_value = "64MiB", value_parser = bytes_above_zero, value_name = "BYTES")]
    pub(super) audit_log_bytes: u64,
    /// Threads for sockets and consensus; the disk has its own. More than one pays only with many
    /// cores
    #[arg(long, env = "INFINITYSTORE_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "COUNT")]
    pub(super) threads: u16,
    #[command(flatten)]
    pub(super) tls: NodeTlsArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
    /// Speak no feature level above this one, as an older release would: for tests of upgrades
    /// [default: the highest that this release speaks]
    #[arg(long, env = "INFINITYSTORE_PROTOCOL_MAX", hide = true, value_name = "LEVEL")]
    pub(super) protocol_max: Option<u16>,
    /// Stop when standard input ends: so that nodes do not outlive the program that started them
    #[arg(long, env = "INFINITYSTORE_STOP_WITH_STDIN", hide = true)]
    pub(super) stop_with_stdin: bool,
}

/// What is logged, to standard error.
#[derive(Clone, Debug, Args)]
pub(super) struct LogArgs {
    /// How log lines look
    #[arg(long, env = "INFINITYSTORE_LOG_FORMAT", default_value = "text", value_enum)]
    pub(super) log_format: LogFormat,
    /// What is logged: off, error, warn, info, debug or trace, also by module, as in
    /// info,infinitystore::node=debug
    #[arg(long, env = "INFINITYSTORE_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub(super) log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// A cluster to try.
#[derive(Clone, Debug, Args)]
#[command(after_help = exit::HELP)]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, env = "INFINITYSTORE_DEV_NODES", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9), value_name = "COUNT")]
    pub(super) nodes: u16,
    /// HTTP port of the first node; its raft port is one below, the next node's are 10 above. Taken
    /// ports are skipped
    #[arg(long, env = "INFINITYSTORE_DEV_BASE_PORT", default_value_t = 8001, value_parser = clap::value_parser!(u16).range(2..=60_000), value_name = "PORT")]
    pub(super) base_port: u16,
    /// Where the nodes keep their data and logs; a cluster that is already there is started again
    #[arg(long, env = "INFINITYSTORE_DEV_DIR", default_value = "data/dev", value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Remove the data when it stops (only of nodes that this run has created)
    #[arg(long, env = "INFINITYSTORE_DEV_REMOVE_DATA")]
    pub(super) remove_data: bool,
    /// What the nodes log: see the option of a node
    #[arg(long, env = "INFINITYSTORE_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub(super) log_level: String,
}

/// A load generator. Closed loop: each client sends its next request when the last was answered.
/// It writes keys that are a `k` and 15 digits, and leaves them there.
#[derive(Clone, Debug, Args)]
#[command(after_help = exit::HELP)]
pub(super) struct BenchArgs {
    /// HTTP addresses of the nodes; clients are spread over them. INFINITYSTORE_ENDPOINTS counts
    /// too
    #[arg(
        long,
        env = "INFINITYSTORE_BENCH_ENDPOINTS",
        default_value = "localhost:8001",
        value_delimiter = ',',
        value_name = "HOST:PORT,…"
    )]
    pub(super) endpoints: Vec<Endpoint>,
    #[command(flatten)]
    pub(super) tls: ClientTlsArgs,
    /// Clients at the same time, each with its connection
    #[arg(long, env = "INFINITYSTORE_BENCH_CLIENTS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "COUNT")]
    pub(super) clients: u32,
    /// Size of the values written
    #[arg(long, env = "INFINITYSTORE_BENCH_VALUE_SIZE", default_value = "256", value_parser = bytes, value_name = "BYTES")]
    pub(super) value_size: u64,
    /// Reads among the requests, percent
    #[arg(long, env = "INFINITYSTORE_BENCH_READ_SHARE", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100), value_name = "PERCENT")]
    pub(super) read_share: u8,
    /// How fresh reads are
    #[arg(long, env = "INFINITYSTORE_BENCH_READ_LEVEL", default_value = "linearizable", value_enum)]
    pub(super) read_level: ReadLevel,
    /// Keys that are written and read, at random
    #[arg(long, env = "INFINITYSTORE_BENCH_KEYS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "COUNT")]
    pub(super) keys: u64,
    /// How long to measure, seconds
    #[arg(long, env = "INFINITYSTORE_BENCH_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "SECONDS")]
    pub(super) seconds: u32,
    /// How long to put load on before measuring, seconds
    #[arg(long, env = "INFINITYSTORE_BENCH_WARMUP", default_value_t = 2, value_name = "SECONDS")]
    pub(super) warmup: u32,
    /// A request that is not answered within this time counts as failed
    #[arg(long, env = "INFINITYSTORE_BENCH_TIMEOUT", default_value = "6s", value_parser = micros_above_zero, value_name = "TIME")]
    pub(super) timeout: u64,
    /// Threads of the load generator
    #[arg(long, env = "INFINITYSTORE_BENCH_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "COUNT")]
    pub(super) threads: u16,
    /// A token to show [default: none]
    #[arg(long, env = "INFINITYSTORE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// How the result is printed, to standard output
    #[arg(long, env = "INFINITYSTORE_BENCH_FORMAT", default_value = "text", value_enum)]
    pub(super) format: ReportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReadLevel {
    /// As if there were one copy
    Linearizable,
    /// Whatever the node asked has applied
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// A table
    Text,
    /// One JSON object
    Json,
}

/// An error, whose usage does not name as given what the environment says.
fn with_its_own_usage(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let mut deaf = without_variables(Cli::command(), &|_| true);
    if let Err(other) = deaf.try_get_matches_from_mut(arguments)
        && other.kind() == error.kind()
        && let Some(usage) = other.get(ContextKind::Usage)
    {
        error.insert(ContextKind::Usage, usage.clone());
    }
    error
}

/// The original took its flags with one dash too (`-node-id=node1`): these three get their second
/// one.
pub(super) fn with_double_dashes(args: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    args.map(|arg| {
        let original = arg.to_str().is_some_and(|text| {
            let name = text.split_once('=').map_or(text, |(name, _)| name);
            ["-node-id", "-raft-addr", "-http-addr"].contains(&name)
        });
        if !original {
            return arg;
        }
        let mut dashed = OsString::from("-");
        dashed.push(&arg);
        dashed
    })
}
