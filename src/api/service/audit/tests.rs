use crate::api::service::audit::refusals::{INTERVAL_MICROS, LINES_EACH, LeftOut, Refusals, STRANGERS_LINES};
use crate::api::service::audit::{AuditLog, AuditSink, Deed, rfc3339};
use crate::api::service::error::{ErrorCode, ServiceError};
use crate::api::service::identity::Identity;
use crate::kv::{KeyRange, Op, Principal, Subject, Txn, TxnOp};
use crate::raft::Time;
use crate::replica::ClientRequest;
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

fn stranger(address: &str) -> Identity {
    Identity { address: format!("{address}:1"), ..Identity::default() }
}

fn user(id: u64) -> Identity {
    let by = Some(Principal { subject: Subject::User(id), as_of: 9 });
    Identity { by, user: Some(format!("user-{id}")), ..stranger("10.0.0.9") }
}

#[test]
fn times_are_written_as_rfc_3339_has_them() {
    let at = |seconds: u64| rfc3339(seconds * 1_000_000 + 5);
    assert_eq!(at(0), "1970-01-01T00:00:00.000005Z");
    assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000005Z");
    assert_eq!(at(1_795_764_000), "2026-11-27T07:20:00.000005Z");
    assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000005Z");
    assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000005Z");
}

#[test]
fn one_caller_has_a_few_lines_and_strangers_have_some_together() {
    let (mut refusals, now) = (Refusals::default(), Time::new(5));
    let mut admitted = |who: &Identity| (0..50).map(|_| u32::from(refusals.admits(now, who))).sum::<u32>();
    assert_eq!(admitted(&stranger("10.0.0.1")), LINES_EACH);
    let more: u32 = (2..100).map(|host| admitted(&stranger(&format!("10.0.0.{host}")))).sum();
    assert_eq!(more + LINES_EACH, STRANGERS_LINES);
    // A principal has lines of its own.
    assert_eq!((admitted(&user(1)), admitted(&user(2))), (LINES_EACH, LINES_EACH));
    assert_eq!(refusals.end(Some(now.plus(INTERVAL_MICROS - 1))), None);
    let left_out = refusals.end(Some(now.plus(INTERVAL_MICROS))).unwrap();
    let count = 101 * 50 - u64::from(STRANGERS_LINES + 2 * LINES_EACH);
    assert_eq!(left_out.count, count);
    assert_eq!(left_out.by.first().map(String::as_str), Some("10.0.0.1"));
    assert!(left_out.by.len() < 20, "{left_out:?}");
    assert!(refusals.admits(now, &stranger("10.0.0.1")), "another interval");
    assert_eq!(refusals.end(None), None, "nothing was left out");
}

#[test]
fn who_was_left_out_is_named() {
    let (mut refusals, now) = (Refusals::default(), Time::new(5));
    for _ in 0..=LINES_EACH {
        refusals.admits(now, &user(1));
        refusals.admits(now, &stranger("10.0.0.1"));
    }
    let by = vec!["user-1".to_owned(), "10.0.0.1".to_owned()];
    assert_eq!(refusals.end(None), Some(LeftOut { count: 2, by }));
}

/// Keeps the lines, and writes only when it may.
struct Slow(Arc<Mutex<Vec<u8>>>, mpsc::Receiver<()>);

impl AuditSink for Slow {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let _ = self.1.recv();
        self.0.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }
}

#[tokio::test]
async fn strangers_do_not_push_out_what_others_did() {
    let env = TokioEnv::new(MemoryDisk::new());
    let (kept, (release, may_write)) = (Arc::<Mutex<Vec<u8>>>::default(), mpsc::channel());
    drop(release);
    let log = AuditLog::start(&env, Box::new(Slow(kept.clone(), may_write))).unwrap();
    let error = ServiceError::new(ErrorCode::Unauthenticated, "wrong");
    let overloaded = ServiceError::new(ErrorCode::Overloaded, "too many");
    log.note(&env, &user(1), Deed::admin("enable", None), Ok(Some(1)));
    for number in 0..5_000 {
        let who = stranger(&format!("10.0.{}.{}", number % 7, number % 200));
        log.note_refused(&env, &who, if number % 2 == 0 { &error } else { &overloaded });
        log.note(&env, &who, Deed::admin("join", None), Err(&error));
    }
    log.note(&env, &user(1), Deed::admin("disable", None), Ok(Some(2)));
    AuditLog::kept_by(Some(log), &env, async {}).await;
    let kept = String::from_utf8(kept.lock().unwrap().clone()).unwrap();
    assert!(kept.contains("enable") && kept.contains("disable"), "{kept}");
    let lines = kept.lines().count();
    // A slow machine may take more than an interval for it.
    assert!(lines < 1_000, "{lines} lines");
    let last: serde_json::Value = serde_json::from_str(kept.lines().last().unwrap()).unwrap();
    assert!(last["left_out"].as_u64().is_some_and(|count| count > 0), "{last}");
}

