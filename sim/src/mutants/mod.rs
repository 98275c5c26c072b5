//! `sim mutants`: plants one classic bug after the other, and looks how long the simulator takes to find it.
//!
//! The bugs are in the product behind its feature `mutants`. A simulator that was built without it builds itself with it, in a
//! target folder of its own, and hands over.

#[cfg(feature = "mutants")]
mod hunt;
#[cfg(feature = "mutants")]
mod known;
#[cfg(feature = "mutants")]
mod table;

#[cfg(feature = "mutants")]
pub use table::run;

use std::path::PathBuf;

/// What to look for.
#[derive(Clone, Debug)]
pub struct Options {
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

/// Builds the simulator with the feature, and runs it with the same arguments. Whether it succeeded.
///
/// # Errors
/// Why it could not be built or run.
#[cfg(not(feature = "mutants"))]
pub fn run(_: &Options) -> Result<bool, String> {
    use std::path::Path;
    use std::process::Command;

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let target = root.join("target").join("mutants");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building the simulator with the bugs in it, in {}", target.display());
    let status = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--profile",
            "mutants",
            "-p",
            "sim",
            "--features",
            "mutants",
            "--target-dir",
        ])
        .arg(&target)
        .arg("--")
        .args(std::env::args_os().skip(1))
        .current_dir(root)
        .status();
    status.map(|status| status.success()).map_err(|error| format!("cargo could not be run: {error}"))
}
