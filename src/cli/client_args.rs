//! What the commands take that ask a cluster.

use crate::cli::exit::{backup_exit_codes, client_exit_codes, examples};
use crate::cli::tls_args::ClientTlsArgs;
use crate::cli::units::{bytes, duration, duration_above_zero};
use crate::client::Endpoint;
use crate::kv::LEASE_ID_CHOSEN_MIN;
use clap::{Args, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Whom to ask.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ConnectArgs {
    /// HTTP addresses of the nodes. When one is down, the next is asked
    #[arg(
        long,
        env = "INFINITYSTORE_ENDPOINTS",
        default_value = "localhost:8001",
        value_delimiter = ',',
        value_name = "HOST:PORT,…",
        global = true
    )]
    pub(super) endpoints: Vec<Endpoint>,
    /// A node that has not answered after this time is given up, and the next is asked
    #[arg(long, env = "INFINITYSTORE_TIMEOUT", default_value = "10s", value_parser = duration_above_zero, value_name = "TIME", global = true)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) tls: ClientTlsArgs,
    /// A token to show [default: none]
    #[arg(long, env = "INFINITYSTORE_TOKEN", hide_env_values = true, value_name = "TOKEN", global = true)]
    pub(super) token: Option<String>,
    /// The user to be, whose password is asked for [default: none]
    #[arg(long, env = "INFINITYSTORE_USER", value_name = "NAME", global = true, conflicts_with = "token")]
    pub(super) user: Option<String>,
    /// Read that password from a file [default: it is asked for, without an echo]
    #[arg(long, env = "INFINITYSTORE_PASSWORD_FILE", value_name = "FILE", global = true, requires = "user")]
    pub(super) password_file: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Debug, Args)]
pub(super) struct OutputArgs {
    /// How results are printed [default: what the command's help says]
    #[arg(short, long, env = "INFINITYSTORE_OUTPUT", value_enum, value_name = "FORMAT", global = true)]
    pub(super) output: Option<OutputFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people: lines and columns; what cannot be printed is escaped
    Table,
    /// For programs: a JSON object a line. Bytes that are not UTF-8 stand in base64, under `key64`
    /// and `value64`
    Json,
    /// The bare result, as it is: the bytes of a value, a key a line, an id, a number
    Raw,
}

#[derive(Debug, Args)]
pub(super) struct KvArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: KvCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    /// Print a key's value
    ///
    /// To a pipe or a file the value goes as it is, to the byte. A terminal gets a newline behind
    /// it, and no value that is no text: say `-o raw` for that, or `-o json`.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore kv get greeting",
        "infinitystore kv get photo > photo.jpg",
        "infinitystore kv get greeting --at 17          # as it was at revision 17",
        "infinitystore kv get greeting --level local    # as this node has it, without asking the others"
    ))]
    Get(GetArgs),
    /// Set a key to a value
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore kv put greeting 'hello, world'",
        "infinitystore kv put photo @photo.jpg               # a file",
        "date | infinitystore kv put now -                   # standard input, to the byte",
        "infinitystore kv put leader me --if-missing         # only if nobody has set it",
        "infinitystore kv put greeting hi --if-revision 17   # only if nobody has changed it since",
        "infinitystore kv put session x --ttl 30s            # it ends by itself"
    ))]
    Put(PutArgs),
    /// Delete a key, or all keys of a range
    ///
    /// A single key that does not exist is exit code 3; a range without keys is not.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore kv del greeting",
        "infinitystore kv del greeting --if-revision 17",
        "infinitystore kv del --prefix sessions/"
    ))]
    Del(DelArgs),
    /// List keys, in their order
    ///
    /// All of what is listed is as of one revision, however much is written meanwhile. Prints a key
    /// a line, or with `-o table` and `-o json` also values and versions.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore kv ls",
        "infinitystore kv ls users/ -o table",
        "infinitystore kv ls users/ --count",
        "infinitystore kv ls --delimiter /              # like folders",
        "infinitystore kv ls --start a --end n --limit 100"
    ))]
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Print changes as they happen
    ///
    /// Goes on, without a gap, when a node is lost and another one is there. Prints a line for each
    /// change, or with `-o json` an object for each revision.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore kv watch greeting",
        "infinitystore kv watch --prefix users/ -o json",
        "infinitystore kv watch --prefix users/ --from 17   # everything since revision 17",
        "infinitystore kv watch greeting --count 1          # wait for the next change"
    ))]
    Watch(WatchArgs),
    /// Print the versions that a key had, as far back as the cluster remembers
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore kv history greeting",
        "infinitystore kv history greeting --limit 1 -o json"
    ))]
    History(HistoryArgs),
    /// Compare, and do one thing or the other, in one revision
    ///
    /// Takes the JSON of `POST /v1/txn`, and prints its answer. If the comparisons do not hold,
    /// what stands under `else` is done, and the exit code is 4.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        r#"infinitystore kv txn '{"if":[{"key":"a","mod_revision":17}],"then":[{"put":{"key":"a","value":"x"}}],"else":[{"get":{"key":"a"}}]}'"#,
        "infinitystore kv txn @transfer.json"
    ))]
    Txn(TxnArgs),
    /// Add to a key whose value is a decimal number; one that does not exist counts as 0
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore kv incr visits",
        "infinitystore kv incr stock --by -3"
    ))]
    Incr(IncrArgs),
    /// Forget what was before a revision
    ///
    /// The cluster does this by itself when past versions take more than `history_bytes`. A read at
    /// REVISION still succeeds afterwards; one before it does not.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes: "infinitystore kv compact 17"))]
    Compact {
        /// The oldest revision that is kept
        #[arg(value_name = "REVISION")]
        revision: u64,
    },
}

