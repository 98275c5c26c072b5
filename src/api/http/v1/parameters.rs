//! Parameters of a query, each listed in the table of routes: others are refused.

use crate::api::http::route::Parameter;
use crate::api::http::v1::object::parse_json;
use crate::api::http::v1::problem::Problem;
use crate::codec::{COUNTER_MAX, from_base64};
use crate::kv::{KeyRange, LeaseId, Revision};
use crate::replica::Level;
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;

/// The parameters of a request.
#[derive(Debug)]
pub(in crate::api::http) struct Parameters {
    known: &'static [Parameter],
    given: Vec<(Parameter, Bytes)>,
}

impl Parameters {
    /// Takes a query apart. A parameter that is not `known`, or is there twice, is refused.
    pub(in crate::api::http) fn parse(query: &str, known: &'static [Parameter]) -> Result<Self, Problem> {
        let mut given: Vec<(Parameter, Bytes)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, true).unwrap_or_default();
            let Some(parameter) = known.iter().find(|one| one.name.as_bytes() == name) else {
                return Err(unknown(&name, known));
            };
            let name = parameter.name;
            if given.iter().any(|(one, _)| one.name == name) {
                return Err(Problem::bad(
                    "repeated-parameter",
                    format!("{name} is there twice; leave one out"),
                ));
            }
            let value = decode(value, true).ok_or_else(|| {
                Problem::bad("bad-encoding", format!("{name} is not percent-encoded; write each % as %25"))
            })?;
            given.push((*parameter, Bytes::from(value)));
        }
        Ok(Self { known, given })
    }

    /// Takes a JSON object apart, whose fields are parameters: text, a number, or true or false.
    pub(super) fn parse_json(body: &[u8], known: &'static [Parameter]) -> Result<Self, Problem> {
        let Fields(fields) = parse_json(body)?;
        let mut given: Vec<(Parameter, Bytes)> = Vec::new();
        for (name, Field(value)) in fields {
            let Some(parameter) = known.iter().find(|one| one.name == name) else {
                return Err(unknown(name.as_bytes(), known));
            };
            if given.iter().any(|(one, _)| one.name == name) {
                return Err(Problem::bad(
                    "repeated-parameter",
                    format!("{name} is there twice; leave one out"),
                ));
            }
            given.push((*parameter, value));
        }
        Ok(Self { known, given })
    }

    /// Whether it was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Whether any of them was given.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    fn raw(&self, name: &str) -> Option<&Bytes> {
        debug_assert!(self.known.iter().any(|one| one.name == name), "{name} is not in the table of routes");
        self.given.iter().find(|(one, _)| one.name == name).map(|(_, value)| value)
    }

    /// Any bytes: as `name`, or in base64 as the `name64` beside it.
    pub(in crate::api::http) fn bytes(&self, name: &str, name64: &str) -> Result<Option<Bytes>, Problem> {
        match (self.raw(name), self.raw(name64)) {
            (Some(_), Some(_)) => Err(conflict(&[name, name64])),
            (plain, None) => Ok(plain.cloned()),
            (None, Some(text)) => match from_base64(text) {
                Ok(bytes) => Ok(Some(Bytes::from(bytes))),
                Err(error) => Err(Problem::bad("bad-base64", format!("{name64} {error}"))),
            },
        }
    }

    /// Any bytes.
    pub(in crate::api::http) fn plain(&self, name: &str) -> Option<Bytes> {
        self.raw(name).cloned()
    }

    /// A whole number.
    pub(in crate::api::http) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.raw(name).map(|value| number(name, value)).transpose()
    }

    /// A whole number, which may be negative.
    pub(super) fn signed(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        let bad = || Problem::bad("bad-parameter", format!("{name} is not a whole number of 64 bits"));
        parsed.map(Some).ok_or_else(bad)
    }

    /// A revision.
    pub(super) fn revision(&self, name: &str) -> Result<Option<Revision>, Problem> {
        match self.number(name)? {
            Some(number) if number > COUNTER_MAX => Err(Problem::bad(
                "bad-parameter",
                format!("{name} is no revision: the greatest one is {COUNTER_MAX}"),
            )),
            number => Ok(number.map(Revision)),
        }
    }

    /// A lease.
    pub(in crate::api::http) fn lease(&self, name: &str) -> Result<Option<LeaseId>, Problem> {
        Ok(self.number(name)?.map(LeaseId))
    }

    /// A time, microseconds.
    pub(super) fn duration(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        match std::str::from_utf8(value).ok().and_then(duration_micros) {
            Some(micros) => Ok(Some(micros)),
            None => {
                let text = format!("{name} is no time; write 10s, 500ms, 2m, 1h, 7d, or seconds");
                Err(Problem::bad("bad-parameter", text))
            }
        }
    }

    /// A time in whole seconds, rounded up.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<u64>, Problem> {
        Ok(self.duration(name)?.map(|micros| micros.div_ceil(1_000_000)))
    }

    /// Whether a flag is set: there, and not `false` or `0`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.raw(name).map(|value| &value[..]) {
            None | Some(b"false" | b"0") => Ok(false),
            Some(b"" | b"true" | b"1") => Ok(true),
            Some(_) => {
                Err(Problem::bad("bad-parameter", format!("{name} is true or false, or has no value")))
            }
        }
    }

    /// How fresh a read must be.
    pub(in crate::api::http) fn level(&self) -> Result<Level, Problem> {
        let max_staleness_micros = self.duration("max_staleness")?;
        match (self.raw("level").map(|level| &level[..]), max_staleness_micros) {
            (None | Some(b"local"), Some(max_staleness_micros)) => Ok(Level::Fresh { max_staleness_micros }),
            (Some(b"linearizable"), Some(_)) => Err(Problem::bad(
                "conflicting-parameters",
                "max_staleness is for level=local: a linearizable read is never stale",
            )),
            (None | Some(b"linearizable"), None) => Ok(Level::Linearizable),
            (Some(b"local"), None) => Ok(Level::Local),
            (Some(_), _) => Err(Problem::bad("bad-parameter", "level is neither linearizable nor local")),
        }
    }

    /// The range that `prefix`, or `start` and `end`, name. `None`: neither is there.
    pub(super) fn range(&self) -> Result<Option<KeyRange>, Problem> {
        let prefix = self.bytes("prefix", "prefix64")?;
        let (start, end) = (self.bytes("start", "start64")?, self.bytes("end", "end64")?);
        match (prefix, start, end) {
            (None, None, None) => Ok(None),
            (Some(prefix), None, None) => Ok(Some(KeyRange::prefix(prefix))),
            (Some(_), _, _) => Err(conflict(&["prefix", "start and end"])),
            (None, start, end) => {
                refuse_empty_end(end.as_ref())?;
                Ok(Some(KeyRange { start: start.unwrap_or_default(), end }))
            }
        }
    }
}

