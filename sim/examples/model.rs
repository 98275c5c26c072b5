//! Explores every state of three cores within bounds:
//! `cargo run --release -p sim --example model -- --terms 2 --entries 1 --crashes 1`.

#[path = "../tests/model/mod.rs"]
mod model;

use clap::Parser;
use model::{Bounds, Cuts, Disk, Exhaustive};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Each state that waits to be looked at is an allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Explores every state of three real cores within bounds, and checks each.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bounds: Bounds,
    /// What the disks are like.
    #[arg(long, value_enum, default_value_t)]
    disk: Disk,
    /// Goes through the states in the order of their distance: shorter counterexamples, more
    /// memory.
    #[arg(long)]
    breadth_first: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Plants a bug in the cores, by its name in `sim mutants`. Only in the copy that
    /// `sim mutants --build` makes.
    #[arg(long)]
    mutant: Option<String>,
    /// Instead of checking properties, explores again with only these cuts of the network, and
    /// compares everything that properties speak of. Takes long, and much memory.
    #[arg(long, value_enum)]
    compare: Option<Cuts>,
    /// Stops after this many minutes, which is a failure.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

fn main() -> ExitCode {
    let Arguments { bounds, disk, breadth_first, threads, mutant, compare, minutes } = Arguments::parse();
    if let Some(name) = mutant
        && let Err(why) = plant(&name)
    {
        eprintln!("error: {why}");
        return ExitCode::from(2);
    }
    let model = Exhaustive::new(bounds, disk);
    if let Some(cuts) = compare {
        let (cut, states_cut) = model.essences();
        let (all, states) = Exhaustive::cutting(cuts, bounds, disk).essences();
        let (word, code) =
            if cut == all { ("holds", ExitCode::SUCCESS) } else { ("VIOLATED", ExitCode::FAILURE) };
        println!("{word:8} what is cut away makes no difference");
        println!("{bounds:?}: {states_cut} of {states} states, {} of {} essences", cut.len(), all.len());
        return code;
    }
    let builder = model.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let limit = Duration::from_secs(60 * minutes);
    if breadth_first {
        explore(model, builder.spawn_bfs(), limit)
    } else {
        explore(model, builder.spawn_dfs(), limit)
    }
}

#[cfg(mutants)]
fn plant(name: &str) -> Result<(), String> {
    use infinitystore::mutants::{ALL, plant};
    let index = ALL.iter().position(|mutant| mutant.name == name);
    let index = index.ok_or_else(|| format!("no mutant is called {name:?}; sim/mutants has them"))?;
    // A planted bug may end in an assertion of the core, which the model takes for a breach.
    std::panic::set_hook(Box::new(|_| {}));
    plant(index + 1);
    Ok(())
}

#[cfg(not(mutants))]
fn plant(_: &str) -> Result<(), String> {
    Err("this build has no mutants: make the copy with `sim mutants --build`, and run this example in \
         target/mutants/source"
        .to_owned())
}

fn explore(model: Exhaustive, checker: impl Checker<Exhaustive>, limit: Duration) -> ExitCode {
    let start = Instant::now();
    let mut told = 0;
    let counts = |checker: &_| {
        let (unique, all, depth) = counts_of(checker);
        let (seconds, memory) = (start.elapsed().as_secs_f64(), memory_mib());
        format!(
            "{unique} states, reached {all} times, depth {depth}, {seconds:.1} s, {memory} MiB, {} steps of a core",
            model.effects()
        )
    };
    let mut checker = checker;
    let handles = checker.handles();
    while !handles.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(50));
        let seconds = start.elapsed().as_secs();
        if seconds / 10 > told {
            told = seconds / 10;
            eprintln!("{}", counts(&checker));
        }
        if start.elapsed() >= limit {
            println!("INCOMPLETE {:?}: {}", model.bounds, counts(&checker));
            return ExitCode::FAILURE;
        }
    }
    for handle in handles {
        handle.join().expect("a panic of a core is a breach, not a panic of the model");
    }
    let end = counts(&checker);
    let mut passed = true;
    for property in model.properties() {
        let found = checker.discovery(property.name);
        let always = property.expectation == Expectation::Always;
        let word = match (always, found.is_some()) {
            (true, false) => "holds",
            (false, true) => "happens",
            (true, true) => "VIOLATED",
            // Out of reach of the bounds, perhaps.
            (false, false) => "NEVER",
        };
        passed &= !always || found.is_none();
        println!("{word:8} {}", property.name);
        for action in found.filter(|_| always).into_iter().flat_map(Path::into_actions) {
            println!("         {action:?}");
        }
    }
    println!("{:?}, {:?} disks: {end}", model.bounds, model.disk);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn counts_of(checker: &impl Checker<Exhaustive>) -> (usize, usize, usize) {
    (checker.unique_state_count(), checker.state_count(), checker.max_depth())
}

/// The most memory that this process ever had, where the system tells.
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
