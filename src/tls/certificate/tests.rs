use crate::tls::certificate::{Certificate, days_since_1970};
use crate::tls::clock::WallClock;
use crate::tls::create::Authority;
use crate::tls::files;
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

/// 2030-01-02, 03:04:05.
const NOW: u64 = 1_893_553_445;

fn made(hosts: Option<&[&str]>) -> CertificateDer<'static> {
    let clock = WallClock::new(|| NOW);
    let hosts: Option<Vec<String>> = hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect());
    let authority = Authority::new(100, &clock).unwrap();
    let (pem, _) = authority.sign("n1", hosts.as_deref(), 10, &clock).unwrap();
    files::chain(&pem).unwrap().0.remove(0)
}

#[test]
fn names_and_dates_are_read() {
    let read = Certificate::read(&made(Some(&["db.example", "10.0.0.7", "[fe80::1]"]))).unwrap();
    assert_eq!(read.common_name.as_deref(), Some("n1"));
    assert_eq!(read.dns_names, ["db.example", "localhost"]);
    let addresses: Vec<String> = read.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.7", "fe80::1", "127.0.0.1", "::1"]);
    assert_eq!((read.not_before, read.not_after), (NOW - 3_600, NOW + 10 * 86_400));
    assert!(Certificate::read(&made(None)).unwrap().dns_names.is_empty());
}

#[test]
fn days_are_those_of_the_calendar() {
    let cases = [
        (1970, 1, 1, 0),
        (1970, 12, 31, 364),
        (2000, 2, 29, 11_016),
        (2000, 3, 1, 11_017),
        (2100, 3, 1, 47_541),
    ];
    for (year, month, day, days) in cases {
        assert_eq!(days_since_1970(year, month, day), Some(days), "{year}-{month}-{day}");
    }
    for (year, month, day) in [(1969, 12, 31), (2000, 13, 1), (2000, 0, 1), (2000, 1, 32)] {
        assert_eq!(days_since_1970(year, month, day), None, "{year}-{month}-{day}");
    }
}

#[test]
fn only_the_common_name_is_a_members_name() {
    let read = Certificate::read(&made(Some(&["n2"]))).unwrap();
    assert!(read.is_of_member("n1"));
    assert!(!read.is_of_member("n2"), "a host may be called like another member");
    assert!(!read.is_of_member("N1"));
    let unnamed = Certificate { common_name: None, ..read };
    assert!(unnamed.is_of_member("n2") && !unnamed.is_of_member("n1"));
}

/// The words of the subject `CN=…` as in a certificate that was made with it.
fn with_common_name(bytes: &[u8]) -> Option<String> {
    let der = made(None);
    let length = u8::try_from(bytes.len()).unwrap();
    // `n1` is there twice: in the subject here, and nowhere else.
    let at = der.windows(4).position(|part| part == [0x0c, 2, b'n', b'1']).unwrap();
    assert_eq!(length, 2, "of the same length, so that nothing around it changes");
    let mut changed = der.to_vec();
    changed[at + 2..at + 4].copy_from_slice(bytes);
    Certificate::read(&changed.into()).unwrap().common_name
}

#[test]
fn a_name_that_cannot_be_shown_is_none() {
    assert_eq!(with_common_name(b"n2").as_deref(), Some("n2"));
    assert_eq!(with_common_name(b"n\0"), None);
    assert_eq!(with_common_name(b"n\n"), None);
    assert_eq!(with_common_name(&[0xff, 0xfe]), None);
}

#[test]
fn a_certificate_that_is_cut_is_none() {
    let der = made(Some(&["a", "b"]));
    for length in 0..der.len() {
        assert_eq!(Certificate::read(&der[..length].to_vec().into()), None, "{length} bytes");
    }
}

proptest! {
    #[test]
    fn foreign_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Certificate::read(&bytes.into());
    }

    #[test]
    fn damage_does_no_harm(at in 0_usize..1_000, to in any::<u8>()) {
        let mut der = made(Some(&["a"])).to_vec();
        let at = at % der.len();
        der[at] = to;
        let _ = Certificate::read(&der.into());
    }
}
