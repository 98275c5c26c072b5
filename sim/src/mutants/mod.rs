//! `sim mutants`: plants one bug after the other in the product, and looks how long the simulator takes to find it.
//!
//! Each bug is a patch, `sim/mutants/NAME.patch`; the product knows nothing of them. The simulator copies the sources into its
//! target folder, with the bodies of all patches in them (`combine`), builds itself there with the cfg `mutants`, and hands over.

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
#[derive(Clone, Debug)]
pub struct Options {
    /// Only looks whether all patches apply.
    pub check: bool,
    /// Only writes those patches anew whose surroundings have moved.
    pub refresh: bool,
    /// Only builds the simulator with the bugs in it.
    pub build: bool,
    /// Seeds of the queue engine for each bug, at most.
    pub seeds: u64,
    /// Seeds of the madsim engine for each bug that the queue engine does not find or does not run, at most.
    pub madsim_seeds: u64,
    /// A file that says which seed finds which bug: that one is tried first.
    pub known: Option<PathBuf>,
    /// Whether to write that file anew.
    pub update_known: bool,
    /// Names of the bugs; all if empty.
    pub only: Vec<String>,
    /// Whether to print the lines of the table in docs/simulation.md.
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
/// A name that is none, or a file that cannot be read or written.
#[cfg(mutants)]
pub fn run(options: &Options) -> Result<bool, String> {
    table::run(options)
}