/// One key.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// The key
    #[arg(value_name = "KEY")]
    pub(super) key: OsString,
    /// KEY is base64: for bytes that cannot be typed
    #[arg(long)]
    pub(super) base64: bool,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// As it was at this revision of the store [default: now]
    #[arg(long, value_name = "REVISION")]
    pub(super) at: Option<u64>,
    #[command(flatten)]
    pub(super) level: LevelArgs,
}

/// How fresh a read is.
#[derive(Debug, Args)]
pub(super) struct LevelArgs {
    /// How fresh the answer is
    #[arg(long, value_enum, default_value = "linearizable", value_name = "LEVEL")]
    pub(super) level: LevelName,
    /// A local read, but only of a node that heard from a leader within this time [default: none]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(super) max_staleness: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LevelName {
    /// As if there were one copy
    Linearizable,
    /// Whatever the node asked has applied
    Local,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// The value: as it is, `-` for standard input, `@FILE` for a file
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub(super) value: OsString,
    /// End the key with this lease [default: none]
    #[arg(long, value_name = "ID", conflicts_with = "ttl")]
    pub(super) lease: Option<u64>,
    /// End the key after this time, with a lease of its own [default: none]
    #[arg(long, value_parser = duration_above_zero, value_name = "TIME")]
    pub(super) ttl: Option<Duration>,
    #[command(flatten)]
    pub(super) condition: ConditionArgs,
}

/// What must hold of the key.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ConditionArgs {
    /// Only if the key was last set by this revision [default: whatever it is]
    #[arg(long, value_name = "REVISION")]
    pub(super) if_revision: Option<u64>,
    /// Only if the key exists
    #[arg(long)]
    pub(super) if_exists: bool,
    /// Only if the key does not exist
    #[arg(long)]
    pub(super) if_missing: bool,
}

#[derive(Debug, Args)]
pub(super) struct DelArgs {
    /// The key
    #[arg(value_name = "KEY", required_unless_present_any = ["prefix", "start", "end", "all"], conflicts_with_all = ["prefix", "start", "end", "all"])]
    pub(super) key: Option<OsString>,
    #[command(flatten)]
    pub(super) range: RangeArgs,
    /// All keys there are
    #[arg(long, conflicts_with_all = ["prefix", "start", "end"])]
    pub(super) all: bool,
    /// Only if the key was last set by this revision [default: whatever it is]
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["prefix", "start", "end", "all"])]
    pub(super) if_revision: Option<u64>,
}

