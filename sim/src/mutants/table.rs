//! All bugs, one after the other, as lines of a table.

use crate::mutants::hunt::{Alarms, Bug, FIGURES, Found, Usual, compare, hunt, try_seed};
use crate::mutants::known::{self, By, KnownSeeds};
use crate::mutants::options::Options;
use crate::run::engine::Engine;
use infinitystore::mutants::ALL;
use std::time::Instant;

/// Looks for each bug, and prints which check found it after how many seeds. Whether all were
/// found.
///
/// # Errors
/// A name that no bug has, or a file that cannot be read or written.
pub(super) fn run(options: &Options) -> Result<bool, String> {
    let bugs = chosen(&options.only)?;
    // A planted bug often ends in an assertion of the product; its message is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let mut known = options.known.as_deref().map(known::read).transpose()?.unwrap_or_default();
    let (mut alarms, mut usual) = (Alarms::new(), Usual::default());
    let (mut found_count, mut missed_count) = (0, 0);
    for &bug in &bugs {
        let started = Instant::now();
        let (name, what) = (bug.mutant().name, bug.mutant().what);
        if known.get(name) == Some(&None) && !options.update_known {
            missed_count += 1;
            println!("{name:<28} missed so far: {what}");
            continue;
        }
        let found = look_for(bug, options, &known, &mut alarms, &mut usual);
        let seconds = started.elapsed().as_secs_f64();
        if let Some(found) = &found {
            found_count += 1;
            let by = if found.violation.check == FIGURES { By::Figures } else { By::Seed(found.seeds - 1) };
            known.insert(name.to_owned(), Some((found.engine, by)));
        } else {
            known.insert(name.to_owned(), None);
        }
        match (found, options.markdown) {
            (Some(found), false) => println!(
                "{name:<28} {:<6} {:>5} seeds {seconds:>6.1} s  {} ({})",
                found.engine,
                found.seeds,
                found.violation.check,
                shortened(&found.violation.what)
            ),
            (Some(found), true) => {
                let Found { engine, seeds, violation, .. } = found;
                println!("| {what} | `{name}` | {engine} | {seeds} | {} |", violation.check);
            }
            (None, _) => println!("{name:<28} NOT FOUND, {seconds:.1} s: {what}"),
        }
    }
    if let Some(path) = options.known.as_deref().filter(|_| options.update_known) {
        known::write(path, &known)?;
    }
    for ((engine, seed), check) in &alarms {
        println!("{engine} seed {seed} violates {check:?} without any bug: passed over, to be mended");
    }
    println!("{found_count} of {} mutants found, {missed_count} missed before", bugs.len());
    Ok(found_count + missed_count == bugs.len())
}

/// Tries the seed that is known to find a bug, then hunts for it in one engine after the other.
fn look_for(
    bug: Bug,
    options: &Options,
    known: &KnownSeeds,
    alarms: &mut Alarms,
    usual: &mut Usual,
) -> Option<Found> {
    let by = known.get(bug.mutant().name).copied().flatten();
    let by_known = by.and_then(|(engine, by)| match by {
        By::Seed(seed) => try_seed(engine, bug, seed),
        By::Figures => compare(engine, bug, usual),
    });
    by_known.or_else(|| {
        bug.engines().iter().find_map(|&engine| {
            let seeds = match engine {
                Engine::Queue => options.seeds,
                Engine::Madsim => options.madsim_seeds,
            };
            hunt(engine, bug, seeds, alarms, usual)
        })
    })
}

fn chosen(only: &[String]) -> Result<Vec<Bug>, String> {
    let named = |name: &String| {
        ALL.iter().position(|mutant| mutant.name == name).map(Bug).ok_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|mutant| mutant.name).collect();
            format!("no mutant is called {name:?}; there are {}", names.join(", "))
        })
    };
    if only.is_empty() { Ok((0..ALL.len()).map(Bug).collect()) } else { only.iter().map(named).collect() }
}

fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(110).collect();
    if line.len() < text.len() { format!("{line}…") } else { line }
}
