//! Passwords and tokens: from files, from standard input, and from people, without an echo.

use crate::cli::client_args::ConnectArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::client::Credentials;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::OnceLock;

/// A password is at most this long.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// What the arguments say to show.
pub(super) fn credentials(args: &ConnectArgs) -> Result<Option<Credentials>, Failure> {
    if let Some(token) = &args.token {
        let wrong = || usage("--token (or INFINITYSTORE_TOKEN) is no token");
        return Credentials::token(token.trim()).map(Some).ok_or_else(wrong);
    }
    let Some(user) = &args.user else { return Ok(None) };
    // A command may have several clients: people are asked once.
    static ASKED: OnceLock<String> = OnceLock::new();
    let password = match (&args.password_file, ASKED.get()) {
        (Some(file), _) => from_file(file)?,
        (None, Some(password)) => password.clone(),
        (None, None) => {
            let password = ask(&format!("password of {user}: "))?;
            ASKED.get_or_init(|| password).clone()
        }
    };
    Credentials::password(user, &password).map(Some).ok_or_else(|| usage("a user's name has no : in it"))
}

/// A new password: asked for twice, or the first line of standard input.
pub(super) fn new_password(user: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        let mut text = String::new();
        let read = io::stdin().take(PASSWORD_BYTES_MAX + 2).read_to_string(&mut text);
        read.map_err(|error| {
            Failure::new(ExitStatus::Failure, format!("cannot read the password: {error}"))
        })?;
        return checked(first_line(&text));
    }
    let password = checked(&ask(&format!("new password of {user}: "))?)?;
    if ask("again: ")? != password {
        return Err(usage("the two passwords are not the same"));
    }
    Ok(password)
}

fn from_file(file: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| usage(&format!("--password-file {}: {error}", file.display())))?;
    checked(first_line(&text))
}

fn first_line(text: &str) -> &str {
    text.split(['\r', '\n']).next().unwrap_or_default()
}

fn checked(password: &str) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(usage("the password is empty"));
    }
    if password.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(usage("a password has at most 1024 bytes"));
    }
    Ok(password.to_owned())
}

fn ask(prompt: &str) -> Result<String, Failure> {
    rpassword::prompt_password(prompt).map_err(|error| {
        let text = format!("cannot ask for the password: {error}; use --password-file, or a token");
        Failure::new(ExitStatus::Usage, text)
    })
}

fn usage(text: &str) -> Failure {
    Failure::new(ExitStatus::Usage, text)
}
