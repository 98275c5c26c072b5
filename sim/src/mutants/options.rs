//! The options of `sim mutants`.

use std::path::PathBuf;

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only says which patches do not apply to the sources any more.
    #[arg(long, conflicts_with_all = ["refresh", "build"])]
    pub check: bool,
    /// Only writes the patches anew whose surroundings have moved.
    #[arg(long, conflicts_with = "build")]
    pub refresh: bool,
    /// Only builds the simulator with the bugs in it, and prints where it is.
    #[arg(long)]
    pub build: bool,
    /// Hunts with the library's own tests instead: for the bugs that the simulator misses, and
    /// notes which test finds which (`sim/mutants.tests`).
    #[arg(long, conflicts_with_all = ["known", "check", "refresh", "build"])]
    pub tests: bool,
    /// Seeds of the queue engine for each, at most.
    #[arg(long, default_value_t = 10_000)]
    pub seeds: u64,
    /// Seeds of the madsim engine for each that the queue engine does not find or does not run, at
    /// most.
    #[arg(long, default_value_t = 1_000)]
    pub madsim_seeds: u64,
    /// A file that says which seed finds which bug. That seed is tried first.
    #[arg(long)]
    pub known: Option<PathBuf>,
    /// Writes that file anew.
    #[arg(long, requires = "known")]
    pub update_known: bool,
    /// Only these, by name.
    pub only: Vec<String>,
    /// As lines of a Markdown table.
    #[arg(long)]
    pub markdown: bool,
}