/// More fields than any route has parameters.
const FIELDS_MAX: usize = 64;

/// The fields of an object, as they come.
struct Fields(Vec<(String, Field)>);

/// A field's value, as it would stand in a query.
struct Field(Bytes);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    if fields.len() == FIELDS_MAX {
                        return Err(de::Error::custom("there are too many fields"));
                    }
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Field;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text, a whole number from 0 on, true or false")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Field, E> {
                Ok(Field(Bytes::copy_from_slice(text.as_bytes())))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Field, E> {
                Ok(Field(Bytes::from(number.to_string())))
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Field, E> {
                Ok(Field(Bytes::from_static(if flag { b"true" } else { b"false" })))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// An empty end is what a script makes of a variable that is not set. It does not stand for the end
/// of all keys: a deletion would go on to there.
pub(super) fn refuse_empty_end(end: Option<&Bytes>) -> Result<(), Problem> {
    if end.is_some_and(Bytes::is_empty) {
        let detail = "the end of the range is empty; leave it out for a range without an end";
        return Err(Problem::bad("empty-range", detail));
    }
    Ok(())
}

/// Parameters that do not go together.
pub(super) fn conflict(names: &[&str]) -> Problem {
    let names = names.join(" and ");
    Problem::bad("conflicting-parameters", format!("{names} do not go together; leave one out"))
}

fn unknown(name: &[u8], known: &'static [Parameter]) -> Problem {
    let mut shown: String = String::from_utf8_lossy(name).chars().take(40).collect();
    shown.retain(|c| !c.is_control());
    let names: Vec<&str> = known.iter().map(|one| one.name).collect();
    let detail = match &names[..] {
        [] => format!("there is no parameter {shown:?}; this takes none"),
        names => format!("there is no parameter {shown:?}; there are {}", names.join(", ")),
    };
    Problem::bad("unknown-parameter", detail)
}

fn number(name: &str, value: &[u8]) -> Result<u64, Problem> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let parsed = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Problem::bad("bad-parameter", format!("{name} is not a whole number from 0 on")))
}

/// A number in a path.
pub(super) fn number_in_path(what: &str, text: &str) -> Result<u64, Problem> {
    number(what, text.as_bytes())
}

/// `10s`, `500ms`, `2m`, `1h`, `7d`; without a unit seconds, which may have a fraction.
pub(in crate::api::http) fn duration_micros(text: &str) -> Option<u64> {
    let units = [
        ("us", 1),
        ("ms", 1_000),
        ("s", 1_000_000),
        ("m", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
    ];
    let (digits, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
        .unwrap_or((text, 1_000_000u64));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    let part =
        fraction.parse::<u128>().ok()? * u128::from(unit) / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

/// Percent-decoding; in a query `+` is a space. `None`: a `%` without two digits behind it.
pub(in crate::api::http) fn decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(match byte {
            b'+' if plus_is_space => b' ',
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                rest = after;
                hex(digits[0])? << 4 | hex(digits[1])?
            }
            plain => plain,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
