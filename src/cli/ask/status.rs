//! `status`: what the nodes say of themselves.

use crate::cli::ask::input::client_options;
use crate::cli::ask::print::{Output, lines_of, table};
use crate::cli::client_args::{OutputFormat, StatusArgs};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::runtime;
use crate::client::{CallError, Client, Endpoint, ErrorKind, NodeReport};
use serde_json::{Value, json};

/// Asks every endpoint.
pub(in crate::cli) fn status(args: &StatusArgs) -> Result<(), Failure> {
    let connect = &args.connect;
    let options = client_options(connect)?;
    let answers = runtime(1)?.block_on(async {
        // All at once: one that is down costs its time-out.
        let asked = connect.endpoints.iter().map(|endpoint| {
            let mut client = Client::new(vec![endpoint.clone()], options.clone());
            tokio::spawn(async move { client.status_json().await })
        });
        let mut answers = Vec::new();
        for (task, endpoint) in asked.collect::<Vec<_>>().into_iter().zip(&connect.endpoints) {
            let answer = task.await;
            let answer = answer.map_err(|error| Failure::new(ExitStatus::Failure, error.to_string()))?;
            answers.push((endpoint, answer));
        }
        Ok::<_, Failure>(answers)
    })?;
    let mut out = Output::new();
    match args.output.output {
        Some(OutputFormat::Json) => {
            for (endpoint, answer) in &answers {
                let mut line = answer
                    .as_ref()
                    .map_or_else(|error| json!({ "error": error.failure.to_string() }), Value::clone);
                if let Some(object) = line.as_object_mut() {
                    object.insert("endpoint".to_owned(), endpoint.to_string().into());
                }
                out.line(line)?;
            }
        }
        Some(OutputFormat::Raw) => {
            for (endpoint, answer) in &answers {
                out.line(format_args!("{endpoint} {}", role(answer)))?;
            }
        }
        Some(OutputFormat::Table) | None => out.line(render(&answers))?,
    }
    out.flush()?;
    if answers.iter().any(|(_, answer)| answer.is_ok()) {
        return Ok(());
    }
    let first = answers.into_iter().find_map(|(_, answer)| answer.err());
    Err(first.map_or_else(|| Failure::new(ExitStatus::Usage, "--endpoints is empty"), Failure::from))
}

type Answer = Result<Value, CallError>;

/// What is told to nobody in particular: a node whose cluster is not open says no more without
/// credentials.
fn is_short(status: &Value) -> bool {
    status.get("version").is_none() && status.get("alive").is_some()
}

/// In one word, for people and for scripts.
fn role(answer: &Answer) -> &str {
    let is = |status: &Value, flag: &str| status.get(flag).and_then(Value::as_bool) == Some(true);
    match answer {
        Ok(status) if is_short(status) => {
            if is(status, "ready") {
                "ready"
            } else {
                "not-ready"
            }
        }
        Ok(status) if is(status, "removed") => "removed",
        Ok(status) if is(status, "joining") => "joining",
        Ok(status) => status.get("role").and_then(Value::as_str).unwrap_or("unavailable"),
        Err(error) if error.kind() == ErrorKind::Denied => "denied",
        Err(_) => "unavailable",
    }
}

/// What is to be known of a node that takes part otherwise than the others.
fn remark(node: &NodeReport) -> String {
    let removed = || {
        let text =
            "it was removed from its cluster: stop it, and wipe its data directory before it joins again";
        node.removed.then(|| text.to_owned())
    };
    let joining = || node.joining.then(|| "it waits until a cluster takes it in".to_owned());
    let found = node.stopped.clone().or_else(removed).or_else(|| node.withdrawn.clone()).or_else(joining);
    found.unwrap_or_default()
}

fn render(answers: &[(&Endpoint, Answer)]) -> String {
    let header =
        ["endpoint", "node", "role", "term", "leader", "revision", "keys", "bytes", "version", "level", ""];
    let mut table = table(&header);
    for (endpoint, answer) in answers {
        let endpoint = endpoint.to_string();
        let report = match answer {
            Ok(status) if is_short(status) => {
                Err("it tells more to those who say who they are: --token, or --user".to_owned())
            }
            Ok(status) => {
                serde_json::from_value::<NodeReport>(status.clone()).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.failure.to_string()),
        };
        let (role, empty) = (role(answer).to_owned(), String::new);
        match report {
            Ok(node) => {
                // Of no cluster that others are in.
                let leader = node.leader.as_ref().filter(|_| !(node.removed || node.joining));
                let leader =
                    leader.map(|leader| leader.name.clone().unwrap_or_else(|| leader.id.to_string()));
                table.add_row([
                    endpoint,
                    node.name.clone(),
                    role,
                    node.term.to_string(),
                    leader.unwrap_or_else(|| "-".to_owned()),
                    node.revision.to_string(),
                    node.keys.to_string(),
                    node.store_bytes.to_string(),
                    node.version.clone(),
                    levels(&node),
                    remark(&node),
                ])
            }
            Err(why) => table.add_row([
                endpoint,
                "-".to_owned(),
                role,
                empty(),
                empty(),
                empty(),
                empty(),
                empty(),
                empty(),
                empty(),
                why,
            ]),
        };
    }
    lines_of(table)
}

/// The feature level of the cluster, and those that the node speaks if it could do with another.
fn levels(node: &NodeReport) -> String {
    let (Some(level), Some(speaks)) = (node.feature_level, node.speaks) else { return String::new() };
    if speaks.highest == level {
        level.to_string()
    } else {
        format!("{level} (speaks {} to {})", speaks.lowest, speaks.highest)
    }
}

#[cfg(test)]
mod tests;
