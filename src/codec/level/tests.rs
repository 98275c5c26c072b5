use crate::codec::{FeatureLevel, FeatureLevels, Reader};
use alloc::string::ToString;
use alloc::vec::Vec;
use bytes::Bytes;

fn levels(lowest: u16, highest: u16) -> FeatureLevels {
    FeatureLevels::new(FeatureLevel::new(lowest), FeatureLevel::new(highest)).expect("they ascend")
}

#[test]
fn two_nodes_speak_the_highest_level_that_both_know() {
    for (one, other, least, common) in [
        ((7, 8), (7, 8), 7, Some(8)),
        ((7, 8), (7, 7), 7, Some(7)),
        ((7, 7), (7, 8), 7, Some(7)),
        ((7, 8), (8, 9), 7, Some(8)),
        ((7, 9), (8, 12), 9, Some(9)),
        ((7, 7), (8, 9), 7, None),
        ((8, 9), (7, 7), 7, None),
        ((7, 8), (7, 7), 8, None),
        ((7, 7), (7, 8), 8, None),
    ] {
        let (one, other, least) = (levels(one.0, one.1), levels(other.0, other.1), FeatureLevel::new(least));
        let common = common.map(FeatureLevel::new);
        assert_eq!(one.common(other, least), common, "{one} and {other}, at least {least}");
        assert_eq!(other.common(one, least), common, "it does not matter who calls");
    }
}

#[test]
fn a_range_that_descends_is_none() {
    assert_eq!(FeatureLevels::new(FeatureLevel::new(9), FeatureLevel::new(8)), None);
    assert_eq!(levels(8, 9).up_to(FeatureLevel::new(7)), None);
    assert_eq!(levels(7, 9).up_to(FeatureLevel::new(8)), Some(levels(7, 8)));
    assert_eq!(levels(7, 8).up_to(FeatureLevel::new(9)), Some(levels(7, 8)));
}

#[test]
fn levels_are_read_as_they_were_written() {
    let mut out = Vec::new();
    levels(7, 300).encode(&mut out);
    assert_eq!(FeatureLevels::take(&mut Reader::new(Bytes::from(out))).unwrap(), levels(7, 300));
    let level = FeatureLevel::new(300);
    assert_eq!(FeatureLevel::from_data(Bytes::from(level.to_data())).unwrap(), level);
}

#[test]
fn what_is_no_level_is_refused() {
    for bytes in [&[][..], &[8], &[0, 0], &[8, 0, 0]] {
        assert!(FeatureLevel::from_data(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
    let descending = Bytes::from_static(&[9, 0, 8, 0]);
    assert!(FeatureLevels::take(&mut Reader::new(descending)).is_err());
}

#[test]
fn ranges_are_said_in_words() {
    assert_eq!(levels(7, 7).to_string(), "7");
    assert_eq!(levels(7, 9).to_string(), "7 to 9");
}
