use super::{Said, forms_of_key, forms_of_range, is_head_of, lasts, set_level};
use crate::madsim_engine::http::{Answer, Request};
use crate::madsim_engine::reflections::{Row, Scan, is_as, replay};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn answer(headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Answer { code: 200, headers: headers.collect(), body: body.to_owned().into() }
}

#[test]
fn answers_of_two_nodes_are_compared_without_what_is_their_own() {
    let one = answer(&[("infinitystore-served-by", "a"), ("etag", "\"1\"")], "{\"left\":3,\"id\":1}");
    let other = answer(&[("etag", "\"1\""), ("infinitystore-served-by", "b")], "{\"left\":2,\"id\":1}");
    let same = |one: &Answer, other: &Answer, is_passing| {
        Said::of(one, is_passing).is_as(&Said::of(other, is_passing))
    };
    assert_eq!(same(&one, &other, true), Ok(()));
    assert!(same(&one, &other, false).is_err(), "the time that is left");
    assert!(same(&one, &answer(&[("etag", "\"2\"")], "{\"left\":3,\"id\":1}"), true).is_err(), "a header");
    assert!(same(&one, &answer(&[("etag", "\"1\"")], "{\"left\":3,\"id\":2}"), true).is_err(), "a field");
    let missing = Answer { code: 404, ..one.clone() };
    assert!(same(&one, &missing, true).is_err(), "the code");
}

#[test]
fn a_head_has_the_headers_of_the_answer_and_no_body() {
    let get = answer(&[("content-length", "1"), ("infinitystore-age-ms", "3")], "a");
    let head = answer(&[("content-length", "1"), ("infinitystore-age-ms", "4")], "");
    assert_eq!(is_head_of(&head, &get), Ok(()));
    assert!(is_head_of(&answer(&[("content-length", "0")], ""), &get).is_err(), "the length of nothing");
    assert!(is_head_of(&get, &get).is_err(), "a body");
}

#[test]
fn what_a_restart_forgets_is_seen() {
    let member = json!({ "id": 1, "name": "a", "standing": "voter", "match_index": 3 });
    let before = json!({ "term": 2, "revision": 7, "disk": { "alarms": 1 }, "members": [member] });
    let mut after = before.clone();
    after["term"] = json!(3);
    after["members"][0]["match_index"] = Value::Null;
    assert_eq!(lasts(&before, &after), Ok(()));
    for (path, value) in [
        ("/revision", json!(6)),
        ("/disk/alarms", json!(2)),
        ("/term", json!(1)),
        ("/members/0/standing", json!("learner")),
    ] {
        let mut wrong = after.clone();
        *wrong.pointer_mut(path).unwrap() = value;
        assert!(lasts(&before, &wrong).is_err(), "{path}");
    }
}

#[test]
fn pages_that_do_not_make_the_whole_are_seen() {
    let row = |key: &str| Row { key: key.into(), told: json!({ "key": key }) };
    let whole = Scan { rows: vec![row("a"), row("b")], prefixes: vec![json!("c/")], count: 3 };
    assert_eq!(is_as(&whole, &whole), Ok(()));
    for wrong in [
        Scan { rows: vec![row("a")], ..whole.clone() },
        Scan { rows: vec![row("a"), row("a")], ..whole.clone() },
        Scan { prefixes: Vec::new(), ..whole.clone() },
        Scan { count: 2, ..whole.clone() },
    ] {
        assert!(is_as(&wrong, &whole).is_err(), "{wrong:?}");
    }
}

#[test]
fn changes_are_carried_out() {
    let mut state = BTreeMap::new();
    let put = json!({ "events": [{ "type": "put", "key": "a", "value": "1" }, { "type": "put", "key64": "/w==", "value": "" }] });
    replay(&mut state, &put).unwrap();
    assert_eq!(state[&b"a"[..]], json!({ "key": "a", "value": "1" }));
    replay(&mut state, &json!({ "events": [{ "type": "delete", "key": "a" }] })).unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), [&b"\xff"[..]]);
    assert!(replay(&mut state, &json!({ "events": [{ "type": "lost", "key": "a" }] })).is_err());
}

#[test]
fn a_question_is_written_in_all_ways() {
    let targets = |forms: &[Request]| forms.iter().map(|form| form.target.clone()).collect::<Vec<_>>();
    let forms = forms_of_key(b"a/\xff", Some(3));
    assert_eq!(
        targets(&forms),
        ["/v1/kv/a%2F%FF?at=3", "/v1/kv?key=a%2F%FF&at=3", "/v1/kv?key64=YS__&at=3", "/v1/range"]
    );
    let mut forms = forms_of_range(b"a", &[("delimiter", json!("/"))]);
    set_level(&mut forms[3], 0);
    assert_eq!(
        targets(&forms),
        [
            "/v1/kv?prefix=a&delimiter=%2F",
            "/v1/kv?prefix64=YQ&delimiter=%2F",
            "/v1/kv?start=a&end64=Yg&delimiter=%2F",
            "/v1/range"
        ]
    );
    let body: Value = serde_json::from_slice(forms[3].body.as_ref().unwrap()).unwrap();
    assert_eq!(body, json!({ "prefix64": "YQ==", "delimiter": "/", "level": "local" }));
}
