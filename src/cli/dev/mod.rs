//! `dev`: a cluster of real processes on this machine.
//!
//! Each node is this same program. It has a process group of its own, so that Ctrl-C reaches `dev`
//! alone, which then stops the nodes in order. Its standard input is a pipe. When `dev` is gone,
//! for any reason, the pipe ends, and the nodes stop.

mod child;
pub(super) mod commands;
mod layout;
mod text;

use crate::cli::args::DevArgs;
use crate::cli::ask::print::tell;
use crate::cli::dev::child::Child;
use crate::cli::dev::commands::NodeCommand;
use crate::cli::dev::layout::{Layout, NodePlace};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::{StopSignals, runtime};
use crate::client::{CallError, Client, ClientOptions, Readiness};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// For a node to be ready, and for a join.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// For one question to a node; a join may take its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For the nodes to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Starts the cluster, and stops it when told to.
pub(super) fn run(args: &DevArgs) -> Result<(), Failure> {
    runtime(1)?.block_on(cluster(args))
}

async fn cluster(args: &DevArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    let layout = Layout::prepare(args)?;
    for note in &layout.notes {
        tell(note);
    }
    let mut children = Vec::new();
    let result = tokio::select! {
        biased;
        signal = signals.next() => { tell(format_args!("\nstopping on {signal}")); Ok(()) }
        result = start_and_watch(&layout, args, &mut children) => result,
    };
    let stopped = tokio::select! {
        biased;
        stopped = stop(&mut children) => stopped,
        _ = signals.next() => {
            // Dropping a child kills it.
            children.clear();
            Err(Failure::new(ExitStatus::Interrupted, "killed the nodes on a second signal"))
        }
    };
    drop(children);
    if args.remove_data {
        layout.remove_created();
    } else {
        tell(format_args!(
            "the data stays in {}; the same command starts this cluster again",
            layout.dir.display()
        ));
    }
    result.and(stopped)
}

/// Brings the cluster up, then does what is typed, until no node runs any more and nothing can be
/// typed.
async fn start_and_watch(layout: &Layout, args: &DevArgs, children: &mut Vec<Child>) -> Result<(), Failure> {
    for place in &layout.places {
        children.push(Child::spawn(place, &args.log_level)?);
    }
    bring_up(layout, children).await?;
    tell(text::welcome(layout).trim_end());
    let mut lines = commands::lines();
    let names: Vec<&str> = layout.places.iter().map(|place| &*place.name).collect();
    let mut has_input = true;
    loop {
        tokio::select! {
            biased;
            line = lines.recv(), if has_input => match line.map(|line| commands::parse(&line, &names)) {
                None => has_input = false,
                Some(None) => {}
                Some(Some(Ok(command))) => obey(command, layout, &args.log_level, children),
                Some(Some(Err(help))) => tell(help),
            },
            report = child::first_exit(children), if !has_input || children.iter().any(Child::runs) => match report {
                Some(report) => tell(report),
                None => return Err(Failure::new(ExitStatus::Failure, "no node runs any more")),
            },
        }
    }
}

/// Does what was typed, and says what came of it.
fn obey(command: NodeCommand, layout: &Layout, log_level: &str, children: &mut [Child]) {
    let (NodeCommand::Start(place) | NodeCommand::Stop(place) | NodeCommand::Kill(place)) = command;
    let child = &mut children[place];
    match command {
        NodeCommand::Start(_) if child.runs() => tell(format_args!("{} runs", child.name())),
        NodeCommand::Start(_) => match Child::spawn(&layout.places[place], log_level) {
            Ok(started) => {
                *child = started;
                tell(format_args!("started {}", child.name()));
            }
            Err(failure) => tell(failure),
        },
        _ if !child.runs() => tell(format_args!("{} does not run", child.name())),
        NodeCommand::Stop(_) => child.terminate(),
        NodeCommand::Kill(_) => child.kill(),
    }
}

/// Joins every node to the first, and waits until all are ready.
async fn bring_up(layout: &Layout, children: &mut [Child]) -> Result<(), Failure> {
    let (first, others) = layout.places.split_first().expect("clap lets no cluster of 0 nodes through");
    let up = async {
        wait_until_ready(first).await?;
        for place in others {
            try_until(place, "GET", "/livez", async |client| told(client.livez().await)).await?;
            wait_for_member(first, place).await?;
        }
        for place in &layout.places {
            wait_until_ready(place).await?;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        up = up => up,
        report = child::first_exit(children) => {
            Err(Failure::new(ExitStatus::Failure, report.unwrap_or_else(|| "no node runs".to_owned())))
        }
    }
}

async fn wait_until_ready(place: &NodePlace) -> Result<(), Failure> {
    let is_ready = async |client: &mut Client| match told(client.readyz().await)? {
        Readiness { is_ready: true, .. } => Ok(()),
        Readiness { text, .. } => Err(text),
    };
    try_until(place, "GET", "/readyz", is_ready).await
}

/// Joins a node unless it is a member of the cluster already: one that is started again is.
async fn wait_for_member(first: &NodePlace, place: &NodePlace) -> Result<(), Failure> {
    let mine = client_of(place).status().await.ok().map(|node| node.cluster);
    let theirs = client_of(first).status().await.ok().map(|node| node.cluster);
    if mine.is_some() && mine == theirs {
        return Ok(());
    }
    let (name, raft_addr) = (&place.name, place.raft_addr());
    let target = format!("/join?nodeid={name}&nodeaddr={raft_addr}");
    try_until(first, "POST", &target, async |client| told(client.join(name, &raft_addr).await)).await
}

fn client_of(place: &NodePlace) -> Client {
    let endpoint = place.http_addr().parse().expect("localhost and a port above 0");
    let options = ClientOptions { answer_timeout: ANSWER_TIMEOUT, ..ClientOptions::default() };
    Client::new(vec![endpoint], options)
}

fn told<T>(result: Result<T, CallError>) -> Result<T, String> {
    result.map_err(|error| error.failure.to_string())
}

/// Asks a node until it agrees. `method` and `target` are what is asked, for the message.
async fn try_until(
    place: &NodePlace,
    method: &str,
    target: &str,
    mut ask: impl AsyncFnMut(&mut Client) -> Result<(), String>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut client = client_of(place);
    while let Err(last) = ask(&mut client).await {
        if Instant::now() >= deadline {
            let text = format!(
                "{} did not get ready: {method} http://{}{target}: {last}; its log is {}",
                place.name,
                place.http_addr(),
                place.log.display()
            );
            return Err(Failure::new(ExitStatus::Failure, text));
        }
        sleep(RETRY_PAUSE).await;
    }
    Ok(())
}

/// Stops every node that runs, and kills those that do not stop.
async fn stop(children: &mut [Child]) -> Result<(), Failure> {
    for child in children.iter_mut() {
        child.terminate();
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    let mut killed = Vec::new();
    for child in children.iter_mut() {
        if !child.wait_until(deadline).await {
            killed.push(child.name());
        }
    }
    if killed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        ExitStatus::Failure,
        format!("had to kill {}, which did not stop in time", killed.join(", ")),
    ))
}
