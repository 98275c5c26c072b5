//! What `member`, `leader` and `alarm` take.

use crate::cli::client_args::{ConnectArgs, OutputArgs};
use crate::cli::exit::{client_exit_codes, examples};
use crate::codec::{HostPort, check_name};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct MemberArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: MemberCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// List the members, and how they are
    ///
    /// As the leader sees them. If it does not answer, as the node that was asked does.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore member ls",
        "infinitystore member ls --local    # as the node that is asked sees them"
    ))]
    #[command(visible_alias = "list")]
    Ls {
        /// As the node that is asked sees them
        #[arg(long)]
        local: bool,
    },
    /// Add nodes that are no members yet
    ///
    /// A node is started first, without data, and named here with the address at which the others
    /// reach it. It gets the data, and becomes a voter once it has caught up. Several become voters
    /// in one change.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore member add node-4=10.0.0.4:8000",
        "infinitystore member add node-4=10.0.0.4:8000 node-5=10.0.0.5:8000",
        "infinitystore member add node-4=10.0.0.4:8000 --learner"
    ))]
    Add {
        /// The nodes: --node-id, and the raft address
        #[arg(value_name = "NAME=HOST:PORT", required = true, value_parser = named_address)]
        nodes: Vec<NamedAddress>,
        /// They stay learners: they get all data, and count in no majority
        #[arg(long)]
        learner: bool,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Make a learner a voter, once it has caught up
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes: "infinitystore member promote node-4"))]
    Promote {
        /// Its name, or its id
        #[arg(value_name = "MEMBER")]
        member: String,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Remove a member
    ///
    /// One that leads hands over first. Refused if the members that answer would be no majority of
    /// those that remain, unless you say --force.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore member rm node-3",
        "infinitystore member rm 3"
    ))]
    #[command(visible_alias = "remove")]
    Rm {
        /// Its name, or its id
        #[arg(value_name = "MEMBER")]
        member: String,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Put a new node in the place of a member, in one change
    ///
    /// The member leaves when the new node has caught up and becomes a voter. The member may be
    /// down. A node that lost its data is put in its own place: it keeps its name.
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore member replace node-3 node-4=10.0.0.4:8000",
        "infinitystore member replace node-3 node-3=10.0.0.3:8000    # its data was lost"
    ))]
    Replace {
        /// The member that leaves: its name, or its id
        #[arg(value_name = "MEMBER")]
        member: String,
        /// The new node: --node-id, and the raft address
        #[arg(value_name = "NAME=HOST:PORT", value_parser = named_address)]
        node: NamedAddress,
        #[command(flatten)]
        order: OrderArgs,
    },
}

/// When an order about the members is carried out.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct OrderArgs {
    /// Only if the configuration is still this one (`member ls` says which it is) [default:
    /// whatever it is]
    #[arg(long, value_name = "INDEX")]
    pub(super) if_configuration: Option<u64>,
    /// Even if the members that answer would be no majority of those that remain. Then nothing is
    /// written until enough of them are back
    #[arg(long)]
    pub(super) force: bool,
}

/// A node's name and its raft address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedAddress {
    pub(super) name: String,
    pub(super) raft_addr: String,
}

/// `NAME=HOST:PORT`.
pub(super) fn named_address(text: &str) -> Result<NamedAddress, String> {
    let (name, raft_addr) =
        text.split_once('=').ok_or("expected NAME=HOST:PORT, as in node-4=10.0.0.4:8000")?;
    check_name(name).map_err(|rule| format!("the name {name:?}: {rule}"))?;
    HostPort::parse_remote(raft_addr).map_err(|why| format!("{raft_addr:?} is no address: {why}"))?;
    Ok(NamedAddress { name: name.to_owned(), raft_addr: raft_addr.to_owned() })
}

#[derive(Debug, Args)]
pub(super) struct AlarmArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: AlarmCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum AlarmCommand {
    /// List the alarms of every endpoint
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore alarm ls --endpoints localhost:8001,localhost:8011,localhost:8021"
    ))]
    #[command(visible_alias = "list")]
    Ls,
    /// Say that you have seen an alarm: it stands no longer
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore alarm ack node-2/1"
    ))]
    Ack {
        /// The alarm, as `alarm ls` names it: the node, a slash, the number
        #[arg(value_name = "NODE/NUMBER")]
        alarm: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct LeaderArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(subcommand)]
    pub(super) command: LeaderCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum LeaderCommand {
    /// Hand leadership to another member
    #[command(after_help = client_exit_codes!(), after_long_help = examples!(client_exit_codes:
        "infinitystore leader transfer           # to the member that is ready best",
        "infinitystore leader transfer node-2"
    ))]
    Transfer {
        /// Its name, or its id [default: the member that is ready best]
        #[arg(value_name = "MEMBER")]
        member: Option<String>,
        /// Only if the configuration is still this one [default: whatever it is]
        #[arg(long, value_name = "INDEX")]
        if_configuration: Option<u64>,
    },
}
