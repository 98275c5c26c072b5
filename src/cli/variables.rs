//! What the environment says, and how the user is told of it.

use clap::Arg;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

/// What they all begin with.
const PREFIX: &str = "INFINITYSTORE_";
/// Those that `lock` and `elect` set for what they run: a node may be that.
const SET_FOR_COMMANDS: [&str; 2] = ["INFINITYSTORE_FENCE", "INFINITYSTORE_LEASE"];
/// Where the variable of the first kind is not set, one of the second kind counts: one that is
/// exported for all commands.
const OTHER_VARIABLES: [(&str, &str); 1] = [("INFINITYSTORE_BENCH_ENDPOINTS", "INFINITYSTORE_ENDPOINTS")];

/// Of these names of variables those that look as if they were for this program, and are for none
/// of its commands: a mistyped one would be passed over in silence. `program`: with all commands.
pub(super) fn unknown_variables(
    program: &clap::Command,
    names: impl Iterator<Item = OsString>,
) -> Vec<String> {
    let mut known: BTreeSet<OsString> = SET_FOR_COMMANDS.iter().map(OsString::from).collect();
    note_variables(program, &mut known);
    let mut unknown: Vec<String> = names
        .filter(|name| !known.contains(name))
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with(PREFIX) && !is_of_kubernetes(name))
        .collect();
    unknown.sort();
    unknown
}

fn note_variables(command: &clap::Command, known: &mut BTreeSet<OsString>) {
    known.extend(command.get_arguments().filter_map(Arg::get_env).map(OsStr::to_os_string));
    command.get_subcommands().for_each(|below| note_variables(below, known));
}

/// Kubernetes sets some for each service, and one may be called `infinitystore-…`:
/// `…_SERVICE_HOST`, `…_SERVICE_PORT_…`, `…_PORT`, and `…_PORT_8001_TCP_…`.
fn is_of_kubernetes(name: &str) -> bool {
    let is_of_port = |rest: &str| {
        rest.is_empty()
            || rest.strip_prefix('_').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.match_indices("_PORT").any(|(at, port)| is_of_port(&name[at + port.len()..]))
}

/// The argument with the variable that counts in place of its own.
fn with_other_variable(arg: Arg) -> Arg {
    let own = arg.get_env().and_then(OsStr::to_str);
    let other = OTHER_VARIABLES.iter().find(|(name, _)| own == Some(*name)).map(|(_, other)| *other);
    match other.filter(|other| std::env::var_os(other).is_some()) {
        Some(other) => arg.env(other),
        None => arg,
    }
}

/// The command, deaf to variables that are empty or overruled.
pub(super) fn without_variables(
    command: clap::Command,
    is_overruled: &dyn Fn(&Arg) -> bool,
) -> clap::Command {
    let value = |arg: &Arg| arg.get_env().and_then(std::env::var_os);
    let deaf = |arg: Arg| {
        let arg =
            if value(&arg).is_none_or(|value| value.is_empty()) { with_other_variable(arg) } else { arg };
        let is_empty = value(&arg).is_some_and(|value| value.is_empty());
        if is_empty || is_overruled(&arg) { arg.env(None::<&'static str>) } else { arg }
    };
    command.mut_args(deaf).mut_subcommands(|below| without_variables(below, is_overruled))
}

/// Whether what the environment says of it does not count, because the arguments say otherwise who
/// to be.
pub(super) fn is_overruled(arg: &Arg, arguments: &[OsString]) -> bool {
    match arg.get_id().as_str() {
        "token" => is_written(arguments, "--user"),
        "user" | "password_file" => is_written(arguments, "--token"),
        _ => false,
    }
}

/// Whether the arguments have a flag.
fn is_written(arguments: &[OsString], flag: &str) -> bool {
    let own = arguments.iter().take_while(|argument| *argument != "--");
    own.filter_map(|argument| argument.to_str()).any(|argument| {
        argument.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// An error about a value that came from the environment names the variable: the user never wrote
/// the flag.
pub(super) fn with_its_variable(
    error: clap::Error,
    command: &clap::Command,
    arguments: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(about)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = about.split(' ').next().unwrap_or_default();
    let Some(variable) = variable_of(command, flag).filter(|_| !is_written(arguments, flag)) else {
        return error;
    };
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text =
        text.replacen(&format!("'{about}'"), &format!("the environment variable {variable} ({flag})"), 1);
    clap::Error::raw(error.kind(), text)
}

/// The variable that sets a flag, of the command or of one below it, if it is set.
fn variable_of(command: &clap::Command, flag: &str) -> Option<String> {
    let own =
        command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| flag == format!("--{long}")));
    let set = own.filter_map(Arg::get_env).find(|name| std::env::var_os(name).is_some());
    let below = || command.get_subcommands().find_map(|command| variable_of(command, flag));
    set.map(|name| name.to_string_lossy().into_owned()).or_else(below)
}

/// The flags of the command at hand that the environment has set.
pub(super) fn variables_used(command: &clap::Command, matches: &clap::ArgMatches) -> Vec<(String, String)> {
    let (mut command, mut matches) = (command, matches);
    while let Some((name, below)) = matches.subcommand() {
        (command, matches) = (command.find_subcommand(name).unwrap_or(command), below);
    }
    let from_environment = |arg: &&Arg| {
        let id = arg.get_id().as_str();
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::EnvVariable)
    };
    command
        .get_arguments()
        .filter(from_environment)
        .filter_map(|arg| Some((format!("--{}", arg.get_long()?), arg.get_env()?.to_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests;
