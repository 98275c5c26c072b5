use super::{Told, get, set};
use crate::madsim_engine::http::Answer;

fn answer(code: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut headers: Vec<_> = headers.collect();
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    Answer { code, headers, body: body.to_owned().into() }
}

#[test]
fn right_answers_are_understood() {
    assert_eq!(set(&answer(200, &[], "\"Set Successfull\"\n")), Ok(Told::Done));
    let why = [("infinitystore-reason", "why"), ("infinitystore-outcome", "not-appended")];
    let failed = answer(500, &why, "\"Couldn't Add to store\"\n");
    assert_eq!(set(&failed), Ok(Told::NotAppended("why".to_owned())));
    let found = answer(200, &[], "{\"key\":\"a\\\"\",\"value\":\"é\"}\n");
    assert_eq!(get("a\"", &found), Ok(Told::Value(Some("é".to_owned()))));
    assert_eq!(get("a", &answer(404, &[], "\"Key does not exist\"\n")), Ok(Told::Value(None)));
}

#[test]
fn wrong_answers_are_not() {
    let found = answer(200, &[], "{\"key\":\"a\",\"value\":\"b\"}\n");
    assert!(get("b", &found).is_err(), "another key");
    assert!(get("a", &answer(200, &[], "{\"key\":\"a\",\"value\":\"b\"}")).is_err(), "no newline");
    assert!(get("a", &answer(200, &[], "{\"value\":\"b\",\"key\":\"a\"}\n")).is_err(), "the order");
    assert!(get("a", &answer(400, &[], "\"Missing Key\"\n")).is_err(), "it was there");
    assert!(get("a", &answer(503, &[], "sorry\n")).is_err(), "no JSON");
    assert!(set(&answer(200, &[], "\"Set Successful\"\n")).is_err(), "compatibility");
    assert!(set(&answer(500, &[], "\"Couldn't Add to store\"\n")).is_err(), "no reason");
    let mut text = found;
    text.headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    assert!(get("a", &text).is_err(), "the content type");
}
