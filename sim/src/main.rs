//! The simulator's command line.

use clap::{Parser, Subcommand};
use sim::mutants;
use sim::report::{self, Subject};
use sim::run::campaign::{Campaign, Line, Shard, Summary};
use sim::run::engine::Engine;
use sim::run::minimise::{Budget, minimise};
use sim::run::vitals::{Vitals, recorded_seeds};
use sim::schedule::{SECOND, Schedule};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where pages are written.
const REPORTS: &str = "target/sim-reports";
/// Pages that a campaign writes, at most.
const REPORTS_MAX: usize = 5;

/// Runs InfinityStore through simulated faults. One seed decides everything.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and checks each; ends with a line of counts.
    Run {
        /// What drives the replicas.
        #[arg(long, value_enum, default_value_t)]
        engine: Engine,
        /// How many seeds.
        #[arg(long, default_value_t = 300)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Only every Nth seed, for array jobs: `I/N`, with I from 0 to N-1.
        #[arg(long, default_value = "0/1")]
        shard: Shard,
        /// Begins no seed after this many minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// Threads; 0: one for each core.
        #[arg(long, default_value_t = 0)]
        jobs: usize,
        /// Only seeds whose cluster begins with this number of voters.
        #[arg(long)]
        voters: Option<usize>,
        /// Writes the figures that later campaigns are compared with (`sim/vitals`).
        #[arg(long)]
        note_vitals: bool,
        /// Where the pages of the first failing seeds go.
        #[arg(long, default_value = REPORTS)]
        reports: PathBuf,
    },
    /// Runs one seed, or a schedule from a file, again; prints the hash of its trace.
    Replay {
        /// The seed, or the file.
        what: String,
        /// What drives the replicas.
        #[arg(long, value_enum, default_value_t)]
        engine: Engine,
        /// Prints every line of the trace.
        #[arg(long)]
        verbose: bool,
    },
    /// Runs one seed, or a schedule from a file, and writes what happened as an HTML page.
    Report {
        /// The seed, or the file.
        what: String,
        /// What drives the replicas.
        #[arg(long, value_enum, default_value_t)]
        engine: Engine,
        /// Where to write it; by default `target/sim-reports/<engine>-<seed>.html`.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Plants one bug after the other (sim/mutants/*.patch), and says which check finds it after
    /// how many seeds.
    Mutants(mutants::Options),
    /// Makes a failing schedule small, and writes it to a file.
    Minimise {
        /// The seed, or the file.
        what: String,
        /// What drives the replicas.
        #[arg(long, value_enum, default_value_t)]
        engine: Engine,
        /// Where to write it; by default `sim/regressions/<check>-<seed>.json`.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match carry_out(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Run { engine, seeds, from, shard, minutes, jobs, voters, note_vitals, reports } => {
            let limit = minutes.map(|minutes| Duration::from_secs(60 * minutes));
            let written = AtomicUsize::new(0);
            let summary = Campaign { engine, seeds, from, shard, limit, jobs, voters }
                .run(|line| tell(engine, &reports, &written, line));
            println!("{summary}");
            if note_vitals {
                return note(engine, &summary);
            }
            Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Replay { what, engine, verbose } => Ok(replay(engine, schedule(&what)?, verbose)),
        Command::Mutants(options) => {
            let all_found = mutants::run(&options)?;
            Ok(if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Report { what, engine, out } => write_report(engine, &what, out),
        Command::Minimise { what, engine, out } => minimise_to_file(engine, &schedule(&what)?, out),
    }
}

/// Puts the figures of a campaign on record.
fn note(engine: Engine, summary: &Summary) -> Result<ExitCode, String> {
    if !summary.vitals.is_complete(engine) || summary.violations > 0 {
        let last = recorded_seeds(engine) - 1;
        return Err(format!("figures are those of sound runs of all seeds from 0 to {last}"));
    }
    let path = Vitals::path(engine);
    std::fs::write(&path, summary.vitals.to_text())
        .map_err(|error| format!("{}: {error}", path.display()))?;
    println!("written: {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Prints the lines of a campaign; the first failing seeds get a page each.
fn tell(engine: Engine, reports: &Path, written: &AtomicUsize, line: Line) {
    match line {
        Line::Progress(line) => eprintln!("{line}"),
        Line::Violation { seed, line } => {
            println!("{line}");
            if written.fetch_add(1, Ordering::Relaxed) >= REPORTS_MAX {
                return;
            }
            let schedule = Schedule::generate(seed);
            let subject = Subject { engine, schedule: &schedule, name: seed.to_string() };
            let path = report::default_path(reports, engine, seed);
            match catch_unwind(AssertUnwindSafe(|| report::write(&subject, &path))) {
                Ok(Ok(_)) => println!("seed {seed}: report {}", path.display()),
                Ok(Err(error)) => println!("seed {seed}: no report: {}: {error}", path.display()),
                Err(_) => println!("seed {seed}: no report: the {engine} engine panicked with it"),
            }
        }
    }
}

fn write_report(engine: Engine, what: &str, out: Option<PathBuf>) -> Result<ExitCode, String> {
    let schedule = schedule(what)?;
    let path = out.unwrap_or_else(|| report::default_path(Path::new(REPORTS), engine, schedule.seed));
    let subject = Subject { engine, schedule: &schedule, name: what.to_owned() };
    let outcome = report::write(&subject, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    match outcome.violation {
        Some(violation) => println!("VIOLATION {} at {} µs", violation.check, outcome.at),
        None => println!("nothing was violated"),
    }
    println!("report {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// A seed's schedule, or a file's.
fn schedule(what: &str) -> Result<Schedule, String> {
    if let Ok(seed) = what.parse() {
        return Ok(Schedule::generate(seed));
    }
    let text =
        std::fs::read(what).map_err(|error| format!("{what} is neither a seed nor a file: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{what} is no schedule: {error}"))
}

fn replay(engine: Engine, schedule: Schedule, verbose: bool) -> ExitCode {
    if verbose {
        // What the nodes log, if RUST_LOG says so; their clocks are the simulation's.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let outcome = engine.run(schedule, verbose);
    for line in outcome.trace.into_lines() {
        let slot = line.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string());
        let (seconds, micros) = (line.at / SECOND, line.at % SECOND);
        println!("{seconds:>4}.{micros:06} {slot:>2} {:<8} {}", line.kind, line.text);
    }
    println!("operations {} answered, {} not", outcome.operations.0, outcome.operations.1);
    println!("trace {:016x}", outcome.trace_hash);
    match outcome.violation {
        Some(violation) => {
            println!("VIOLATION {} at {} µs: {}", violation.check, outcome.at, violation.what);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn minimise_to_file(engine: Engine, schedule: &Schedule, out: Option<PathBuf>) -> Result<ExitCode, String> {
    let Some(violation) = engine.run(schedule.clone(), false).violation else {
        return Err("that schedule violates nothing; there is nothing to make small".to_owned());
    };
    let (small, runs) =
        minimise(engine, schedule, Budget::default()).ok_or("the violation did not come again")?;
    let name = format!("{}-{}.json", violation.check.replace(' ', "-"), schedule.seed);
    let path = out.unwrap_or_else(|| Path::new("sim/regressions").join(name));
    let text = serde_json::to_string_pretty(&small).map_err(|error| error.to_string())?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    }
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    let operations = |schedule: &Schedule| schedule.clients.iter().map(Vec::len).sum::<usize>();
    println!(
        "{} faults and {} operations are left of {} and {}, after {runs} runs: {}",
        small.faults.len(),
        operations(&small),
        schedule.faults.len(),
        operations(schedule),
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}
