//! `member` and `leader`: who belongs to the cluster, and who leads it.

use crate::cli::ask::input::client;
use crate::cli::ask::print::{Output, lines_of, table};
use crate::cli::client_args::OutputFormat;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::member_args::{
    LeaderArgs, LeaderCommand, MemberArgs, MemberCommand, NamedAddress, OrderArgs,
};
use crate::cli::signals::runtime;
use crate::client::{
    Client, MemberHealth, MemberStanding, MembersReport, NodeToAdd, OrderOptions, OrderReport,
};
use crate::replica::Level;
use serde_json::{Value, json};

/// Runs a subcommand of `member`.
pub(in crate::cli) fn member(args: &MemberArgs) -> Result<ExitStatus, Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let format = args.output.output;
        match &args.command {
            MemberCommand::Ls { local } => list(&mut client, *local, format, &mut out).await?,
            MemberCommand::Add { nodes, learner, order } => {
                let nodes: Vec<NodeToAdd> = nodes.iter().map(node).collect();
                let done = client.add_members(&nodes, &[], *learner, options(order)).await?;
                print(&done, format, &mut out)?;
            }
            MemberCommand::Replace { member, node: new, order } => {
                let replaces = std::slice::from_ref(member);
                let done = client.add_members(&[node(new)], replaces, false, options(order)).await?;
                print(&done, format, &mut out)?;
            }
            MemberCommand::Promote { member, order } => {
                print(&client.promote_member(member, options(order)).await?, format, &mut out)?;
            }
            MemberCommand::Rm { member, order } => {
                print(&client.remove_member(member, options(order)).await?, format, &mut out)?;
            }
        }
        out.flush()?;
        Ok(ExitStatus::Success)
    })
}

/// Runs a subcommand of `leader`.
pub(in crate::cli) fn leader(args: &LeaderArgs) -> Result<ExitStatus, Failure> {
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut out = Output::new();
        let LeaderCommand::Transfer { member, if_configuration } = &args.command;
        let options = OrderOptions { expected: *if_configuration, force: false };
        let done = client.transfer_leadership(member.as_deref(), options).await?;
        print(&done, args.output.output, &mut out)?;
        out.flush()?;
        Ok(ExitStatus::Success)
    })
}

fn node(named: &NamedAddress) -> NodeToAdd {
    NodeToAdd { name: named.name.clone(), raft_addr: named.raft_addr.clone() }
}

fn options(order: &OrderArgs) -> OrderOptions {
    OrderOptions { expected: order.if_configuration, force: order.force }
}

async fn list(
    client: &mut Client,
    is_local: bool,
    format: Option<OutputFormat>,
    out: &mut Output,
) -> Result<(), Failure> {
    let level = if is_local { Level::Local } else { Level::Linearizable };
    match format {
        Some(OutputFormat::Json) => out.line(client.members_json(level).await?),
        Some(OutputFormat::Raw) => {
            let report = client.members(level).await?;
            report.members.iter().try_for_each(|member| out.line(&member.name))
        }
        Some(OutputFormat::Table) | None => out.line(render(&client.members(level).await?)),
    }
}

fn render(report: &MembersReport) -> String {
    let mut rows = table(&["id", "name", "standing", "health", "lag", "raft", "http", ""]);
    for member in &report.members {
        rows.add_row([
            member.id.to_string(),
            member.name.clone(),
            member.standing.clone(),
            member.health.clone(),
            member.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            member.raft_addr.clone(),
            member.http_addr.clone(),
            remark(member),
        ]);
    }
    let joint = if report.joint { ", a change is under way" } else { "" };
    format!(
        "{}\nconfiguration {}{joint}, as {} sees it",
        lines_of(rows),
        report.configuration,
        report.told_by
    )
}

fn remark(member: &MemberHealth) -> String {
    match &member.withdrawn {
        Some(why) => why.clone(),
        None if member.leader => "leader".to_owned(),
        None => String::new(),
    }
}

fn print(done: &OrderReport, format: Option<OutputFormat>, out: &mut Output) -> Result<(), Failure> {
    match format {
        Some(OutputFormat::Json) => {
            let list = |members: &[MemberStanding]| members.iter().map(standing_json).collect::<Vec<_>>();
            let mut line = json!({ "configuration": done.configuration });
            if let Some(leader) = &done.leader {
                line["leader"] = standing_json(leader);
            }
            for (name, members) in [("members", &done.members), ("removed", &done.removed)] {
                if !members.is_empty() {
                    line[name] = list(members).into();
                }
            }
            out.line(line)
        }
        Some(OutputFormat::Raw) => out.line(done.configuration),
        Some(OutputFormat::Table) | None => {
            for member in &done.members {
                let standing = member.standing.as_deref().unwrap_or("member");
                out.line(format_args!("{} is member {}, a {standing}", member.name, member.id))?;
            }
            for member in &done.removed {
                out.line(format_args!("{}, member {}, was removed", member.name, member.id))?;
            }
            if let Some(leader) = &done.leader {
                out.line(format_args!("{} leads", leader.name))?;
            }
            Ok(())
        }
    }
}

fn standing_json(member: &MemberStanding) -> Value {
    let mut object = json!({ "id": member.id, "name": member.name });
    if let Some(standing) = &member.standing {
        object["standing"] = standing.clone().into();
    }
    object
}
