//! `alarm`: what befell the nodes' data, until a person has seen it.

use crate::cli::ask::input::client_options;
use crate::cli::ask::print::{Output, lines_of, table};
use crate::cli::client_args::{ConnectArgs, OutputFormat};
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::member_args::{AlarmArgs, AlarmCommand};
use crate::cli::signals::runtime;
use crate::cli::units::date;
use crate::client::{AlarmsReport, CallError, Client};
use serde_json::json;

/// Runs a subcommand of `alarm`.
pub(in crate::cli) fn alarm(args: &AlarmArgs) -> Result<ExitStatus, Failure> {
    runtime(1)?.block_on(async {
        match &args.command {
            AlarmCommand::Ls => list(&args.connect, args.output.output).await,
            AlarmCommand::Ack { alarm } => acknowledge(&args.connect, alarm).await,
        }
    })
}

/// A client of each endpoint.
fn clients(connect: &ConnectArgs) -> Result<impl Iterator<Item = Client> + '_, Failure> {
    let options = client_options(connect)?;
    Ok(connect.endpoints.iter().map(move |endpoint| Client::new(vec![endpoint.clone()], options.clone())))
}

async fn list(connect: &ConnectArgs, format: Option<OutputFormat>) -> Result<ExitStatus, Failure> {
    let mut reports: Vec<Result<AlarmsReport, CallError>> = Vec::new();
    for mut client in clients(connect)? {
        reports.push(client.alarms().await);
    }
    let mut out = Output::new();
    let mut rows = table(&["alarm", "kind", "raised at", "what"]);
    for (report, endpoint) in reports.iter().zip(&connect.endpoints) {
        match (report, format) {
            (Ok(report), Some(OutputFormat::Json)) => out.line(json!(report))?,
            (Err(error), Some(OutputFormat::Json)) => {
                out.line(json!({ "endpoint": endpoint.to_string(), "error": error.failure.to_string() }))?;
            }
            (Ok(report), _) => {
                for alarm in &report.alarms {
                    let name = format!("{}/{}", report.node, alarm.id);
                    rows.add_row([name, alarm.kind.clone(), date(alarm.raised_at), alarm.text.clone()]);
                }
            }
            (Err(error), _) => {
                let (empty, why) = (String::new, error.failure.to_string());
                rows.add_row([endpoint.to_string(), "unavailable".to_owned(), empty(), why]);
            }
        }
    }
    if format != Some(OutputFormat::Json) {
        out.line(lines_of(rows))?;
    }
    out.flush()?;
    if reports.iter().any(Result::is_ok) {
        return Ok(ExitStatus::Success);
    }
    let first = reports.into_iter().find_map(Result::err);
    Err(first.map_or_else(|| Failure::new(ExitStatus::Usage, "--endpoints is empty"), Failure::from))
}

/// `alarm`: the name of the node, a slash, and the number.
async fn acknowledge(connect: &ConnectArgs, alarm: &str) -> Result<ExitStatus, Failure> {
    let parts = alarm.rsplit_once('/').and_then(|(node, id)| Some((node, id.parse().ok()?)));
    let Some((node, id)) = parts else {
        return Err(Failure::new(
            ExitStatus::Usage,
            format!("{alarm}: expected NODE/NUMBER, as alarm ls says"),
        ));
    };
    let mut failed = None;
    for mut client in clients(connect)? {
        match client.alarms().await {
            Ok(report) if report.node == node => {
                client.acknowledge_alarm(id).await?;
                return Ok(ExitStatus::Success);
            }
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    let unreachable = failed.map(Failure::from);
    let text = format!("no endpoint is of the node {node}; name its own with --endpoints");
    Err(unreachable.unwrap_or_else(|| Failure::new(ExitStatus::NotFound, text)))
}