#[tokio::test]
async fn however_a_node_ends_its_last_lines_are_written() {
    let env = TokioEnv::new(MemoryDisk::new());
    let (kept, (release, may_write)) = (Arc::<Mutex<Vec<u8>>>::default(), mpsc::channel());
    let log = AuditLog::start(&env, Box::new(Slow(kept.clone(), may_write))).unwrap();
    let node = {
        let (env, log) = (env.clone(), log.clone());
        async move {
            log.note(&env, &user(1), Deed::admin("remove", None), Ok(Some(1)));
            Err::<(), &str>("the disk failed")
        }
    };
    let mut ended = pin!(AuditLog::kept_by(Some(log), &env, node));
    let is_pending = poll_fn(|cx| Poll::Ready(ended.as_mut().poll(cx).is_pending())).await;
    assert!(is_pending, "the line is not written yet");
    release.send(()).unwrap();
    assert_eq!(ended.await, Err("the disk failed"));
    assert!(String::from_utf8_lossy(&kept.lock().unwrap()).contains("remove"));
}

/// Keeps the lines.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl AuditSink for Kept {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(lines);
        Ok(())
    }
}

/// A user who may write a little must not fill the files with a few long lines.
#[tokio::test]
async fn a_line_is_short_whatever_the_keys_are() {
    let env = TokioEnv::new(MemoryDisk::new());
    let kept = Kept::default();
    let log = AuditLog::start(&env, Box::new(kept.clone())).unwrap();
    let range = |byte: u8| KeyRange { start: vec![byte; 1024].into(), end: Some(vec![byte; 1025].into()) };
    for byte in [0, b'a', b'"', 0xff] {
        let success = (0..64).map(|_| TxnOp::Delete(range(byte))).collect();
        let request = ClientRequest::write(Op::Txn(Box::new(Txn { success, ..Txn::default() })));
        log.note(&env, &user(1), Deed::of(&request), Ok(Some(1)));
    }
    AuditLog::kept_by(Some(log), &env, async {}).await;
    let lines = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    assert_eq!(lines.lines().count(), 4);
    for line in lines.lines() {
        assert!(line.len() <= 4 << 10, "{} bytes", line.len());
        let written: serde_json::Value = serde_json::from_str(line).unwrap();
        let ranges = written["ranges"].as_array().unwrap();
        assert!(ranges.len() >= 2 && ranges[0].is_object(), "{line}");
        assert_eq!(ranges.last(), Some(&"…".into()), "it says that there are more");
    }
}

/// As many lines as may wait, and an order behind them.
#[tokio::test]
async fn deeds_with_keys_leave_room_for_what_is_done_with_the_cluster() {
    let env = TokioEnv::new(MemoryDisk::new());
    let (kept, (release, may_write)) = (Arc::<Mutex<Vec<u8>>>::default(), mpsc::channel());
    let log = AuditLog::start(&env, Box::new(Slow(kept.clone(), may_write))).unwrap();
    let put = ClientRequest::write(Op::set("k".repeat(1000), "v"));
    while log.lost() == 0 {
        log.note(&env, &user(1), Deed::of(&put), Ok(Some(1)));
    }
    let error = ServiceError::new(ErrorCode::Forbidden, "it may not");
    for _ in 0..LINES_EACH {
        log.note(&env, &user(2), Deed::admin("remove", None), Err(&error));
    }
    let lost = log.lost();
    assert!(lost > 1, "what was refused is no deed");
    for _ in 0..1_000 {
        log.note(&env, &user(3), Deed::admin("enable", None), Ok(Some(2)));
    }
    assert_eq!(log.lost(), lost);
    drop(release);
    AuditLog::kept_by(Some(log), &env, async {}).await;
    let lines = String::from_utf8(kept.lock().unwrap().clone()).unwrap();
    assert_eq!(lines.matches("\"enable\"").count(), 1_000);
}
