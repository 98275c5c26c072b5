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
use crate::cli::client::Client;
use crate::cli::dev::child::Child;
use crate::cli::dev::commands::NodeCommand;
use crate::cli::dev::layout::{Layout, NodePlace};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::{StopSignals, runtime};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

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
        println!("{note}");
    }
    let mut children = Vec::new();
    let result = tokio::select! {
        biased;
        signal = signals.next() => { println!("\nstopping on {signal}"); Ok(()) }
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
        println!("the data stays in {}; the same command starts this cluster again", layout.dir.display());
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
    print!("{}", text::welcome(layout));
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
                Some(Some(Err(help))) => println!("{help}"),
            },
            report = child::first_exit(children), if !has_input || children.iter().any(Child::runs) => match report {
                Some(report) => println!("{report}"),
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
        NodeCommand::Start(_) if child.runs() => println!("{} runs", child.name()),
        NodeCommand::Start(_) => match Child::spawn(&layout.places[place], log_level) {
            Ok(started) => {
                *child = started;
                println!("started {}", child.name());
            }
            Err(failure) => println!("{failure}"),
        },
        _ if !child.runs() => println!("{} does not run", child.name()),
        NodeCommand::Stop(_) => child.terminate(),
        NodeCommand::Kill(_) => child.kill(),
    }
}

/// Joins every node to the first, and waits until all are ready.
async fn bring_up(layout: &Layout, children: &mut [Child]) -> Result<(), Failure> {
    let (first, others) = layout.places.split_first().expect("clap lets no cluster of 0 nodes through");
    let up = async {
        wait_for(first, "GET", "/readyz").await?;
        for place in others {
            wait_for(place, "GET", "/livez").await?;
            let target = format!("/join?nodeid={}&nodeaddr={}", place.name, place.raft_addr());
            wait_for_member(first, place, &target).await?;
        }
        for place in &layout.places {
            wait_for(place, "GET", "/readyz").await?;
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

/// Joins a node unless it is a member of the cluster already: one that is started again is.
async fn wait_for_member(first: &NodePlace, place: &NodePlace, target: &str) -> Result<(), Failure> {
    let mine = ask(place, "GET", "/v1/status").await.ok().and_then(|(_, body)| cluster_of(&body));
    let theirs = ask(first, "GET", "/v1/status").await.ok().and_then(|(_, body)| cluster_of(&body));
    if mine.is_some() && mine == theirs {
        return Ok(());
    }
    wait_for(first, "POST", target).await
}

fn cluster_of(status: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    Some(status.get("cluster")?.as_str()?.to_owned())
}

/// Asks until the answer is 200.
async fn wait_for(place: &NodePlace, method: &str, target: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let last = match ask(place, method, target).await {
            Ok((200, _)) => return Ok(()),
            Ok((code, body)) => format!("{code} {}", String::from_utf8_lossy(&body).trim_end()),
            Err(error) => error,
        };
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
}

async fn ask(place: &NodePlace, method: &str, target: &str) -> Result<(u16, Vec<u8>), String> {
    let answer = async {
        let mut client = Client::connect(&place.http_addr()).await?;
        let code = client.send(method, target, b"").await?;
        Ok((code, client.body().to_vec()))
    };
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(std::io::Error::to_string(&error)),
        Err(_) => Err("no answer in time".to_owned()),
    }
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
