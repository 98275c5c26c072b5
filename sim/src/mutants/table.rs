//! All bugs, one after the other, as lines of a table.

use crate::mutants::Options;
use crate::mutants::hunt::{Found, engine_for, hunt};
use infinitystore::mutants::Mutant;
use std::time::Instant;

/// Looks for each bug, and prints which check found it after how many seeds. Whether all were found.
///
/// # Errors
/// A name that is none, or a seed that violates a check without the bug too: finding it proves nothing.
pub fn run(options: &Options) -> Result<bool, String> {
    let mutants = chosen(&options.only)?;
    // A planted bug often ends in an assertion of the product; its message is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let mut found_count = 0;
    for &mutant in &mutants {
        let started = Instant::now();
        let (engine, name, what) = (engine_for(mutant), mutant.name(), mutant.what());
        let found = hunt(engine, mutant, options.seeds);
        let seconds = started.elapsed().as_secs_f64();
        if let Some(Found { seeds, unsound: Some(check), .. }) = found {
            let seed = seeds - 1;
            return Err(format!(
                "seed {seed} violates {check:?} without {name} too, in the {engine} engine: mend that first"
            ));
        }
        found_count += usize::from(found.is_some());
        match (found, options.markdown) {
            (Some(found), false) => println!(
                "{name:<28} {:>5} seeds {seconds:>6.1} s  {} ({})",
                found.seeds,
                found.violation.check,
                shortened(&found.violation.what)
            ),
            (Some(found), true) => {
                println!("| {what} | `{name}` | {engine} | {} | {} |", found.seeds, found.violation.check);
            }
            (None, _) => println!("{name:<28} NOT FOUND in {} seeds, {seconds:.1} s: {what}", options.seeds),
        }
    }
    println!("{found_count} of {} mutants found", mutants.len());
    Ok(found_count == mutants.len())
}

fn chosen(only: &[String]) -> Result<Vec<Mutant>, String> {
    let named = |name: &String| {
        let all = || Mutant::ALL.iter().copied();
        all().find(|mutant| mutant.name() == name).ok_or_else(|| {
            let names: Vec<&str> = all().map(Mutant::name).collect();
            format!("no mutant is called {name:?}; there are {}", names.join(", "))
        })
    };
    if only.is_empty() { Ok(Mutant::ALL.to_vec()) } else { only.iter().map(named).collect() }
}

fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(110).collect();
    if line.len() < text.len() { format!("{line}…") } else { line }
}
