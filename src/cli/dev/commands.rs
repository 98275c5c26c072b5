//! What can be typed while the cluster runs: `kill 2`, `stop 2`, `start 2`.

use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use std::io::{IsTerminal, stdin};
use tokio::sync::mpsc;

/// Lines that wait, at most: people type one at a time.
const LINES_MAX: usize = 16;

/// What is to be done to a node, by its place in the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum NodeCommand {
    /// Start it again.
    Start(usize),
    /// Ask it to stop.
    Stop(usize),
    /// Kill it, as `kill -9` does.
    Kill(usize),
}

/// The lines of standard input, from now to its end. None come where reading would suspend the
/// whole program: it is in the background of its terminal.
pub(super) fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    let in_background = stdin().is_terminal() && tcgetpgrp(stdin()).is_ok_and(|group| group != getpgrp());
    if !in_background {
        // A thread, since reading blocks; it ends with the process.
        std::thread::spawn(move || {
            for line in stdin().lines() {
                let Ok(line) = line else { return };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Reads a line. Nodes are called by name (`node-2`) or by number (`2`). `None` for an empty line.
///
/// # Errors
/// What can be typed.
pub(in crate::cli) fn parse(line: &str, names: &[&str]) -> Option<Result<NodeCommand, String>> {
    let mut words = line.split_whitespace();
    let verb = words.next()?;
    let help = || Err(format!("type start, stop or kill and a node, as in: kill {}", names.len()));
    let (Some(name), None) = (words.next(), words.next()) else { return Some(help()) };
    let number = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let found = names.iter().position(|known| *known == name).or(number.filter(|place| *place < names.len()));
    let Some(place) = found else {
        return Some(Err(format!("there is no {name}; the nodes are {}", names.join(", "))));
    };
    Some(match verb {
        "start" => Ok(NodeCommand::Start(place)),
        "stop" => Ok(NodeCommand::Stop(place)),
        "kill" => Ok(NodeCommand::Kill(place)),
        _ => help(),
    })
}
