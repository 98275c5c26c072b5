//! The report page, in a real browser.
//!
//! Needs Chromium (Debian: `chromium`). Where there is none, the tests that need it say so and
//! pass, unless `CI` is set.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use sim::record::outcome::Outcome;
use sim::record::timeline::{Ended, Fate, MessageSent};
use sim::record::violation::Violation;
use sim::report::{MESSAGES_MAX, Subject, page};
use sim::run::engine::Engine;
use sim::schedule::Schedule;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What ends a script element, and what would be an element if it became HTML.
const HOSTILE: &str =
    "</script><!--<script><img src=x onerror=\"probeErrors.push('ran')\" data-planted>{{data}}";

fn watched(engine: Engine, seed: u64) -> (Schedule, Outcome) {
    let schedule = Schedule::generate(seed);
    let outcome = engine.run(schedule.clone(), true);
    (schedule, outcome)
}

fn page_of(engine: Engine, schedule: &Schedule, outcome: &mut Outcome) -> String {
    page(&Subject { engine, schedule, name: schedule.seed.to_string() }, outcome)
}

/// Chromium, if there is one.
///
/// # Panics
/// In CI, if there is none.
fn chromium() -> Option<&'static str> {
    let works = |name: &&str| {
        let version =
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works);
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "CI needs Chromium: .ci/run installs it"
        );
        eprintln!("SKIPPED: the report page was not looked at, as there is no Chromium");
    }
    found
}

