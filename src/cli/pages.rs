//! What is made of the arguments' own descriptions: completions for shells, and manual pages.

use crate::cli::args::Cli;
use crate::cli::exit::{ExitStatus, Failure};
use clap::CommandFactory;
use clap_complete::Shell;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Prints what makes a shell complete the command line.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "infinitystore", &mut text);
    print(&text)
}

/// Prints the manual page, or writes a page for each command into a folder.
pub(super) fn manual(dir: Option<&Path>) -> Result<(), Failure> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text).expect("a Vec takes everything");
        return print(&text);
    };
    let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| Failure::new(ExitStatus::Failure, format!("{}: {error}", dir.display())))
}

fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}
