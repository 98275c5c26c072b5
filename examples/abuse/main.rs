//! What a well-behaved client notices while somebody abuses a node: its times with and without, and
//! what memory the node takes.
//!
//!     cargo build --release
//!     cargo run --release --example abuse -- --binary target/release/infinitystore --seconds 60
//!
//! Names of kinds behind that run those alone. Each kind gets nodes of its own, on this machine.
//! The abuse comes from 127.0.0.2, out of a process that runs when no other wants to (`chrt
//! --idle`): what is measured is the node, and not how they share the machine. "CPU" is the share
//! of a core that the abused node used.

mod attacks;
mod client;

use attacks::Kind;
use client::{Client, Times};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The user that may do everything, and its password.
pub(crate) const ROOT: (&str, &str) = ("root", "right");

struct Settings {
    binary: PathBuf,
    time: Duration,
    kinds: Vec<Kind>,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, kind, port, seconds] = &args[..]
        && first == "attack"
    {
        let kind = Kind::parse(kind)?;
        return attacks::run(kind, port.parse()?, Duration::from_secs(seconds.parse()?));
    }
    let settings = settings(&args)?;
    println!(
        "{:<16} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>5} {:>7} {:>9} {:>9}",
        "kind",
        "p50",
        "p99",
        "p50 beside",
        "p99 beside",
        "p50 abused",
        "p99 abused",
        "CPU",
        "failed",
        "RSS",
        "peak"
    );
    for kind in &settings.kinds {
        run(&settings, *kind)?;
    }
    Ok(())
}

fn settings(args: &[String]) -> Result<Settings> {
    let mut settings = Settings {
        binary: PathBuf::from("target/debug/infinitystore"),
        time: Duration::from_secs(60),
        kinds: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--binary" => settings.binary = value()?.into(),
            "--seconds" => settings.time = Duration::from_secs(value()?.parse()?),
            kind => settings.kinds.push(Kind::parse(kind)?),
        }
    }
    if settings.kinds.is_empty() {
        settings.kinds = Kind::ALL.to_vec();
    }
    Ok(settings)
}

/// One kind of abuse. The client is timed three times: in peace, while another node is abused, and
/// while its own is. What differs between the last two is the node's fault.
fn run(settings: &Settings, kind: Kind) -> Result<()> {
    let (dir, dir_beside) = (Scratch::new(kind, "")?, Scratch::new(kind, "-beside")?);
    let mut node = Node::start(&settings.binary, &dir.0, kind)?;
    let client = Client::new(node.port, node.authority.as_deref(), kind)?;
    client.prepare()?;
    let calm = client.run(settings.time)?;
    let beside = {
        let mut other = Node::start(&settings.binary, &dir_beside.0, kind)?;
        Client::new(other.port, other.authority.as_deref(), kind)?.prepare()?;
        run_abused(settings, kind, &client, &mut other)?
    };
    let rss_before = node.memory("VmRSS")?;
    let ticks = node.processor_ticks()?;
    let abused = run_abused(settings, kind, &client, &mut node)?;
    let share = (node.processor_ticks()? - ticks) / settings.time.as_secs().max(1);
    let millis = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    let mib = |kib: u64| format!("{} MiB", kib / 1024);
    println!(
        "{:<16} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>4}% {:>7} {:>9} {:>9}",
        kind.name(),
        millis(calm.p50),
        millis(calm.p99),
        millis(beside.p50),
        millis(beside.p99),
        millis(abused.p50),
        millis(abused.p99),
        share,
        abused.failed,
        mib(rss_before),
        mib(node.memory("VmHWM")?),
    );
    Ok(())
}

/// The client's times while `node` is abused.
fn run_abused(settings: &Settings, kind: Kind, client: &Client, node: &mut Node) -> Result<Times> {
    let mut attacker = Command::new("chrt")
        .args(["--idle", "0"])
        .arg(std::env::current_exe()?)
        .args(["attack", kind.name(), &node.port.to_string()])
        .arg((settings.time.as_secs() + 1).to_string())
        .spawn()?;
    // It takes a moment until all of it is there.
    std::thread::sleep(Duration::from_millis(500));
    let times = client.run(settings.time);
    let _ = attacker.kill();
    attacker.wait()?;
    if let Some(status) = node.child.try_wait()? {
        return Err(format!("the node ended with {status} under {}", kind.name()).into());
    }
    times
}

/// A folder that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(kind: Kind, which: &str) -> Result<Self> {
        let name = format!("abuse-{}-{}{which}", std::process::id(), kind.name());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node, which ends with this.
struct Node {
    child: Child,
    port: u16,
    /// The certificate of the authority, where it speaks TLS.
    authority: Option<PathBuf>,
}

impl Node {
    fn start(binary: &Path, dir: &Path, kind: Kind) -> Result<Self> {
        let binary = std::fs::canonicalize(binary)?;
        let mut command = Command::new(&binary);
        command.current_dir(dir).args(["--raft-addr", "localhost:0", "--http-addr", "127.0.0.1:0"]);
        command.args(["--advertise-raft-addr", "localhost:1"]);
        let authority = kind.wants_tls().then(|| dir.join("certs/ca.pem"));
        if authority.is_some() {
            let mut create = Command::new(&binary);
            create.current_dir(dir).args(["tls", "create", "--dir", "certs", "--nodes", "node1=localhost"]);
            if !create.stdout(Stdio::null()).status()?.success() {
                return Err("no certificates".into());
            }
            command.args(["--tls-cert", "certs/node1.pem", "--tls-key", "certs/node1.key"]);
        }
        let log = std::fs::File::create(dir.join("log"))?;
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let said = child.stdout.take().ok_or("it has a pipe")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        // "node1 serves on http://127.0.0.1:40123, peers on …"
        let port = line.split_once(", peers").and_then(|(start, _)| start.rsplit_once(':')?.1.parse().ok());
        let port = port.ok_or_else(|| format!("it does not serve: {line}"))?;
        let node = Self { child, port, authority };
        Ok(node)
    }

    /// The processor time that it took, in hundredths of a second.
    fn processor_ticks(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(')').ok_or("no such line")?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number).ok_or("no such field");
        Ok(field(11)?.parse::<u64>()? + field(12)?.parse::<u64>()?)
    }

    /// A line of `/proc/PID/status`, KiB.
    fn memory(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        Ok(line.trim_matches([':', ' ', '\t', 'k', 'B']).parse()?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for `ask` to succeed.
pub(crate) fn eventually(mut ask: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(error) if begun.elapsed() > Duration::from_secs(20) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
            Ok(()) => return Ok(()),
        }
    }
}
