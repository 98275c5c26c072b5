//! A panic in a run is a violation of that run, with a page, and the end of nothing else.

use sim::report::{Subject, page};
use sim::run::engine::Engine;
use sim::schedule::{Fault, SECOND, Schedule, Timed};

/// Schedules with which a run panics, as a failed assertion of the product would have it: in the
/// task that carries the schedule out (no machine has that number), and in a machine's own (no
/// delay of its disk is possible).
fn panicking(seed: u64) -> [Schedule; 2] {
    let (mut nowhere, mut no_delay) = (Schedule::generate(seed), Schedule::generate(seed));
    // In the middle of everything: connections are open, and their ends are dropped with the tasks
    // that hold them.
    let (at, what) = (5 * SECOND, Fault::Kill { slot: 99, back_micros: 0 });
    nowhere.faults.retain(|fault| fault.at < at);
    nowhere.faults.push(Timed { at, what });
    no_delay.settings.sync_min_micros = no_delay.settings.sync_max_micros + 1;
    [nowhere, no_delay]
}

#[test]
fn a_panic_is_a_violation_with_a_page() {
    for engine in [Engine::Queue, Engine::Madsim] {
        for (number, schedule) in panicking(7).into_iter().enumerate() {
            let mut outcome = engine.run(schedule.clone(), true);
            let violation = outcome.violation.clone().expect("it panicked");
            assert_eq!(violation.check, "an assertion of the product", "{engine} {number}");
            let timeline = outcome.trace.timeline().expect("it was told");
            assert!(!timeline.notes.is_empty(), "{engine} {number}: what came before is told");
            assert!(outcome.at < 60_000_000, "{engine} {number}: at {} µs", outcome.at);
            let subject = Subject { engine, schedule: &schedule, name: "7".to_owned() };
            let page = page(&subject, &mut outcome);
            assert!(page.contains("an assertion of the product"), "{engine} {number}");
        }
    }
}

#[test]
fn the_machine_that_panics_is_marked() {
    let [_, schedule] = panicking(7);
    let mut outcome = Engine::Madsim.run(schedule, true);
    let (end, timeline) = (outcome.at, outcome.trace.timeline().expect("it was told"));
    let marks: Vec<_> = timeline.notes.iter().filter(|note| note.kind == "assertion failed").collect();
    assert!(matches!(marks[..], [note] if note.slot.is_some() && note.at == end), "{marks:?}");
}

#[test]
fn a_campaign_counts_a_panic_and_goes_on() {
    for engine in [Engine::Queue, Engine::Madsim] {
        for schedule in panicking(3) {
            let watched = engine.run(schedule.clone(), true);
            let outcome = engine.run(schedule, false);
            assert_eq!((outcome.violation, outcome.at), (watched.violation, watched.at));
        }
        assert_eq!(engine.run(Schedule::generate(3), false).violation, None, "{engine}");
    }
}
