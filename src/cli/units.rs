//! Sizes and times as people write them.

use std::time::Duration;
use time::OffsetDateTime;

/// Bytes: a number, alone or with `KiB`, `MiB` or `GiB` (or `K`, `M`, `G`).
///
/// # Errors
/// What was expected.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    scaled(
        text,
        &[
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("K", 1 << 10),
            ("M", 1 << 20),
            ("G", 1 << 30),
            ("B", 1),
        ],
    )
    .ok_or_else(|| "expected bytes: a number, alone or with KiB, MiB or GiB".to_owned())
}

/// As [`bytes`], above zero.
///
/// # Errors
/// What was expected.
pub(super) fn bytes_above_zero(text: &str) -> Result<u64, String> {
    bytes(text).and_then(above_zero)
}

/// As [`micros`], above zero.
///
/// # Errors
/// What was expected.
pub(super) fn micros_above_zero(text: &str) -> Result<u64, String> {
    micros(text).and_then(above_zero)
}

/// Millionths: a percentage, like `1%` or `0.02%`, of at most 50.
///
/// # Errors
/// What was expected.
pub(super) fn percent_ppm(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').and_then(|number| {
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        let valid = !whole.is_empty() && is_number(whole) && is_number(part) && part.len() <= 4;
        let whole: u32 = whole.parse().ok().filter(|_| valid)?;
        whole.checked_mul(10_000)?.checked_add(format!("{part:0<4}").parse().ok()?)
    });
    let number = number.filter(|ppm| *ppm <= 500_000);
    number.ok_or_else(|| "expected a percentage up to 50%, with at most four decimals".to_owned())
}

/// A number above zero.
///
/// # Errors
/// What was expected.
pub(super) fn count_above_zero(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| "expected a number".to_owned())?;
    if count > 0 { Ok(count) } else { Err("must be above zero".to_owned()) }
}

fn above_zero(value: u64) -> Result<u64, String> {
    if value > 0 { Ok(value) } else { Err("must be above zero".to_owned()) }
}

/// Microseconds: a number with `us`, `ms` or `s`.
///
/// # Errors
/// What was expected.
pub(super) fn micros(text: &str) -> Result<u64, String> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    scaled(text, &[("us", 1), ("µs", 1), ("ms", 1_000), ("s", 1_000_000)])
        .filter(|_| !digits_only)
        .ok_or_else(|| "expected a time: a number with us, ms or s, as in 600ms".to_owned())
}

/// A time: a number with `ms`, `s`, `m`, `h` or `d` (24 hours); as the HTTP API takes it.
///
/// # Errors
/// What was expected.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let has_unit = text.ends_with(|c: char| !c.is_ascii_digit());
    scaled(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)])
        .filter(|_| has_unit)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time: a number with ms, s, m, h or d, as in 10s".to_owned())
}

/// As [`duration`], above zero.
///
/// # Errors
/// What was expected.
pub(super) fn duration_above_zero(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time > Duration::ZERO { Ok(time) } else { Err("must be above zero".to_owned()) }
}

/// A time, as flags take it.
pub(super) fn time(micros: u64) -> String {
    let whole = |unit: u64| micros > 0 && micros.is_multiple_of(unit);
    if whole(1_000_000) {
        format!("{}s", micros / 1_000_000)
    } else if whole(1_000) {
        format!("{}ms", micros / 1_000)
    } else {
        format!("{micros}us")
    }
}

/// A point in time, seconds since 1970, as `2026-11-28 09:30 UTC`.
pub(super) fn date(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    // Later than the year 9999.
    let Some(at) = at else { return seconds.to_string() };
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", at.hour(), at.minute())
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    number.trim_end().parse::<u64>().ok()?.checked_mul(factor)
}
