use super::rfc3339;

#[test]
fn times_are_written_as_rfc_3339_has_them() {
    let at = |seconds: u64| rfc3339(seconds * 1_000_000 + 5);
    assert_eq!(at(0), "1970-01-01T00:00:00.000005Z");
    assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000005Z");
    assert_eq!(at(1_795_764_000), "2026-11-27T07:20:00.000005Z");
    assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000005Z");
    assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000005Z");
}
