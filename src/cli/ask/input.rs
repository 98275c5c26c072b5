//! What is taken from arguments, standard input and files: bytes as they are.

use crate::cli::ask::secrets::credentials;
use crate::cli::client_args::{ConnectArgs, KeyArgs, LevelArgs, LevelName, RangeArgs};
use crate::cli::exit::{ExitStatus, Failure};
use crate::client::{Client, ClientOptions};
use crate::codec::from_base64;
use crate::kv::{KeyRange, VALUE_BYTES_MAX};
use crate::replica::Level;
use bytes::Bytes;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

/// A client of the nodes that the arguments name.
pub(in crate::cli) fn client(args: &ConnectArgs) -> Result<Client, Failure> {
    Ok(Client::new(args.endpoints.clone(), client_options(args)?))
}

/// How the arguments say that nodes are asked, and what to show them.
pub(super) fn client_options(args: &ConnectArgs) -> Result<ClientOptions, Failure> {
    if args.token.is_some() || args.user.is_some() {
        args.tls.refuse_clear_text(&args.endpoints)?;
    }
    let connect_timeout = ClientOptions::default().connect_timeout.min(args.timeout);
    let (tls, credentials) = (args.tls.load(&args.endpoints)?, credentials(args)?);
    let answer_timeout = args.timeout;
    Ok(ClientOptions { connect_timeout, answer_timeout, tls, credentials, ..ClientOptions::default() })
}

/// Bytes of an argument.
pub(super) fn bytes(argument: &OsStr) -> Bytes {
    Bytes::copy_from_slice(argument.as_bytes())
}

/// Bytes of an argument that may be in base64.
pub(super) fn key_bytes(argument: &OsStr, is_base64: bool) -> Result<Bytes, Failure> {
    if !is_base64 {
        return Ok(bytes(argument));
    }
    from_base64(argument.as_bytes()).map(Bytes::from).map_err(|_| {
        let text = format!("{} is not base64, and --base64 says that it is", argument.display());
        Failure::new(ExitStatus::Usage, text)
    })
}

/// One key.
pub(super) fn key(args: &KeyArgs) -> Result<Bytes, Failure> {
    checked_key(key_bytes(&args.key, args.base64)?)
}

/// A key, which has bytes.
pub(super) fn checked_key(key: Bytes) -> Result<Bytes, Failure> {
    if key.is_empty() {
        return Err(Failure::new(ExitStatus::Usage, "the key is empty"));
    }
    Ok(key)
}

/// A range; all keys if the arguments name none.
pub(super) fn range(args: &RangeArgs) -> Result<KeyRange, Failure> {
    if let Some(prefix) = &args.prefix {
        return Ok(KeyRange::prefix(key_bytes(prefix, args.base64)?));
    }
    let bound = |bound: &Option<_>| bound.as_deref().map(|bound| key_bytes(bound, args.base64)).transpose();
    let range = KeyRange { start: bound(&args.start)?.unwrap_or_default(), end: bound(&args.end)? };
    if range.is_empty() {
        return Err(Failure::new(ExitStatus::Usage, "--end is not after --start"));
    }
    Ok(range)
}

/// How fresh a read is.
pub(in crate::cli) fn level(args: &LevelArgs) -> Level {
    match (args.max_staleness, args.level) {
        (Some(time), _) => {
            Level::Fresh { max_staleness_micros: u64::try_from(time.as_micros()).unwrap_or(u64::MAX) }
        }
        (None, LevelName::Local) => Level::Local,
        (None, LevelName::Linearizable) => Level::Linearizable,
    }
}

/// A value: as it is, `-` for standard input, `@FILE` for a file.
pub(super) fn value(argument: &OsStr) -> Result<Bytes, Failure> {
    read(argument, VALUE_BYTES_MAX, "a value")
}

/// As [`value`], of at most `bytes_max` bytes.
pub(super) fn read(argument: &OsStr, bytes_max: usize, what: &str) -> Result<Bytes, Failure> {
    let read = match argument.as_bytes() {
        b"-" => read_all(io::stdin().lock(), bytes_max),
        [b'@', path @ ..] => File::open(OsStr::from_bytes(path)).and_then(|file| read_all(file, bytes_max)),
        bytes => Ok(Bytes::copy_from_slice(bytes)),
    };
    let source =
        if argument.as_bytes() == b"-" { "standard input".into() } else { argument.to_string_lossy() };
    let read =
        read.map_err(|error| Failure::new(ExitStatus::Failure, format!("cannot read {source}: {error}")))?;
    if read.len() > bytes_max {
        let text = format!("{what} has at most {bytes_max} bytes");
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    Ok(read)
}

/// All there is, or one byte more than may be.
fn read_all(source: impl Read, bytes_max: usize) -> io::Result<Bytes> {
    let mut all = Vec::new();
    source.take(bytes_max as u64 + 1).read_to_end(&mut all)?;
    Ok(all.into())
}
