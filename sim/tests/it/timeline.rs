//! What a watched run tells: of the madsim engine, which carries bytes, what becomes of messages,
//! and what disks do.

use sim::madsim_engine::snapshot_worker_percent;
use sim::record::timeline::{Fate, MessageSent, Timeline};
use sim::run::engine::Engine;
use sim::schedule::{Cut, Fault, MILLI, SECOND, Schedule, Timed};
use std::collections::BTreeMap;

/// Three machines and nothing that strikes.
fn calm_schedule() -> Schedule {
    let mut schedule =
        (0..).map(Schedule::generate).find(|it| it.voters == 3 && it.spares == 0).expect("some are so");
    schedule.faults.clear();
    schedule.duration_micros = 5 * SECOND;
    let settings = &mut schedule.settings;
    (settings.loss_ppm, settings.duplicate_ppm, settings.corrupt_ppm) = (0, 0, 0);
    (settings.straggler_ppm, settings.drift_ppm, settings.link_spread) = (0, 0, 1);
    (settings.delay_min_micros, settings.delay_max_micros) = (MILLI, MILLI + 100);
    (settings.sync_min_micros, settings.sync_max_micros) = (2 * MILLI, 3 * MILLI);
    (settings.heartbeat_interval_micros, settings.election_timeout_micros) = (50 * MILLI, 500 * MILLI);
    schedule
}

fn told(schedule: Schedule) -> Timeline {
    let mut outcome = Engine::Madsim.run(schedule, true);
    assert_eq!(outcome.violation, None);
    std::mem::take(outcome.trace.timeline().expect("it was told"))
}

fn arrival(message: &MessageSent) -> Option<u64> {
    match message.fate {
        Fate::Arrives(at) => Some(at),
        _ => None,
    }
}

#[test]
fn messages_are_told_from_sending_to_arrival() {
    let schedule = calm_schedule();
    let calm_until = schedule.duration_micros;
    let timeline = told(schedule);
    let began = timeline.operations[0].call;
    // What follows is the exam, which cuts a member off.
    let is_calm = |message: &&MessageSent| (began..calm_until).contains(&message.at);
    let sent: Vec<&MessageSent> = timeline.messages.iter().filter(is_calm).collect();
    assert!(sent.len() > 300, "{} messages", sent.len());
    for message in sent {
        match arrival(message) {
            Some(at) => assert!((MILLI..2 * MILLI).contains(&(at - message.at)), "{message:?}"),
            None => panic!("nothing is lost here: {message:?}"),
        }
    }
}

#[test]
fn what_a_cut_holds_back_is_told_as_late_or_lost() {
    let mut schedule = calm_schedule();
    let fault = Fault::Partition { cut: Cut::Mute(0), for_micros: 2 * SECOND };
    schedule.faults.push(Timed { at: SECOND, what: fault });
    let timeline = told(schedule);
    let (cut, mended) = (timeline.faults[0].at, timeline.faults[0].until);
    let held = |message: &&MessageSent| message.from == 0 && (cut..mended).contains(&message.at);
    let (mut late, mut lost) = (0, 0);
    for message in timeline.messages.iter().filter(held) {
        match message.fate {
            Fate::Arrives(at) => {
                assert!(at >= mended, "nothing leaves machine 0: {message:?}");
                late += 1;
            }
            fate => {
                assert_eq!(fate, Fate::Lost);
                lost += 1;
            }
        }
    }
    assert!(late > 0, "{late} late, {lost} lost");
    let others = |message: &&MessageSent| message.from != 0 && (cut..mended).contains(&message.at);
    assert!(timeline.messages.iter().filter(others).any(|message| arrival(message).is_some()));
}

#[test]
fn what_dies_with_a_connection_is_told_as_lost() {
    let mut schedule = calm_schedule();
    schedule.settings.loss_ppm = 100_000;
    schedule.settings.corrupt_ppm = 100_000;
    let timeline = told(schedule);
    let fates = |fate: Fate| timeline.messages.iter().filter(|message| message.fate == fate).count();
    assert!(fates(Fate::Lost) > 0);
    assert!(fates(Fate::Unreadable) > 0);
    assert!(timeline.messages.iter().filter(|message| arrival(message).is_some()).count() > 300);
}

#[test]
fn disks_are_told_from_begin_to_end() {
    let mut schedule = calm_schedule();
    schedule.settings.snapshot_log_entries = 10;
    let percent = snapshot_worker_percent(schedule.seed);
    let timeline = told(schedule);
    let calm = timeline.notes.iter().find(|note| note.kind == "calm").unwrap().at;
    for slot in 0..3 {
        for (kind, least) in [("write and fsync", 20), ("save snapshot", 1)] {
            let count = timeline.disk.iter().filter(|span| span.slot == slot && span.kind == kind).count();
            assert!(count >= least, "{count} times {kind} on machine {slot}");
        }
    }
    for span in &timeline.disk {
        // The snapshots' worker is slower or faster than the log's by what the seed says, and not
        // slower in the calm.
        let percent = match span.kind {
            "write and fsync" => 100,
            _ if span.at >= calm => percent.min(100),
            _ => percent,
        };
        let (least, most) = (2 * MILLI * percent / 100, 3 * MILLI * percent / 100);
        assert!((least..=most).contains(&(span.until - span.at)), "{span:?}, {percent} %");
    }
    let entries = |kind: &str| timeline.disk.iter().filter(|span| span.text.contains(kind)).count();
    assert!(entries("set key") > 0, "what is written is spelled out");
}

#[test]
fn links_are_of_different_speed() {
    let mut schedule = calm_schedule();
    schedule.settings.link_spread = 20;
    let timeline = told(schedule);
    let mut fastest: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let calm = timeline.notes.iter().find(|note| note.kind == "calm").unwrap().at;
    for message in timeline.messages.iter().filter(|message| message.at < calm) {
        if let Some(at) = arrival(message) {
            let took = at - message.at;
            fastest
                .entry((message.from, message.to))
                .and_modify(|least| *least = took.min(*least))
                .or_insert(took);
        }
    }
    let slowest = fastest.values().max().unwrap();
    assert!(*slowest > 3 * fastest.values().min().unwrap(), "{fastest:?}");
    assert!(*slowest < 22 * MILLI, "{fastest:?}");
}
