//! `tls`: makes certificates, and says what is in them.

use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::tls_args::{CreateArgs, TlsCommand, node_words};
use crate::cli::units::date;
use crate::tls::{self, Certificate, Created, Lifetime, NamedHosts, Order, TlsError, WallClock};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

const DAY_SECONDS: u64 = 86_400;
/// The client that is made if none is named.
const DEFAULT_CLIENT: &str = "client";
/// No certificate is valid for longer.
const DAYS_MAX: usize = 36_500;

/// Runs a command.
pub(super) fn run(command: &TlsCommand) -> Result<(), Failure> {
    let text = match command {
        TlsCommand::Create(args) => create(args)?,
        TlsCommand::Show { file } => show(file)?,
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
}

fn create(args: &CreateArgs) -> Result<String, Failure> {
    let usage = |text: String| Failure::new(ExitStatus::Usage, text);
    if args.days.max(args.ca_days) > DAYS_MAX {
        return Err(usage(format!("--days, --ca-days: at most {DAYS_MAX}")));
    }
    let nodes = nodes(&args.nodes).map_err(usage)?;
    let has_authority = args.ca_dir.as_ref().unwrap_or(&args.dir).join("ca.pem").exists();
    let clients = match args.clients.as_slice() {
        [] if !has_authority => vec![DEFAULT_CLIENT.to_owned()],
        named => named.to_vec(),
    };
    if nodes.is_empty() && clients.is_empty() {
        return Err(usage("there is nothing to make: name --nodes or --clients".to_owned()));
    }
    let lifetime = Lifetime { days: args.days as u64, authority_days: args.ca_days as u64 };
    let order = Order { dir: args.dir.clone(), authority_dir: args.ca_dir.clone(), nodes, clients, lifetime };
    let created = tls::create(&order, &WallClock::of_the_system())
        .map_err(|error: TlsError| usage(error.to_string()))?;
    Ok(said(&order, &created))
}

/// `n1=host,n1=other,n2=host`.
fn nodes(given: &[String]) -> Result<Vec<NamedHosts>, String> {
    let mut nodes: Vec<NamedHosts> = Vec::new();
    for text in given {
        let (name, host) = text
            .split_once('=')
            .filter(|(name, host)| !name.is_empty() && !host.is_empty())
            .ok_or_else(|| format!("--nodes {text}: expected NAME=HOST, as in n1=10.0.0.1"))?;
        // The words of --initial-cluster have ports.
        let host = match crate::codec::HostPort::parse_remote(host) {
            Ok(address) => address.host,
            Err(_) => host,
        };
        match nodes.iter_mut().find(|node| node.name == name) {
            Some(node) => node.hosts.push(host.to_owned()),
            None => nodes.push(NamedHosts { name: name.to_owned(), hosts: vec![host.to_owned()] }),
        }
    }
    Ok(nodes)
}

/// What was made, and what to do with it.
fn said(order: &Order, created: &Created) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    let authority = created.authority.display();
    if created.is_authority_new {
        line(&format!("made the authority {authority}; keep its key, beside it, away from the nodes"));
    }
    for (certificate, _) in &created.pairs {
        line(&format!("made {}, valid for {} days", certificate.display(), order.lifetime.days));
    }
    let host = |host: &String| {
        let is_v6 = host.contains(':') && !host.starts_with('[');
        if is_v6 { format!("[{host}]") } else { host.clone() }
    };
    let first_hosts: Vec<(&str, String)> =
        order.nodes.iter().filter_map(|node| Some((&*node.name, host(node.hosts.first()?)))).collect();
    if let [(first, first_host), ..] = &*first_hosts
        && created.is_authority_new
    {
        line("\nEach node needs its own pair and ca.pem. To start them:");
        for (name, host) in &first_hosts {
            let join = if name == first { String::new() } else { format!(" --join {first_host}:8000") };
            line(&format!(
                "  infinitystore --node-id {name} --raft-addr {host}:8000 {} --peer-tls-ca {authority}{join}",
                node_words(&order.dir, name)
            ));
        }
        line("\nTo ask them:");
        line(&format!("  infinitystore status --endpoints https://{first_host}:8001 --cacert {authority}"));
        line(&format!("  curl --cacert {authority} https://{first_host}:8001/v1/status"));
    }
    if !created.is_authority_new && !first_hosts.is_empty() {
        line(
            "\nWhere these replace older ones: put both files of a node in the place of its old ones. The node",
        );
        line("takes them into use within ten seconds.");
        line(
            "\nFor a new node of a cluster that is there: start it, and have it added. MEMBER is any member.",
        );
        for (name, host) in &first_hosts {
            line(&format!(
                "  infinitystore --node-id {name} --raft-addr {host}:8000 {} --peer-tls-ca {authority} --join MEMBER:8000",
                node_words(&order.dir, name)
            ));
            line(&format!(
                "  infinitystore member add {name}={host}:8000 --endpoints https://MEMBER:8001 --cacert {authority}"
            ));
        }
    }
    if let Some(client) = order.clients.first() {
        let dir = order.dir.display();
        line(&format!(
            "\nIf nodes ask clients for certificates (--tls-client-ca {authority}), add --cert {dir}/{client}.pem --cert-key \
             {dir}/{client}.key"
        ));
    }
    text
}

fn show(file: &Path) -> Result<String, Failure> {
    let failed = |error: TlsError| Failure::new(ExitStatus::Failure, error.to_string());
    let pem = tls::read_file(file).map_err(failed)?;
    let certificates = tls::show(&pem)
        .map_err(|error| Failure::new(ExitStatus::Failure, format!("{}: {error}", file.display())))?;
    let now = WallClock::of_the_system().seconds();
    let mut text = String::new();
    for certificate in &certificates {
        let _ = write!(text, "{}", describe(certificate, now));
    }
    Ok(text)
}

fn describe(certificate: &Certificate, now: u64) -> String {
    let addresses = certificate.addresses.iter().map(ToString::to_string);
    let names: Vec<String> =
        certificate.dns_names.iter().chain(&certificate.other_names).cloned().chain(addresses).collect();
    let left = match certificate.not_after.checked_sub(now) {
        _ if certificate.not_before > now => "is not valid yet".to_owned(),
        Some(seconds) => format!("valid for another {} days", seconds / DAY_SECONDS),
        None => format!("ended {} days ago", (now - certificate.not_after) / DAY_SECONDS),
    };
    let (from, until) = (date(certificate.not_before), date(certificate.not_after));
    let name = certificate.common_name.as_deref().unwrap_or("-");
    let hosts = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    format!("{name}: {left} ({from} to {until}); hosts: {hosts}\n")
}
