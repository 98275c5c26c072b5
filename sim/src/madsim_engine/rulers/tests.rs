//! What each ruler refuses.

use super::{
    At, AtMost, Between, Judged, LABELLED, METRICS, Port, Ruler, Same, StoreFigures, ZeroUnless,
    all_are_named, leaves, metrics_are_ruled, ports_are_right, status_is_ruled,
};
use crate::madsim_engine::glance::{Glance, Inspection};
use crate::madsim_engine::http::Answer;
use crate::madsim_engine::metrics::Metrics;
use crate::madsim_engine::world::{Done, Shared, View};
use crate::schedule::Schedule;
use bytes::Bytes;
use infinitystore::raft::LogIndex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const APPLIED: LogIndex = LogIndex::new(7);

/// Machine 0 when it had failed to write so many snapshots.
fn glance(failed: u64) -> Glance {
    Glance {
        process: (0, 0),
        member: Some(1),
        view: View::default(),
        done: Done { failed, ..Done::default() },
        syncs: 0,
        clock: 0,
        traffic: Default::default(),
        turned_away: 0,
        without_room: 0,
        at: 0,
        started_at: 0,
        spoken_to: 0,
        is_withdrawn: false,
        oldest_answer: None,
        scrub: None,
        certificates: [None, None],
        arrived: BTreeMap::new(),
    }
}

/// Whether a figure between two statuses is refused.
fn refuses(ruler: Ruler, found: u64, (first, second): (&Value, &Value)) -> bool {
    let shared = Shared::new(Schedule::generate(1), false);
    let mut world = shared.lock();
    world.stores.insert(APPLIED, StoreFigures { keys: 5, ..StoreFigures::default() });
    let (before, after) = (glance(3), glance(4));
    let frame = Some((first, second));
    let judged = Judged { world: &world, before: &before, after: &after, frame, applied: APPLIED };
    judged.hold("a figure", found, ruler).is_err()
}

#[test]
fn each_kind_of_ruler_refuses_what_is_wrong() {
    let (first, second) = (json!({ "keys": 5, "why": null }), json!({ "keys": 6, "why": "full" }));
    let wrong = |ruler, found| refuses(ruler, found, (&first, &second));
    for (ruler, good, bad) in [
        (Same("/keys"), 5, 4),
        (Same("/keys"), 6, 7),
        (Same("/why"), 1, 2),
        (At(|store| store.keys), 5, 6),
        (Between(|done| done.failed), 3, 2),
        (Between(|done| done.failed), 4, 5),
        (AtMost(|_, _| 9), 9, 10),
        (ZeroUnless(|_, _| false), 0, 1),
    ] {
        assert!(!wrong(ruler, good), "{ruler:?} refuses {good}");
        assert!(wrong(ruler, bad), "{ruler:?} takes {bad}");
    }
    assert!(!wrong(ZeroUnless(|_, _| true), 1));
}

/// All metrics but one are 0, and that one, if it is named, is something else.
fn scrape(different: &str, value: u64) -> Metrics {
    let names = METRICS.iter().map(|(name, _)| *name).filter(|name| !LABELLED.contains(name));
    let line = |name: &str| {
        let value = if name == different { value } else { 0 };
        format!("# TYPE infinitystore_{name} gauge\ninfinitystore_{name} {value}\n")
    };
    let text: String = names.map(line).collect();
    Metrics::parse(&format!("{text}# EOF\n")).unwrap()
}

#[test]
fn a_metric_without_a_rule_is_refused_and_so_is_a_rule_without_a_metric() {
    let mut metrics = scrape("", 0);
    all_are_named(&metrics).unwrap();
    metrics.families.push("new_thing".to_owned());
    all_are_named(&metrics).unwrap_err();
    let mut metrics = scrape("", 0);
    metrics.families.retain(|name| name != "leases");
    all_are_named(&metrics).unwrap_err();
}

fn judge(metrics: Metrics) -> Result<(), String> {
    let status = json!({ "applied_index": 0, "term": 0, "members": [], "leases": 0, "tls": {} });
    let ready = Answer { code: 200, headers: Vec::new(), body: Bytes::new() };
    let told = Inspection { first: status.clone(), metrics, ready, second: status };
    let shared = Shared::new(Schedule::generate(1), false);
    let world = shared.lock();
    metrics_are_ruled(&world, &glance(0), &told, &glance(0))
}

#[test]
fn a_scrape_that_differs_from_the_statuses_around_it_is_refused() {
    judge(scrape("", 0)).unwrap();
    for name in ["leases", "compacted_revision", "alarms", "http_requests_refused", "snapshots_repeated"] {
        judge(scrape(name, 1)).expect_err(name);
    }
}

#[test]
fn a_port_is_counted_as_the_status_has_it() {
    let status = json!({ "tls": { "peer": { "trouble": "bad", "expires_in_seconds": -5 }, "client": null } });
    let line = |family: &str, port: &str, value: i64| {
        let name = format!("infinitystore_{family}");
        Metrics::parse(&format!("# TYPE {name} gauge\n{name}{{port=\"{port}\"}} {value}\n# EOF\n")).unwrap()
    };
    let hold = |family: &str, port: &str, value: i64, field: &str| {
        ports_are_right(&line(family, port, value), family, field, (&status, &status))
    };
    hold("certificate_trouble", "peer", 1, "trouble").unwrap();
    hold("certificate_trouble", "peer", 0, "trouble").unwrap_err();
    hold("certificate_expires_seconds", "peer", -5, "expires_in_seconds").unwrap();
    hold("certificate_expires_seconds", "peer", 5, "expires_in_seconds").unwrap_err();
    hold("certificate_trouble", "client", 1, "trouble").unwrap_err();
    assert!(METRICS.iter().any(|(_, rulers)| rulers.iter().any(|ruler| matches!(ruler, Port(_)))));
}

#[test]
fn a_field_without_a_rule_is_refused() {
    let shared = Shared::new(Schedule::generate(1), false);
    let world = shared.lock();
    let judge = |status: &Value| status_is_ruled(&world, &glance(0), status, &glance(0));
    judge(&json!({ "term": 1, "leader": null, "tls": { "peer": null }, "members": [{ "id": 1 }] })).unwrap();
    judge(&json!({ "term": 1, "mood": "good" })).unwrap_err();
    judge(&json!({ "members": [{ "id": 1, "mood": "good" }] })).unwrap_err();
    judge(&json!({ "disk": { "repairs": 1 } })).unwrap_err();
}

#[test]
fn fields_are_found_by_their_paths() {
    let status = json!({ "a": { "b": 1 }, "members": [{ "c": [1, 2] }] });
    let mut found = Vec::new();
    leaves(&status, &mut String::new(), &mut found);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/a/b", "/members/*/c"]);
}