/// A range.
#[derive(Debug, Args)]
pub(super) struct RangeArgs {
    /// Keys that begin with this [default: none]
    #[arg(long, value_name = "KEY", conflicts_with_all = ["start", "end"])]
    pub(super) prefix: Option<OsString>,
    /// Keys from this one on [default: from the first]
    #[arg(long, value_name = "KEY")]
    pub(super) start: Option<OsString>,
    /// Keys below this one [default: to the last]
    #[arg(long, value_name = "KEY")]
    pub(super) end: Option<OsString>,
    /// Keys are written in base64: for bytes that cannot be typed
    #[arg(long)]
    pub(super) base64: bool,
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Keys that begin with this [default: all keys]
    #[arg(value_name = "PREFIX", conflicts_with_all = ["prefix", "start", "end"])]
    pub(super) beginning: Option<OsString>,
    #[command(flatten)]
    pub(super) range: RangeArgs,
    /// How many keys at most [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Print how many keys there are, and nothing else
    #[arg(long, conflicts_with_all = ["keys_only", "delimiter", "limit"])]
    pub(super) count: bool,
    /// Without the values
    #[arg(long)]
    pub(super) keys_only: bool,
    /// Gather keys that go on with this behind the prefix, and print what they have in common
    /// [default: none]
    #[arg(long, value_name = "TEXT")]
    pub(super) delimiter: Option<OsString>,
    /// As of this revision of the store [default: now]
    #[arg(long, value_name = "REVISION")]
    pub(super) at: Option<u64>,
    #[command(flatten)]
    pub(super) level: LevelArgs,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The key [default: all keys]
    #[arg(value_name = "KEY", conflicts_with_all = ["prefix", "start", "end"])]
    pub(super) key: Option<OsString>,
    #[command(flatten)]
    pub(super) range: RangeArgs,
    /// Begin with this revision [default: what happens from now on]
    #[arg(long, value_name = "REVISION")]
    pub(super) from: Option<u64>,
    /// End after so many changes [default: never]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Without deletions
    #[arg(long)]
    pub(super) puts_only: bool,
    /// Without puts
    #[arg(long, conflicts_with = "puts_only")]
    pub(super) deletes_only: bool,
    /// With the value that each change replaced, for `-o json`
    #[arg(long)]
    pub(super) previous: bool,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// The last so many versions [default: all]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct TxnArgs {
    /// The transaction: JSON, `-` for standard input, `@FILE` for a file
    #[arg(value_name = "TRANSACTION", default_value = "-", allow_hyphen_values = true)]
    pub(super) transaction: OsString,
}

#[derive(Debug, Args)]
pub(super) struct IncrArgs {
    #[command(flatten)]
    pub(super) key: KeyArgs,
    /// What is added
    #[arg(long, value_name = "NUMBER", default_value_t = 1, allow_negative_numbers = true)]
    pub(super) by: i64,
}

#[derive(Debug, Args)]
pub(super) struct LeaseArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum LeaseCommand {
    /// Make a lease: keys that are put with it end when nobody has renewed it for its time
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore lease grant 30s",
        "infinitystore lease grant 30s -o raw    # its id alone, for scripts"
    ))]
    Grant {
        /// How long it lives without a renewal, in whole seconds; at least 2s
        #[arg(value_name = "TTL", value_parser = duration_above_zero)]
        ttl: Duration,
        /// Its id, 1000000000000000 at least [default: the cluster chooses a lower one]
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(LEASE_ID_CHOSEN_MIN..))]
        id: Option<u64>,
    },
    /// Renew a lease again and again, until it has ended or you stop this
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore lease keepalive 7",
        "infinitystore lease keepalive 7 --once"
    ))]
    Keepalive {
        /// The lease
        #[arg(value_name = "ID")]
        id: u64,
        /// Renew it once
        #[arg(long)]
        once: bool,
    },
    /// End a lease, and delete its keys
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes: "infinitystore lease revoke 7"))]
    Revoke {
        /// The lease
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// List the leases
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes: "infinitystore lease ls -o table"))]
    #[command(visible_alias = "list")]
    Ls,
    /// Print how much time a lease has, and its keys
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes: "infinitystore lease info 7"))]
    Info {
        /// The lease
        #[arg(value_name = "ID")]
        id: u64,
    },
}

