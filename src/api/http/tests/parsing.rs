//! What requests mean, and what is refused.

use crate::api::http::control::Phase;
use crate::api::http::crowd::Crowd;
use crate::api::http::options::HttpOptions;
use crate::api::http::query::{QueryError, parameter};
use crate::api::http::server::overdue;
use crate::api::http::set::{BadSet, parse};
use crate::api::http::{get, join};
use crate::codec::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX};
use crate::kv::{KEY_BYTES_MAX, Op, VALUE_BYTES_MAX};
use crate::replica::Level;
use bytes::Bytes;
use proptest::prelude::*;

fn set_op(key: &str, value: &str) -> Op {
    Op::set(Bytes::from(key.to_owned()), Bytes::from(value.to_owned()))
}

#[test]
fn a_good_body_makes_a_command() {
    for (body, op) in [
        // As the original's page sends it.
        (r#"{"key":"foo", "value":"bar","action":"set"}"#, set_op("foo", "bar")),
        (r#"{"key":"foo", "value":"bar","action":"delete"}"#, Op::delete(Bytes::from("foo"))),
        (r#"{"key":"foo","action":"delete"}"#, Op::delete(Bytes::from("foo"))),
        (r#"{"key":"foo","value":null,"action":"delete"}"#, Op::delete(Bytes::from("foo"))),
        (r#"{"action":"set","value":"","key":" "}"#, set_op(" ", "")),
        ("\n\t {\"key\":\"k\",\"value\":\"v\",\"action\":\"set\"} \r\n", set_op("k", "v")),
        (r#"{"key":"k","value":"v","action":"set","more":[1,{"x":null}]}"#, set_op("k", "v")),
        (
            r#"{"key":"\"\\\/\b\f\n\r\t","value":"\u0000\u001f","action":"set"}"#,
            set_op("\"\\/\u{8}\u{c}\n\r\t", "\0\u{1f}"),
        ),
        (r#"{"key":"\u20ac","value":"\ud83d\ude00 €😀","action":"set"}"#, set_op("€", "😀 €😀")),
        (r#"{"\u006bey":"k","value":"v","action":"\u0073et"}"#, set_op("k", "v")),
        (r#"{"KEY":"k","Value":"v","acTion":"set","keys":"x","ke":"y"}"#, set_op("k", "v")),
        ("{\"\u{212a}EY\":\"k\",\"value\":\"v\",\"action\":\"set\"}", set_op("k", "v")),
    ] {
        assert_eq!(parse(&Bytes::from(body)), Ok(op), "{body}");
    }
}

#[test]
fn a_bad_body_is_refused_before_anything_is_logged() {
    for body in [
        "",
        " ",
        "null",
        "not JSON",
        "\"foo\"",
        r#"["foo","bar","set"]"#,
        r#"{"key":"foo","value":"bar","action":"set""#,
        r#"{"key":"foo","value":"bar","action":"set"} {}"#,
        r#"{"key":"foo" "value":"bar","action":"set"}"#,
        r#"{"value":"bar","action":"set"}"#,
        r#"{"key":"","value":"bar","action":"set"}"#,
        r#"{"key":"foo","Key":"foo","value":"bar","action":"set"}"#,
        r#"{"key":null,"Key":"foo","value":"bar","action":"set"}"#,
        r#"{"key":null,"value":"bar","action":"set"}"#,
        r#"{"key":7,"value":"bar","action":"set"}"#,
        r#"{"key":["foo"],"value":"bar","action":"set"}"#,
        r#"{"key":"foo","action":"set"}"#,
        r#"{"key":"foo","value":null,"action":"set"}"#,
        r#"{"key":"foo","value":7,"action":"set"}"#,
        r#"{"key":"foo","value":7,"action":"delete"}"#,
        r#"{"key":"foo","value":"bar"}"#,
        r#"{"key":"foo","value":"bar","action":""}"#,
        r#"{"key":"foo","value":"bar","action":"SET"}"#,
        r#"{"key":"foo","value":"bar","action":"increment"}"#,
        r#"{"key":"foo","key":"bar","value":"","action":"set"}"#,
        r#"{"key":"\ud800","value":"half a surrogate pair","action":"set"}"#,
    ] {
        assert!(matches!(parse(&Bytes::from(body)), Err(BadSet::Invalid(_))), "{body}");
    }
    assert!(matches!(
        parse(&Bytes::from_static(b"{\"key\":\"\xff\",\"action\":\"delete\"}")),
        Err(BadSet::Invalid(_))
    ));
}

#[test]
fn keys_and_values_have_limits_of_their_own() {
    let body = |key: usize, value: usize| {
        Bytes::from(format!(
            r#"{{"key":"{}","value":"{}","action":"set"}}"#,
            "k".repeat(key),
            "v".repeat(value)
        ))
    };
    assert!(parse(&body(KEY_BYTES_MAX, VALUE_BYTES_MAX)).is_ok());
    assert!(matches!(parse(&body(KEY_BYTES_MAX + 1, 1)), Err(BadSet::TooLarge(_))));
    assert!(matches!(parse(&body(1, VALUE_BYTES_MAX + 1)), Err(BadSet::TooLarge(_))));
    let largest = body(KEY_BYTES_MAX, VALUE_BYTES_MAX).len() * 6;
    assert!(
        largest.abs_diff(HttpOptions::default().body_bytes_max) < 2048,
        "the largest command fits, fully escaped"
    );
}

#[test]
fn a_parameter_is_decoded_as_a_form_is() {
    for (query, expected) in [
        ("key=foo", Some(Ok("foo"))),
        ("", None),
        ("kei=foo", None),
        ("key", Some(Ok(""))),
        ("key=", Some(Ok(""))),
        ("a=b&key=1&key=2", Some(Ok("1"))),
        ("k%65y=x", Some(Ok("x"))),
        ("key=a+b%20c%2B", Some(Ok("a b c+"))),
        ("key=%E2%82%AC%f0%9f%98%80", Some(Ok("€😀"))),
        ("key=a=b", Some(Ok("a=b"))),
        ("key=%00", Some(Ok("\0"))),
        ("key=%", Some(Err(QueryError::Encoding))),
        ("key=%4", Some(Err(QueryError::Encoding))),
        ("key=%4x", Some(Err(QueryError::Encoding))),
        ("key=%+1", Some(Err(QueryError::Encoding))),
        ("key=%ff", Some(Err(QueryError::Utf8))),
        ("%zz=1&key=v", Some(Ok("v"))),
    ] {
        let found = parameter(query, "key");
        assert_eq!(
            found.as_ref().map(|found| found.as_deref()),
            expected.as_ref().map(|e| e.as_deref()),
            "{query}"
        );
    }
}

#[test]
fn a_read_names_a_key_and_a_level() {
    for (query, key, level) in [
        ("key=foo", "foo", Level::Linearizable),
        ("key=foo&level=local", "foo", Level::Local),
        ("level=linearizable&key=f%26o", "f&o", Level::Linearizable),
    ] {
        let parsed = get::parse(query).expect("a good query");
        assert_eq!((&*parsed.key, parsed.level), (key, level), "{query}");
    }
    for (query, body) in [
        ("", "\"Missing Key\"\n"),
        ("key=", "\"Missing Key\"\n"),
        ("Key=foo", "\"Missing Key\"\n"),
        ("key=%f", "\"key is not percent-encoded correctly\"\n"),
        ("key=%ff", "\"key is not UTF-8\"\n"),
        ("key=foo&level=", "\"level is neither linearizable nor local\"\n"),
        ("key=foo&level=eventual", "\"level is neither linearizable nor local\"\n"),
        ("key=foo&level=%", "\"level is not percent-encoded correctly\"\n"),
    ] {
        let answer = get::parse(query).expect_err("a bad query");
        assert_eq!((answer.status.as_u16(), &*answer.body), (400, body.as_bytes()), "{query}");
    }
    assert!(get::parse(&format!("key={}", "k".repeat(KEY_BYTES_MAX))).is_ok());
    assert!(get::parse(&format!("key={}", "k".repeat(KEY_BYTES_MAX + 1))).is_err());
}

#[test]
fn a_join_names_a_node_and_its_address() {
    for (query, name, addr) in [
        ("nodeid=node-2&nodeaddr=localhost:8010", "node-2", "localhost:8010"),
        ("nodeaddr=%5B::1%5D%3A8010&nodeid=n", "n", "[::1]:8010"),
    ] {
        assert_eq!(join::parse(query), Ok((name.to_owned(), addr.to_owned())), "{query}");
    }
    for (query, says) in [
        ("", "nodeid is missing"),
        ("nodeid=n", "nodeaddr is missing"),
        ("nodeid=&nodeaddr=h:1", "nodeid is empty"),
        ("nodeid=n&nodeaddr=", "nodeaddr is empty"),
        ("nodeid=a+b&nodeaddr=h:1", "nodeid has blanks"),
        ("nodeid=n&nodeaddr=h", "not host:port"),
        ("nodeid=n&nodeaddr=:80", "not host:port"),
        ("nodeid=n&nodeaddr=h:0", "not host:port"),
        ("nodeid=n&nodeaddr=h:65536", "not host:port"),
        ("nodeid=%ff&nodeaddr=h:1", "nodeid is not UTF-8"),
    ] {
        let error = join::parse(query).expect_err("a bad query");
        assert!(error.contains(says), "{query}: {error}");
    }
    let (name, addr) = ("n".repeat(NAME_BYTES_MAX), format!("{}:1", "h".repeat(ADDRESS_BYTES_MAX - 2)));
    assert!(join::parse(&format!("nodeid={name}&nodeaddr={addr}")).is_ok());
    assert!(join::parse(&format!("nodeid=n{name}&nodeaddr={addr}")).is_err(), "the name is too long");
    assert!(join::parse(&format!("nodeid={name}&nodeaddr=h{addr}")).is_err(), "the address is too long");
}

#[test]
fn a_connection_is_overdue_by_what_it_waits_for() {
    let options = HttpOptions {
        header_timeout_seconds: 10,
        idle_timeout_seconds: 90,
        write_timeout_seconds: 30,
        ..HttpOptions::default()
    };
    let calm = Crowd { crowded: false, is_known: false };
    for (phase, seconds, is_overdue) in [
        (Phase::Idle, 90, false),
        (Phase::Idle, 91, true),
        (Phase::Head, 10, false),
        (Phase::Head, 11, true),
        (Phase::Answering, 1_000_000, false),
        (Phase::Sending, 35, false),
        (Phase::Sending, 36, true),
    ] {
        assert_eq!(overdue(&options, phase, seconds, 5, calm), is_overdue, "{phase:?} for {seconds} s");
    }
    let crowded = |is_known| Crowd { crowded: true, is_known };
    for is_known in [false, true] {
        let is_overdue = |seconds| overdue(&options, Phase::Idle, seconds, 0, crowded(is_known));
        assert_eq!([9, 10].map(is_overdue), [false, true]);
    }
    // A stranger has to take an answer, and to send a body, in a tenth of the time.
    let is_overdue = |seconds, is_known| overdue(&options, Phase::Sending, seconds, 5, crowded(is_known));
    assert_eq!([8, 9].map(|seconds| is_overdue(seconds, false)), [false, true]);
    assert_eq!([9, 35, 36].map(|seconds| is_overdue(seconds, true)), [false, false, true]);
    assert_eq!([false, true].map(|is_known| crowded(is_known).part_of(30)), [3, 30]);
}

proptest! {
    #[test]
    fn any_utf8_survives_the_body_however_it_is_escaped(
        key in "\\PC{1,40}|.{1,40}", value in ".{0,80}", ascii_only in any::<bool>(),
    ) {
        let mut json = serde_json::json!({"key": key, "value": value, "action": "set"}).to_string();
        if ascii_only {
            json = json.chars().map(|c| if c.is_ascii() {
                c.to_string()
            } else {
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }).collect();
        }
        prop_assert_eq!(parse(&Bytes::from(json)), Ok(set_op(&key, &value)));
    }

    #[test]
    fn any_utf8_survives_the_query(key in ".{1,40}") {
        let encoded: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let query = format!("key={encoded}");
        prop_assert_eq!(&*get::parse(&query).expect("it is encoded correctly").key, &*key);
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        let _ = parse(&Bytes::from(bytes));
        let _ = get::parse(&text);
        let _ = join::parse(&text);
    }
}
