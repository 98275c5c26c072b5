//! Which of the library's own tests finds a planted bug: for those that no run of the simulator
//! shows.

use super::copy::{PLANTED, Repository};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A run of tests that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A test has to find a bug this many times in a row.
const SURE_RUNS: usize = 3;

/// So many tests that fail now and then are passed over.
const UNSURE_MAX: usize = 5;

/// What became of a run of tests.
#[derive(Debug, PartialEq, Eq)]
enum Run {
    Passed,
    /// The first test that failed, or that had not ended when all others had.
    Failed(String),
    /// It said nothing any more, or ended without a word of its tests.
    Hung,
}

/// Hunts for these bugs with the library's tests, prints what finds each, and notes it in the file.
/// Whether all were found.
///
/// # Errors
/// A name that no bug has, a build that fails, tests that fail without a bug, or a file that cannot
/// be read or written.
pub(super) fn hunt(repository: &Repository, names: &[String], file: &Path) -> Result<bool, String> {
    let numbers: BTreeMap<&str, usize> =
        repository.names().enumerate().map(|(index, name)| (name, index + 1)).collect();
    let unknown = names.iter().find(|name| !numbers.contains_key(name.as_str()));
    if let Some(name) = unknown {
        return Err(format!("no bug is called {name:?}"));
    }
    eprintln!("building the library's tests with {} bugs in them", repository.count());
    let tests = repository.build_tests()?;
    // A test that wants what the copy has not, or that fails anyway, finds nothing.
    let mut useless = Vec::new();
    loop {
        match run(&tests, 0, &useless, None)? {
            Run::Passed => break,
            Run::Failed(test) if useless.len() < 20 => {
                println!("{test} fails without a bug, and is left out");
                useless.push(test);
            }
            other => return Err(format!("the tests without a bug: {other:?}")),
        }
    }
    let mut found = read(file)?;
    let mut missed = 0;
    for name in names {
        let number = numbers[name.as_str()];
        let begun = Instant::now();
        let by = match found.get(name) {
            // What found it last time is tried first.
            Some(test) if is_sure(&tests, number, test)? => Some(test.clone()),
            _ => find(&tests, number, &useless)?,
        };
        let seconds = begun.elapsed().as_secs();
        match by {
            Some(test) => {
                println!("{name}: {test} ({seconds} s)");
                found.insert(name.clone(), test);
            }
            None => {
                println!("{name}: missed ({seconds} s)");
                found.remove(name);
                missed += 1;
            }
        }
        write(file, &found)?;
    }
    println!("{} of {} found by tests", names.len() - missed, names.len());
    Ok(missed == 0)
}

/// The first test that is sure to find a bug. One that fails now and then is passed over.
fn find(tests: &(PathBuf, PathBuf), number: usize, useless: &[String]) -> Result<Option<String>, String> {
    let mut passed_over = useless.to_vec();
    for _ in 0..UNSURE_MAX {
        match run(tests, number, &passed_over, None)? {
            Run::Failed(test) if is_sure(tests, number, &test)? => return Ok(Some(test)),
            Run::Failed(test) => passed_over.push(test),
            Run::Passed | Run::Hung => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether a test fails each time with a bug, and never without it.
fn is_sure(tests: &(PathBuf, PathBuf), number: usize, test: &str) -> Result<bool, String> {
    for _ in 0..SURE_RUNS {
        let with = run(tests, number, &[], Some(test))?;
        if with == Run::Passed || run(tests, 0, &[], Some(test))? != Run::Passed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs the tests, or one of them, with a bug planted (0: none), to the first that fails.
fn run(
    tests: &(PathBuf, PathBuf),
    number: usize,
    useless: &[String],
    one: Option<&str>,
) -> Result<Run, String> {
    let (program, copy) = tests;
    let mut command = Command::new(program);
    match one {
        Some(test) => command.args(["--exact", test]),
        None => command.args(useless.iter().flat_map(|test| ["--skip", test])),
    };
    let child = command
        .current_dir(copy)
        .env(PLANTED, number.to_string())
        .env("CARGO_MANIFEST_DIR", copy)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| format!("{}: {error}", program.display()))?;
    let (lines, said) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
    }
    let outcome = watch(&said);
    end(&mut child);
    Ok(outcome)
}

fn watch(said: &Receiver<String>) -> Run {
    let mut slow = None;
    loop {
        match said.recv_timeout(SILENCE_MAX) {
            Ok(line) => {
                if line.starts_with("test result: ok") {
                    return Run::Passed;
                }
                let failed = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"));
                if let Some(test) = failed {
                    // Those that should panic have a word behind their names.
                    return Run::Failed(test.split(' ').next().unwrap_or(test).to_owned());
                }
                let waits = line.strip_prefix("test ").and_then(|line| line.split_once(" has been running"));
                slow = waits.map(|(test, _)| test.to_owned()).or(slow);
            }
            Err(RecvTimeoutError::Timeout) => return slow.map_or(Run::Hung, Run::Failed),
            Err(RecvTimeoutError::Disconnected) => return Run::Hung,
        }
    }
}

fn end(child: &mut Child) {
    // One that has ended cannot be ended again.
    let _ended = child.kill();
    let _reaped = child.wait();
}

/// Reads the file: lines `name test`. A line that begins with `#` is a comment; no file, no lines.
///
/// # Errors
/// It cannot be read, or a line is not two words.
pub(super) fn read(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| match line.split_once(' ') {
            Some((name, test)) => Ok((name.to_owned(), test.to_owned())),
            None => Err(format!("{}: {line:?} is not a bug and a test", file.display())),
        })
        .collect()
}

fn write(file: &Path, found: &BTreeMap<String, String>) -> Result<(), String> {
    let mut text =
        "# Bug, and the test of the library that finds it. Made by: sim mutants --tests\n".to_owned();
    for (name, test) in found {
        text.push_str(&format!("{name} {test}\n"));
    }
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
