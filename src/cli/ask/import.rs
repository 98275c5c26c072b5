//! `import`: the keys of an export, in batches.

use crate::cli::ask::export::EXPORT_VERSION;
use crate::cli::ask::input::client;
use crate::cli::ask::print::{counted, note};
use crate::cli::client_args::ImportArgs;
use crate::cli::exit::{ExitStatus, Failure};
use crate::cli::signals::runtime;
use crate::client::{Client, is_candidate, read_bytes};
use crate::kv::{LeaseId, Put, TXN_STEPS_MAX, Txn, TxnOp};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Bytes of a line, at most: the largest key and value with every byte escaped, and what stands
/// around them.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Keys of a batch, at most.
const BATCH_KEYS: usize = TXN_STEPS_MAX / 4;
/// A batch ends once its keys and values have this many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// A line: of a key, the first, or the last.
#[derive(Deserialize)]
struct LineBody {
    key: Option<String>,
    key64: Option<String>,
    value: Option<String>,
    value64: Option<String>,
    #[serde(default)]
    lease: u64,
    export: Option<HeadBody>,
    end: Option<EndBody>,
}

#[derive(Deserialize)]
struct HeadBody {
    version: u64,
}

#[derive(Deserialize)]
struct EndBody {
    keys: u64,
}

/// Keys on their way.
#[derive(Default)]
struct Batch {
    puts: Vec<TxnOp>,
    keys: BTreeSet<Bytes>,
    bytes: usize,
}

/// How many keys were not written.
#[derive(Default)]
struct LeftOut {
    leased: u64,
    /// Of locks and elections.
    candidates: u64,
}

/// Writes the keys of an export.
pub(in crate::cli) fn import(args: &ImportArgs) -> Result<(), Failure> {
    let source = open(&args.file)?;
    runtime(1)?.block_on(async {
        let mut client = client(&args.connect)?;
        let mut written = 0;
        let done = copy(&mut client, args, source, &mut written).await;
        match done {
            Ok(LeftOut { leased, candidates }) => {
                let left_out = |count, why| match count {
                    0 => String::new(),
                    count => format!("; left out {} {why}", counted(count, "key")),
                };
                let leased = left_out(leased, "that had a lease (--with-leased)");
                let candidates = left_out(candidates, "of locks and elections");
                note(format_args!("imported {}{leased}{candidates}", counted(written, "key")));
                Ok(())
            }
            Err(failure) => {
                let status = failure.status;
                let text = format!("{failure}; {} were imported before; begin anew", counted(written, "key"));
                Err(Failure::new(status, text))
            }
        }
    })
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    match File::open(file) {
        Ok(file) => Ok(Box::new(BufReader::new(file))),
        Err(error) => {
            Err(Failure::new(ExitStatus::Failure, format!("cannot read {}: {error}", file.display())))
        }
    }
}

/// Writes key after key. What it left out.
async fn copy(
    client: &mut Client,
    args: &ImportArgs,
    mut source: Box<dyn BufRead>,
    written: &mut u64,
) -> Result<LeftOut, Failure> {
    let mut line = Vec::new();
    let (mut number, mut keys, mut left_out) = (0_u64, 0, LeftOut::default());
    let (mut has_head, mut has_end) = (false, false);
    let mut batch = Batch::default();
    loop {
        number += 1;
        let wrong = |what: &str| {
            let text = format!("{}, line {number}: {what}", args.file.display());
            Failure::new(ExitStatus::Failure, text)
        };
        line.clear();
        let read = source.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let read = read.map_err(|error| wrong(&error.to_string()))?;
        if read == 0 {
            break;
        }
        if has_end {
            return Err(wrong("something follows the last line"));
        }
        if read as u64 == LINE_BYTES_MAX {
            return Err(wrong("it is too long for a key and a value"));
        }
        let body: LineBody = serde_json::from_slice(&line)
            .map_err(|error| wrong(&format!("it is no line of an export: {error}")))?;
        if let Some(HeadBody { version }) = body.export {
            if version != EXPORT_VERSION || number > 1 {
                return Err(wrong(
                    "this is the first line of an export of another version, or it is not the first",
                ));
            }
            has_head = true;
            continue;
        }
        if let Some(EndBody { keys: expected }) = body.end {
            if expected != keys {
                return Err(wrong(&format!("{expected} keys should be before it, and {keys} are")));
            }
            has_end = true;
            continue;
        }
        keys += 1;
        let key = read_bytes(body.key, body.key64).filter(|key| !key.is_empty());
        let value = read_bytes(body.value, body.value64);
        let (Some(key), Some(value)) = (key, value) else { return Err(wrong("it has no key, or no value")) };
        if is_candidate(&key) {
            // Without its lease it would hold a lock for ever, for nobody.
            left_out.candidates += 1;
            continue;
        }
        if body.lease != 0 && !args.with_leased {
            left_out.leased += 1;
            continue;
        }
        // A transaction puts a key once: of a key that comes again the last value stays.
        if batch.keys.contains(&key) || !batch.has_room(key.len() + value.len()) {
            batch.write(client, written).await?;
        }
        batch.add(key, value);
    }
    batch.write(client, written).await?;
    if has_head && !has_end {
        let text = format!("{} was cut short: its last line is missing", args.file.display());
        return Err(Failure::new(ExitStatus::Failure, text));
    }
    Ok(left_out)
}

impl Batch {
    fn has_room(&self, bytes: usize) -> bool {
        self.puts.is_empty() || (self.puts.len() < BATCH_KEYS && self.bytes + bytes <= BATCH_BYTES)
    }

    fn add(&mut self, key: Bytes, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.keys.insert(key.clone());
        self.puts.push(TxnOp::Put(Put { key, value, lease: LeaseId::NONE }));
    }

    async fn write(&mut self, client: &mut Client, written: &mut u64) -> Result<(), Failure> {
        let Self { puts, .. } = std::mem::take(self);
        if puts.is_empty() {
            return Ok(());
        }
        let count = puts.len() as u64;
        client.txn(&Txn { success: puts, ..Txn::default() }).await?;
        *written += count;
        Ok(())
    }
}
