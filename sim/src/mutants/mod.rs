//! `sim mutants`: plants one bug after the other in the product, and looks how long the simulator
//! takes to find it.
//!
//! Each bug is a patch, `sim/mutants/NAME.patch`; the product knows nothing of them. The simulator
//! copies the sources into its target folder, with the bodies of all patches in them (`combine`),
//! builds itself there with the cfg `mutants`, and hands over.

#[cfg(not(mutants))]
mod combine;
#[cfg(not(mutants))]
mod copy;
#[cfg(mutants)]
mod hunt;
#[cfg(mutants)]
mod known;
#[cfg(not(mutants))]
mod patch;
#[cfg(not(mutants))]
mod refresh;
#[cfg(mutants)]
mod table;
#[cfg(all(test, not(mutants)))]
mod tests;

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

/// Path from the top of the repository, with `/`, to text.
#[cfg(not(mutants))]
type Sources = std::collections::BTreeMap<String, String>;

/// Does what the options say. Whether it succeeded.
///
/// # Errors
/// A patch that does not apply, or why the simulator could not be built or run.
#[cfg(not(mutants))]
pub fn run(options: &Options) -> Result<bool, String> {
    let repository = copy::Repository::open()?;
    let joined = |faults: Vec<String>| faults.join("\n");
    if options.refresh {
        for name in repository.refresh().map_err(joined)? {
            println!("sim/mutants/{name}.patch is written anew");
        }
        return Ok(true);
    }
    if options.check {
        let files = repository.combined().map_err(joined)?.len();
        println!("{} patches apply, to {files} files", repository.count());
        return Ok(true);
    }
    eprintln!("building the simulator with {} bugs in it", repository.count());
    let simulator = repository.build()?;
    if options.build {
        println!("{}", simulator.display());
        return Ok(true);
    }
    let status = std::process::Command::new(&simulator).args(std::env::args_os().skip(1)).status();
    status.map(|status| status.success()).map_err(|error| format!("{}: {error}", simulator.display()))
}

/// Hunts for the bugs. Whether all were found.
///
/// # Errors
/// A name that no bug has, or a file that cannot be read or written.
#[cfg(mutants)]
pub fn run(options: &Options) -> Result<bool, String> {
    table::run(options)
}
