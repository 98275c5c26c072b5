//! What requests to `/v1` mean: the parsers alone.

use crate::api::http::route::{Parameter, ParameterKind};
use crate::api::http::v1::conditions;
use crate::api::http::v1::cursor::Cursor;
use crate::api::http::v1::parameters::{Parameters, decode, duration_micros};
use crate::api::http::v1::txn_body;
use crate::kv::{Detail, KeyRange, Op, RangeQuery, Revision};
use bytes::Bytes;
use proptest::prelude::*;

const KNOWN: &[Parameter] = &[
    Parameter { name: "key", kind: ParameterKind::Bytes, about: "" },
    Parameter { name: "key64", kind: ParameterKind::Base64, about: "" },
    Parameter { name: "at", kind: ParameterKind::Number, about: "" },
    Parameter { name: "level", kind: ParameterKind::Level, about: "" },
    Parameter { name: "max_staleness", kind: ParameterKind::Duration, about: "" },
];

#[test]
fn times_have_units() {
    for (text, micros) in [
        ("10s", Some(10_000_000)),
        ("500ms", Some(500_000)),
        ("2m", Some(120_000_000)),
        ("7d", Some(604_800_000_000)),
        ("1h", Some(3_600_000_000)),
        ("7us", Some(7)),
        ("3", Some(3_000_000)),
        ("1.5", Some(1_500_000)),
        ("0.25s", Some(250_000)),
        ("0", Some(0)),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("+1s", None),
        ("1 s", None),
        ("1.", None),
        (".5", None),
        ("1e3", None),
        ("1w", None),
        ("0.999999999d", Some(86_399_999_913)),
        ("99999999999999h", None),
        ("0.0000000001", None),
    ] {
        assert_eq!(duration_micros(text), micros, "{text}");
    }
}

proptest! {
    #[test]
    fn every_byte_survives_the_query_and_the_path(key in prop::collection::vec(any::<u8>(), 1..40)) {
        let encoded: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
        let parameters = Parameters::parse(&format!("at=1&key={encoded}"), KNOWN).expect("it is encoded");
        prop_assert_eq!(parameters.plain("key"), Some(Bytes::from(key.clone())));
        prop_assert_eq!(decode(&encoded, false), Some(key));
    }

    #[test]
    fn a_cursor_comes_back(
        start in prop::collection::vec(any::<u8>(), 0..20),
        end in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        resume in prop::collection::vec(any::<u8>(), 0..20),
        (at, count, limit) in (0..1u64 << 60, 0..1u64 << 60, 0..1usize << 40),
        keys_only in any::<bool>(),
    ) {
        let query = RangeQuery {
            range: KeyRange { start: start.into(), end: end.map(Bytes::from) },
            resume: Some(resume.into()),
            at: Some(Revision(at)),
            limit,
            detail: if keys_only { Detail::Keys } else { Detail::Values },
            delimiter: None,
            count: false,
        };
        let cursor = Cursor { query, count };
        prop_assert_eq!(Cursor::parse(cursor.to_text().as_bytes()), Some(cursor));
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        let _ = txn_body::parse(&bytes);
        let _ = txn_body::parse(text.as_bytes());
        let _ = Cursor::parse(&bytes);
        let _ = conditions::parse(Some(&bytes), None);
        let _ = conditions::parse(None, Some(text.as_bytes()));
        let _ = duration_micros(&text);
        let _ = decode(&text, true);
        if let Ok(parameters) = Parameters::parse(&text, KNOWN) {
            let _ = (parameters.bytes("key", "key64"), parameters.number("at"), parameters.level());
        }
    }

    #[test]
    fn no_json_makes_the_transaction_parser_panic(json in txn_like()) {
        if let Ok(txn) = txn_body::parse(json.as_bytes()) {
            let _ = Op::Txn(Box::new(txn)).check();
        }
    }
}

/// Text that is much like a transaction.
fn txn_like() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"if\"",
        "\"then\"",
        "\"else\"",
        "\"put\"",
        "\"get\"",
        "\"delete\"",
        "\"txn\"",
        "\"key\"",
        "\"key64\"",
        "\"value\"",
        "\"prefix\"",
        "\"start\"",
        "\"end\"",
        "\"version\"",
        "\"target\"",
        "\"op\"",
        "\"to\"",
        "\"=\"",
        "\"a\"",
        "\"YQ==\"",
        "1",
        "null",
        "true",
        "{\"then\":[",
        "{\"put\":{\"key\":\"a\",\"value\":\"b\"}}",
        "{\"if\":[{\"key\":\"a\",\"version\":1}]}",
        "]}",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..30).prop_map(|words| words.concat())
}
