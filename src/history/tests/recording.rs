use crate::history::tests::{assert_linearizable, got, operation, set, violation};
use crate::history::{Action, Effort, Kind, Recorder, Verdict, check};
use alloc::string::ToString;
use bytes::Bytes;

#[test]
fn records_what_clients_saw() {
    let mut recorder = Recorder::new();
    let a = recorder.call(1, "key", Action::Set("a".into()), 10);
    let b = recorder.call(2, "key", Action::Get, 11);
    let c = recorder.call(3, "key", Action::Delete, 12);
    let d = recorder.call(4, "key", Action::Set("d".into()), 13);
    recorder.call(5, "key", Action::Delete, 14);
    recorder.got_at_revision(b, 15, "a".into(), 1);
    recorder.done_at_revision(a, 16, 1);
    recorder.failed(d);
    recorder.done(c, 17);
    let mut expected = [
        operation(1, set("a"), 10, 16),
        operation(2, got("a"), 11, 15),
        operation(3, Kind::Delete, 12, 17),
        operation(5, Kind::Delete, 14, None),
    ];
    expected[0].revision = Some(1);
    expected[1].revision = Some(1);
    let operations = recorder.into_operations();
    assert_eq!(operations, expected);
    assert_linearizable(&operations);
}

#[test]
fn merged_recorders_are_one_history() {
    let (mut one, mut other) = (Recorder::new(), Recorder::new());
    let a = one.call(1, "key", Action::Set("a".into()), 0);
    one.done(a, 1);
    let b = other.call(2, "key", Action::Get, 2);
    other.got(b, 3, None);
    one.merge(other);
    let found = violation(&one.into_operations());
    assert_eq!(found.operations.len(), 2);
}

#[test]
#[should_panic(expected = "had not ended before")]
fn a_failed_operation_cannot_end_again() {
    let mut recorder = Recorder::new();
    let id = recorder.call(1, "key", Action::Delete, 0);
    recorder.failed(id);
    recorder.done(id, 1);
}

#[test]
#[should_panic(expected = "had ended before")]
fn an_operation_ends_once() {
    let mut recorder = Recorder::new();
    let id = recorder.call(1, "key", Action::Delete, 0);
    recorder.done(id, 1);
    recorder.done(id, 2);
}

#[test]
fn reports_are_readable() {
    let mut operation = operation(7, Kind::Set(Bytes::from_static(&[0xff; 50])), 1, None);
    operation.key = Bytes::from_static(b"a\n");
    operation.revision = Some(3);
    let line = operation.to_string();
    assert!(line.starts_with(r#"[1 .. ?] client 7: set "a\n" to "\xff\xff"#), "{line}");
    assert!(line.ends_with("… (50 bytes) (revision 3)"), "{line}");
    let report = check(&[operation], Effort::default());
    assert_eq!(report.to_string(), "1 operations on 1 keys, 0 steps: linearizable");
    let report = crate::history::Report { verdict: Verdict::Inconclusive { key: "k".into() }, ..report };
    assert_eq!(report.to_string(), "1 operations on 1 keys, 0 steps: inconclusive: gave up on key \"k\"");
}