/// Opens a page in Chromium, lets the probe use it, and returns what it saw; `None` where there is
/// no Chromium.
fn probed(name: &str, page: &str) -> Option<Value> {
    let chromium = chromium()?;
    let errors = "<script>window.probeErrors = [];\
        addEventListener('error', (event) => probeErrors.push(String(event.message)));\
        const sayError = console.error; console.error = (...all) => { probeErrors.push(all.join(' ')); sayError(...all); };</script>";
    let page = page.replacen("<head>", &format!("<head>{errors}"), 1);
    let page = format!("{page}<script>{}</script>", include_str!("probe.js"));
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}"));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("page.html");
    std::fs::write(&file, page).unwrap();
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--window-size=1280,800"])
        .args(["--virtual-time-budget=5000", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    // The script itself holds the words as well: what it wrote comes last.
    let seen = dom.rsplit_once(">PROBE").and_then(|(_, rest)| rest.split_once("END<")).map(|(seen, _)| seen);
    let seen = seen.unwrap_or_else(|| {
        panic!(
            "the probe did not come to its end in {}: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    let seen: Value = serde_json::from_str(&decoded(seen)).unwrap();
    assert_eq!(seen["errors"], Value::Array(Vec::new()), "{}", file.display());
    Some(seen)
}

/// Undoes `encodeURIComponent`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = (first == b'%').then(|| std::str::from_utf8(&after[..2]).unwrap());
        bytes.push(escape.map_or(first, |digits| u8::from_str_radix(digits, 16).unwrap()));
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap()
}

fn number(seen: &Value, name: &str) -> usize {
    usize::try_from(seen[name].as_u64().unwrap_or_else(|| panic!("{name} in {seen}"))).unwrap()
}

#[test]
fn a_report_shows_the_run_and_can_be_used() {
    for engine in [Engine::Queue, Engine::Madsim] {
        let (schedule, mut outcome) = watched(engine, 7);
        assert_eq!(outcome.violation, None);
        let timeline = outcome.trace.timeline().unwrap().clone();
        let arrive = timeline.messages.iter().filter(|it| matches!(it.fate, Fate::Arrives(_))).count();
        assert!(arrive > 100 && timeline.disk.len() > 100, "{engine}: {arrive}, {}", timeline.disk.len());
        let page = page_of(engine, &schedule, &mut outcome);
        assert!(page.len() < 4 << 20, "{} bytes", page.len());
        let Some(seen) = probed(&format!("{engine}-7"), &page) else { return };

        assert_eq!(number(&seen, "lanes"), schedule.slots());
        assert_eq!(number(&seen, "rows"), schedule.slots());
        assert_eq!(number(&seen, "operations"), timeline.operations.len());
        let points = timeline.operations.iter().filter(|operation| operation.point.is_some()).count();
        assert!(points > 0);
        assert_eq!(number(&seen, "points"), points);
        assert_eq!(number(&seen, "faults"), timeline.faults.len());
        assert_eq!(number(&seen, "disk"), timeline.disk.len());
        assert!(number(&seen, "labels") > 0);
        assert_eq!(seen["covered"], Value::Array(Vec::new()), "labels that overlap");
        assert_eq!(seen["violation"], false);
        assert_eq!(seen["overflow"], false, "the page scrolls sideways at 1280 pixels");

        let quiet = timeline.messages.iter().filter(|message| !message.heartbeat).count();
        assert_eq!(number(&seen, "messages"), quiet, "heartbeats are off at first");
        assert_eq!(number(&seen, "withHeartbeats"), timeline.messages.len());
        assert!(number(&seen, "withoutAppends") < number(&seen, "withHeartbeats"));
        assert_eq!(number(&seen, "again"), quiet);
        assert_eq!(number(&seen, "withoutFaults"), 0);

        let states = seen["states"].as_array().unwrap();
        assert_eq!(states.len(), 11);
        assert!(states.windows(2).filter(|pair| pair[0] != pair[1]).count() >= 5, "{states:?}");
        assert_eq!(seen["clock"], format!("{}.{:06} s", outcome.at / 1_000_000, outcome.at % 1_000_000));
        assert_eq!(seen["stepped"], true);
        assert!((seen["zoomed"].as_f64().unwrap() - 0.25).abs() < 0.01);
        assert_eq!(seen["described"], true);
        assert!(seen["details"].as_str().unwrap().starts_with("client "), "{}", seen["details"]);
        assert_eq!(seen["commands"], format!("cargo run --release -p sim -- replay 7 --engine {engine}"));
    }
}

#[test]
fn a_violation_is_shown_first_and_hostile_texts_stay_texts() {
    let (schedule, mut outcome) = watched(Engine::Queue, 3);
    outcome.violation = Some(Violation { check: "election safety", what: format!("1 and 2: {HOSTILE}") });
    let timeline = outcome.trace.timeline().unwrap();
    for message in &mut timeline.messages {
        message.text.push_str(HOSTILE);
    }
    let last = timeline.operations.last_mut().unwrap();
    (last.key, last.text, last.answer) = (HOSTILE.to_owned(), HOSTILE.to_owned(), HOSTILE.to_owned());
    (last.suspect, last.ended) = (true, Ended::Answered(last.call + 1_000));
    let call = last.call;
    timeline.note(call, None, "note", HOSTILE);
    let subject = Subject { engine: Engine::Queue, schedule: &schedule, name: HOSTILE.to_owned() };
    let page = page(&subject, &mut outcome);
    assert_eq!(page.matches("</script>").count(), 2, "the page's own, and no other");
    let Some(seen) = probed("hostile", &page) else { return };
    assert_eq!(seen["violation"], true);
    assert_eq!(seen["check"], "Violated: election safety");
    assert_eq!(seen["what"], format!("1 and 2: {HOSTILE}"));
    assert_eq!(seen["planted"], 0, "a text became an element");
    assert_eq!(seen["afterStart"]["now"], call, "the page opens at what is suspected");
    assert!(seen["commands"].as_str().unwrap().contains("minimise"));
}

#[test]
fn a_long_run_is_abbreviated_and_says_so() {
    let (schedule, mut outcome) = watched(Engine::Queue, 7);
    let end = outcome.at;
    let timeline = outcome.trace.timeline().unwrap();
    let usual: Vec<MessageSent> = timeline.messages.clone();
    let all = 3 * MESSAGES_MAX as u64;
    let messages = (0..all).zip(usual.iter().cycle()).map(|(number, message)| {
        let at = number * end / all;
        MessageSent { at, fate: Fate::Arrives(at + 500), heartbeat: number % 3 == 0, ..message.clone() }
    });
    timeline.messages = messages.collect();
    let page = page_of(Engine::Queue, &schedule, &mut outcome);
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    assert!(page.contains("40000 heartbeats and the 40000 messages before"), "it says what is left out");
    let Some(seen) = probed("long", &page) else { return };
    assert_eq!(number(&seen, "messages"), MESSAGES_MAX);
}
