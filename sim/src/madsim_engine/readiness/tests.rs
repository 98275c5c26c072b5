//! What `/readyz` says wrongly is refused.

use super::{CHECKS, may_be, read};
use crate::madsim_engine::glance::{Glance, Inspection};
use crate::madsim_engine::http::Answer;
use crate::madsim_engine::metrics::Metrics;
use crate::madsim_engine::world::{Done, Shared, View};
use crate::schedule::Schedule;
use bytes::Bytes;
use infinitystore::raft::{LogId, LogIndex, NodeId, Term};
use serde_json::json;
use std::collections::BTreeMap;

fn glance(is_withdrawn: bool, view: View, done: Done) -> Glance {
    Glance {
        process: (0, 0),
        member: Some(1),
        view,
        done,
        syncs: 0,
        clock: 0,
        traffic: Default::default(),
        turned_away: 0,
        without_room: 0,
        at: 0,
        started_at: 0,
        spoken_to: 0,
        is_withdrawn,
        oldest_answer: None,
        scrub: None,
        certificates: [None, None],
        arrived: BTreeMap::new(),
    }
}

/// Whether a check may hold, and whether it may not, on a machine that is always the same.
fn of(check: &str, stopped: Option<&str>, glance: &Glance) -> (bool, bool) {
    let ready = Answer { code: 200, headers: Vec::new(), body: Bytes::new() };
    let status = json!({ "stopped": stopped });
    let told = Inspection { first: status.clone(), metrics: Metrics::default(), ready, second: status };
    let shared = Shared::new(Schedule::generate(1), false);
    let world = shared.lock();
    may_be(&world, glance, &told, glance, check)
}

#[test]
fn a_check_that_cannot_hold_must_not() {
    let idle = glance(false, View::default(), Done::default());
    assert!(!of("storage", Some("the disk has failed"), &idle).0);
    assert!(!of("trusted", None, &glance(true, View::default(), Done::default())).0);
    assert!(
        !of("disk-room", None, &glance(false, View::default(), Done { is_full: true, ..Done::default() })).0
    );
    for check in ["member", "started", "leader"] {
        assert_eq!(of(check, None, &idle), (false, true), "{check}");
    }
    let behind = View { commit: LogIndex::new(20_000), ..View::default() };
    assert_eq!(of("caught-up", None, &glance(false, behind, Done::default())), (false, true));
}

#[test]
fn a_check_that_holds_must() {
    let last_applied = LogId::new(Term::new(1), LogIndex::new(9));
    let commit = LogIndex::new(12);
    let leader = Some(NodeId::new(2));
    let view = View { has_started: true, leader, commit, last_applied, ..View::default() };
    let sound = glance(false, view, Done::default());
    for check in ["trusted", "disk-room", "started", "leader", "caught-up"] {
        assert_eq!(of(check, None, &sound), (true, false), "{check}");
    }
}

#[test]
fn every_check_is_told() {
    let all: String = CHECKS.iter().map(|check| format!("[+] {check} ok\n")).collect();
    assert!(read(&format!("{all}ok\n")).unwrap().values().all(|holds| *holds));
    let bad = all.replace("[+] leader ok", "[-] leader: no leader is known");
    assert_eq!(read(&format!("{bad}not ready\n")).unwrap().values().filter(|holds| !**holds).count(), 1);
    read(&all.replace("[+] trusted ok\n", "")).unwrap_err();
    read(&format!("{all}[+] luck ok\n")).unwrap_err();
    read(&format!("{all}perhaps\n")).unwrap_err();
}
