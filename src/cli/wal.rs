//! `wal dump`: a log's records, readably. `wal repair`: a cluster of one goes on without what is
//! damaged.

use crate::cli::exit::{ExitStatus, Failure};
use crate::runtime::{Env, TokioEnv};
use crate::storage::{DumpItem, OpenError, RealDisk, StorageOptions, Survey, dump as read};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a person types to lose something.
const CONSENT: &str = "lose";
/// Says what was given up, in the data directory.
const TRACE: &str = "accepted-loss.txt";

/// Prints the log in a data directory. What cannot be read is printed as such, and makes the dump
/// fail at its end.
pub(super) fn dump(dir: &Path) -> Result<(), Failure> {
    if !dir.is_dir() {
        let what = if dir.exists() { "is no directory" } else { "does not exist" };
        let text = format!("{} {what}; name a node's data directory, as in data/node1", dir.display());
        return Err(Failure::new(ExitStatus::Data, text));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut unreadable = 0_usize;
    for item in read(&RealDisk, dir) {
        if let DumpItem::Nothing(dir) = &item {
            let text = format!(
                "{} holds no node's data; name the directory that has `identity` in it, as in data/node1",
                dir.display()
            );
            return Err(Failure::new(ExitStatus::Data, text));
        }
        unreadable += usize::from(matches!(item, DumpItem::Damage(_) | DumpItem::Unreadable(_)));
        match writeln!(out, "{item}") {
            Ok(()) => {}
            // The reader has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}"))),
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitStatus::Failure, format!("cannot print: {error}")))
        }
        _ if unreadable > 0 => {
            let places = if unreadable == 1 { "one place" } else { &format!("{unreadable} places") };
            let text = format!("{}: {places} could not be read; see above", dir.display());
            Err(Failure::new(ExitStatus::Data, text))
        }
        _ => Ok(()),
    }
}

/// Says what is damaged and what would be lost; goes on without it if that is asked for.
pub(super) fn repair(dir: &Path, accept_loss: bool, yes: bool) -> Result<(), Failure> {
    let unusable = |error: OpenError| Failure::new(ExitStatus::Data, error.to_string());
    let data = |text: String| Failure::new(ExitStatus::Data, text);
    if !dir.is_dir() {
        return Err(data(format!("{} is no directory; name a node's data directory", dir.display())));
    }
    let options = StorageOptions { seed: TokioEnv::new(RealDisk).seed(), ..StorageOptions::new(dir) };
    let Some(survey) = Survey::inspect(RealDisk, options).map_err(unusable)? else {
        say(&format!("{} is sound; there is nothing to repair", dir.display()));
        return Ok(());
    };
    for damage in survey.damages() {
        say(&format!("damaged: {damage}"));
    }
    if !survey.peers().is_empty() {
        let peers = survey.peers().join(", ");
        return Err(data(format!(
            "this member has others ({peers}); start it, and it repairs itself from them. Nothing was changed"
        )));
    }
    let Some((sound, last)) = survey.accept_loss() else {
        return Err(data(
            "nothing is left that a node could start from; put a copy of the files back".into(),
        ));
    };
    let kept = sound.end().index.get();
    let lost = if last.index.get() > kept {
        format!("entries {} to {} are lost, and what may have come after them", kept + 1, last.index)
    } else {
        format!("what may have come after entry {kept} is lost")
    };
    say(&format!("entries up to {kept} are whole; {lost}"));
    if !accept_loss {
        return Err(data("nothing was changed; --accept-loss goes on without what is lost".to_owned()));
    }
    if !yes {
        say(&format!("type {CONSENT} to go on without it"));
        let mut answer = String::new();
        let _ = io::stdin().read_line(&mut answer);
        if answer.trim() != CONSENT {
            return Err(Failure::new(ExitStatus::Usage, "nothing was changed".to_owned()));
        }
    }
    let damages = survey.damages().join("\n");
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = format!("{at} (seconds since 1970): entries up to {kept} are kept; {lost}\n{damages}\n");
    let path = dir.join(TRACE);
    let traced = File::options().create(true).append(true).open(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    traced.map_err(|error| {
        data(format!("{} cannot be written: {error}; nothing else was changed", path.display()))
    })?;
    survey.begin_mending().map_err(unusable)?;
    let files = survey.mend_with_loss(&sound).map_err(unusable)?;
    let (trace, files) = (path.display(), files.display());
    say(&format!("repaired; {trace} says what was given up, and {files} has all files of the damaged log"));
    Ok(())
}

/// Prints a line. The reader may have gone.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
