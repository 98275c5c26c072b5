//! The report of a run: one HTML page that needs nothing else.
//!
//! The page draws a [`Timeline`]: `page.html`, `page.css` and `page.js` are put together with the
//! data, as JSON. Its size is bounded: if a run has more messages than [`MESSAGES_MAX`], heartbeats
//! are left out first, then the oldest messages, and the page says so.

use crate::record::outcome::Outcome;
use crate::record::timeline::{Ended, Fate, MessageSent, Timeline};
use crate::run::engine::Engine;
use crate::schedule::Schedule;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Messages on one page, at most: some 100 bytes each.
pub const MESSAGES_MAX: usize = 40_000;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a page is about, beside what happened.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Which engine ran it.
    pub engine: Engine,
    /// What it ran.
    pub schedule: &'a Schedule,
    /// What names it on the command line: its seed, or the file of the schedule.
    pub name: String,
}

/// The page of a run that was told (`verbose`).
#[must_use]
pub fn page(subject: &Subject<'_>, outcome: &mut Outcome) -> String {
    let timeline = outcome.trace.timeline().map(std::mem::take).unwrap_or_default();
    let data = data(subject, outcome, &timeline).to_string();
    // In a script element nothing ends the data but "</script"; "<!--" would change how it is read.
    let data = data.replace('<', "\\u003c");
    let title = escape(&format!("{} · {}", subject.name, subject.engine));
    let mut page = String::with_capacity(data.len() + HTML.len() + STYLE.len() + SCRIPT.len());
    // Each marker is replaced where it stands in the template, and nothing is looked for in what
    // was put in.
    let mut rest = HTML;
    while let Some(start) = rest.find("{{") {
        let end = start + rest[start..].find("}}").expect("the template closes its markers") + 2;
        page.push_str(&rest[..start]);
        page.push_str(match &rest[start..end] {
            "{{title}}" => &title,
            "{{style}}" => STYLE,
            "{{data}}" => &data,
            "{{script}}" => SCRIPT,
            other => panic!("the template has an unknown marker {other}"),
        });
        rest = &rest[end..];
    }
    page.push_str(rest);
    page
}

/// Runs a schedule, watched, and writes its page into `directory`.
///
/// # Errors
/// If the directory or the page cannot be written.
pub fn write(subject: &Subject<'_>, path: &Path) -> io::Result<Outcome> {
    let mut outcome = subject.engine.run(subject.schedule.clone(), true);
    let page = page(subject, &mut outcome);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, page)?;
    Ok(outcome)
}

/// Where a page is written by default.
#[must_use]
pub fn default_path(directory: &Path, engine: Engine, seed: u64) -> PathBuf {
    directory.join(format!("{engine}-{seed}.html"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Kinds are numbers on the page, and named once.
#[derive(Default)]
struct Kinds {
    numbers: BTreeMap<&'static str, usize>,
    names: Vec<&'static str>,
}

impl Kinds {
    fn number(&mut self, kind: &'static str) -> usize {
        *self.numbers.entry(kind).or_insert_with(|| {
            self.names.push(kind);
            self.names.len() - 1
        })
    }
}

fn data(subject: &Subject<'_>, outcome: &Outcome, timeline: &Timeline) -> Value {
    let schedule = subject.schedule;
    let (messages, kinds, left_out) = messages(&timeline.messages);
    let statuses = timeline.statuses.iter().map(|change| {
        let status = change.status.map(|it| json!([it.role, it.term, it.commit, it.applied, it.last]));
        json!([change.at, change.slot, status])
    });
    let faults = timeline.faults.iter().map(|it| json!([it.at, it.until, it.slot, it.kind, it.text]));
    let disk = timeline.disk.iter().map(|it| json!([it.at, it.until, it.slot, it.kind, it.text]));
    let notes = timeline.notes.iter().map(|it| json!([it.at, it.slot, it.kind, it.text]));
    let operations = timeline.operations.iter().map(|it| {
        let (state, end) = match it.ended {
            Ended::Answered(at) => ("ok", Some(at)),
            Ended::Failed(at) => ("failed", Some(at)),
            Ended::Unknown => ("unknown", None),
        };
        let (point, position) = it.point.unzip();
        json!([
            it.client, it.slot, it.key, it.text, it.call, end, state, it.answer, point, position, it.suspect
        ])
    });
    let engine = subject.engine;
    let command = |verb: &str| {
        format!("cargo run --release -p sim -- {verb} {} --engine {engine}", quoted(&subject.name))
    };
    json!({
        "name": subject.name,
        "engine": engine.to_string(),
        "seed": schedule.seed,
        "slots": schedule.slots(),
        "voters": schedule.voters,
        "clients": schedule.clients.len(),
        "duration": schedule.duration_micros,
        "timeout": schedule.settings.client_timeout_micros,
        "end": outcome.at,
        "trace": format!("{:016x}", outcome.trace_hash),
        "violation": outcome.violation.as_ref().map(|it| json!({ "check": it.check, "what": it.what })),
        "settings": schedule.settings,
        "commands": [command("replay"), command("minimise")],
        "leftOut": left_out,
        "kinds": kinds,
        "statuses": statuses.collect::<Vec<_>>(),
        "messages": messages,
        "faults": faults.collect::<Vec<_>>(),
        "disk": disk.collect::<Vec<_>>(),
        "notes": notes.collect::<Vec<_>>(),
        "operations": operations.collect::<Vec<_>>(),
    })
}

/// Messages for the page, their kinds, and what was left out.
fn messages(all: &[MessageSent]) -> (Vec<Value>, Vec<&'static str>, Option<String>) {
    let mut kinds = Kinds::default();
    let without_heartbeats = all.len() > MESSAGES_MAX;
    let kept: Vec<&MessageSent> =
        all.iter().filter(|message| !(without_heartbeats && message.heartbeat)).collect();
    // What led to the end matters most.
    let skipped = kept.len().saturating_sub(MESSAGES_MAX);
    let left_out = without_heartbeats.then(|| {
        let heartbeats = all.len() - kept.len();
        match kept.get(skipped).filter(|_| skipped > 0) {
            Some(first) => format!(
                "{heartbeats} heartbeats and the {skipped} messages before {:.3} s are left out",
                first.at as f64 / 1e6
            ),
            None => format!("{heartbeats} heartbeats are left out"),
        }
    });
    let messages = kept[skipped..].iter().map(|it| {
        let (fate, arrives) = match it.fate {
            Fate::Arrives(at) => (0, Some(at)),
            Fate::Duplicate(at) => (1, Some(at)),
            Fate::Altered(at) => (2, Some(at)),
            Fate::Lost => (3, None),
            Fate::Unreadable => (4, None),
        };
        let kind = kinds.number(it.kind);
        json!([it.at, arrives, it.from, it.to, kind, u8::from(it.heartbeat), fate, it.text])
    });
    let messages = messages.collect();
    (messages, kinds.names, left_out)
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
