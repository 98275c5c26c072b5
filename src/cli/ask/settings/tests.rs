//! Of which limits a person is warned.

use crate::cli::ask::settings::tightness;
use crate::kv::Settings;

#[test]
fn a_quota_that_stops_all_puts_is_warned_of() {
    let tight = |quota_bytes, stored| tightness(&Settings { quota_bytes, ..Settings::default() }, stored);
    for (quota, stored) in [(1, 0), (1, 99), (1 << 20, 1 << 21)] {
        let text = tight(quota, stored).unwrap_or_else(|| panic!("{quota} for {stored} is tight"));
        assert!(text.contains("puts are refused"), "{text}");
    }
    assert_eq!(tight(1 << 20, 1 << 20), None);
    assert_eq!(tight(1 << 30, 5), None);
}
