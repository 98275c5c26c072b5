//! What base64 is, and what it is not.

use crate::codec::base64::{from_base64, to_base64, to_base64_url};
use proptest::prelude::*;

#[test]
fn the_examples_of_the_rfc_hold() {
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(to_base64(bytes.as_bytes()), text);
        assert_eq!(from_base64(text.as_bytes()).as_deref(), Ok(bytes.as_bytes()));
    }
    assert_eq!(
        (to_base64(&[0xfb, 0xff]), to_base64_url(&[0xfb, 0xff])),
        ("+/8=".to_owned(), "-_8".to_owned())
    );
}

#[test]
fn what_no_encoder_writes_is_refused() {
    for text in ["A", "A===", "AA=", "AB==", "AAB=", "AA==AA==", "A A=", "é", "Zm9v=", "====", "Zm9vYg=", "="]
    {
        assert!(from_base64(text.as_bytes()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn every_byte_string_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        prop_assert_eq!(from_base64(to_base64(&bytes).as_bytes()), Ok(bytes.clone()));
        prop_assert_eq!(from_base64(to_base64_url(&bytes).as_bytes()), Ok(bytes));
    }

    #[test]
    fn what_is_taken_is_what_an_encoder_writes(text in "[A-Za-z0-9+/=]{0,12}") {
        if let Ok(bytes) = from_base64(text.as_bytes()) {
            prop_assert!(to_base64(&bytes).trim_end_matches('=') == text.trim_end_matches('='));
        }
    }
}
