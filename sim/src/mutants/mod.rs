//! `sim mutants`: plants one bug after the other in the product, and looks how long the simulator
//! takes to find it.
//!
//! Each bug is a patch, `sim/mutants/NAME.patch`; the product knows nothing of them. The simulator
//! copies the sources into its target folder, with the bodies of all patches in them (`combine`),
//! builds itself there with the cfg `mutants`, and hands over.

#[cfg(not(mutants))]
mod by_tests;
#[cfg(not(mutants))]
mod combine;
#[cfg(not(mutants))]
mod copy;
#[cfg(mutants)]
mod hunt;
#[cfg(mutants)]
mod known;
mod options;
#[cfg(not(mutants))]
mod patch;
#[cfg(not(mutants))]
mod refresh;
#[cfg(not(mutants))]
mod sources;
#[cfg(mutants)]
mod table;
#[cfg(all(test, not(mutants)))]
mod tests;

pub use options::Options;

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
    if options.tests {
        let names = match &options.only[..] {
            [] => missed(&repository)?,
            only => only.to_owned(),
        };
        return by_tests::hunt(&repository, &names, &repository.path("sim/mutants.tests"));
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

/// The bugs that no seed finds.
#[cfg(not(mutants))]
fn missed(repository: &copy::Repository) -> Result<Vec<String>, String> {
    let path = repository.path("sim/mutants.seeds");
    let known = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(known.lines().filter_map(|line| line.strip_suffix(" missed")).map(str::to_owned).collect())
}

/// Hunts for the bugs. Whether all were found.
///
/// # Errors
/// A name that no bug has, or a file that cannot be read or written.
#[cfg(mutants)]
pub fn run(options: &Options) -> Result<bool, String> {
    if options.check || options.refresh || options.tests || options.build {
        return Err("this build has the bugs in it, and only hunts: ask the build without them".to_owned());
    }
    table::run(options)
}