#[derive(Debug, Args)]
pub(super) struct SettingsArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: SettingsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SettingsCommand {
    /// Print the limits that the cluster shares
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore settings get",
        "infinitystore settings get -o json"
    ))]
    Get,
    /// Change some of them; the others stay as they are
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore settings set --history-bytes 256MiB",
        "infinitystore settings set --quota-bytes 1GiB"
    ))]
    Set(SetSettingsArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct SetSettingsArgs {
    /// When past versions take more, the oldest revisions are compacted [default: as it is]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) history_bytes: Option<u64>,
    /// A write that would let keys, values and leases take more is refused [default: as it is]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) quota_bytes: Option<u64>,
    /// When remembered answers of idempotency keys take more, the oldest are forgotten
    /// [default: as it is]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) answers_bytes: Option<u64>,
}

/// How a lock is held, or an election.
#[derive(Clone, Debug, Args)]
pub(super) struct HoldArgs {
    /// Others get it when this process has not been heard of for this long; at least 2s
    #[arg(long, value_parser = duration_above_zero, default_value = "10s", value_name = "TIME")]
    pub(super) ttl: Duration,
    /// Wait for it this long at most [default: as long as it takes]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(super) wait: Option<Duration>,
    /// When it is lost, COMMAND gets SIGTERM, and after this time SIGKILL
    #[arg(long, value_parser = duration, default_value = "5s", value_name = "TIME")]
    pub(super) grace: Duration,
}

#[derive(Debug, Args)]
pub(super) struct LockArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// The lock's name: any text of at most 256 bytes
    #[arg(value_name = "NAME")]
    pub(super) name: OsString,
    #[command(flatten)]
    pub(super) hold: HoldArgs,
    /// What is run while the lock is held
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct ElectArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// The election's name: any text of at most 256 bytes
    #[arg(value_name = "NAME")]
    pub(super) name: OsString,
    /// What the others see of the leader: an address, say
    #[arg(value_name = "VALUE")]
    pub(super) value: OsString,
    #[command(flatten)]
    pub(super) hold: HoldArgs,
    /// What is run while this process leads [default: nothing; it leads until you stop it]
    #[arg(value_name = "COMMAND", last = true)]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    pub(super) command: BackupCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum BackupCommand {
    /// Save a backup of a running cluster
    ///
    /// It holds everything: keys, their history, leases, settings and remembered answers, as of one
    /// revision, with every write that was answered before. The node serves meanwhile. FILE appears
    /// when it is whole, and no file is overwritten.
    #[command(after_help = backup_exit_codes!(), after_long_help = examples!(backup_exit_codes:
        "infinitystore backup save monday.backup",
        "infinitystore backup save monday.backup --level local    # of a cluster that has lost its majority"
    ))]
    Save(SaveArgs),
    /// Read all of a backup, and check that it is what was saved
    #[command(after_help = backup_exit_codes!(), after_long_help = examples!(backup_exit_codes: "infinitystore backup verify monday.backup"))]
    Verify {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Say what is in a backup
    #[command(after_help = backup_exit_codes!(), after_long_help = examples!(backup_exit_codes:
        "infinitystore backup inspect monday.backup",
        "infinitystore backup inspect monday.backup -o json"
    ))]
    Inspect {
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make a data directory of a backup: a new cluster of one node, which others may join
    ///
    /// Revisions go on where the backup ends, and leases get their whole time again. The directory
    /// must not exist, or be empty. The addresses may be others when the node starts.
    #[command(after_help = backup_exit_codes!(), after_long_help = examples!(backup_exit_codes:
        "infinitystore backup restore monday.backup --data-dir data/node1 --node-id node1"
    ))]
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// Where it goes
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) level: LevelArgs,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The data directory that is made
    #[arg(long, value_name = "DIR", default_value = "data/node1")]
    pub(super) data_dir: PathBuf,
    /// Name of the node
    #[arg(long, value_name = "NAME", default_value = "node1")]
    pub(super) node_id: String,
    /// Where other nodes will reach it
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8000")]
    pub(super) raft_addr: String,
    /// Where clients will reach it
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8001")]
    pub(super) http_addr: String,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// Keys that begin with this [default: all keys]
    #[arg(value_name = "PREFIX")]
    pub(super) prefix: Option<OsString>,
    /// As of this revision of the store [default: now]
    #[arg(long, value_name = "REVISION")]
    pub(super) at: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    /// What `export` has written
    #[arg(value_name = "FILE", default_value = "-")]
    pub(super) file: PathBuf,
    /// Import keys that had a lease, too; they get none, and stay
    #[arg(long)]
    pub(super) with_leased: bool,
}
