use crate::codec::address::{ADDRESS_BYTES_MAX, AddressError, HostPort, NAME_BYTES_MAX, check_name, host_of};

#[test]
fn what_is_a_name() {
    let longest = "n".repeat(NAME_BYTES_MAX);
    for good in ["node-1", "n", "größe", "a.b", &longest] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    let longer = "n".repeat(NAME_BYTES_MAX + 1);
    for bad in ["", ".", "..", ".n", "a/b", "a b", "a\n", "a\0", &longer] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_address_to_listen_on_needs_no_host() {
    for (text, host, port) in [
        (":8001", "", 8001),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "[::1]", 65535),
        ("0.0.0.0:80", "0.0.0.0", 80),
    ] {
        assert_eq!(HostPort::parse(text), Ok(HostPort { host, port }));
    }
    for (bad, why) in [
        ("", AddressError::NoPort),
        ("localhost", AddressError::NoPort),
        ("localhost:", AddressError::Port),
        ("localhost:http", AddressError::Port),
        ("localhost:65536", AddressError::Port),
        ("localhost:+80", AddressError::Port),
        ("localhost:-1", AddressError::Port),
    ] {
        assert_eq!(HostPort::parse(bad), Err(why), "{bad}");
    }
    for (text, every) in [(":1", true), ("0.0.0.0:1", true), ("[::]:1", true), ("localhost:1", false)] {
        assert_eq!(HostPort::parse(text).map(HostPort::is_every_interface), Ok(every), "{text}");
    }
}

#[test]
fn an_address_to_connect_to_has_somebody_behind_it() {
    for good in ["localhost:8000", "127.0.0.1:1", "[::1]:65535", "node-1.example.org:80"] {
        assert!(HostPort::parse_remote(good).is_ok(), "{good}");
    }
    let long = format!("{}:80", "h".repeat(ADDRESS_BYTES_MAX));
    for (bad, why) in [
        ("", AddressError::NoPort),
        ("host", AddressError::NoPort),
        (":8000", AddressError::NoHost),
        ("host:", AddressError::Port),
        ("host:0", AddressError::Port),
        ("host:65536", AddressError::Port),
        ("host:x", AddressError::Port),
        ("ho st:80", AddressError::Characters),
        ("a\n:80", AddressError::Characters),
        (&long, AddressError::Characters),
        ("http://host:80", AddressError::Url),
        ("https://[::1]:80", AddressError::Url),
        ("0.0.0.0:80", AddressError::EveryInterface),
        ("[::]:80", AddressError::EveryInterface),
        ("[::ffff:0.0.0.0]:80", AddressError::EveryInterface),
        ("0:80", AddressError::EveryInterface),
        ("::1:80", AddressError::Brackets),
    ] {
        assert_eq!(HostPort::parse_remote(bad), Err(why), "{bad:?}");
    }
}

#[test]
fn a_text_without_a_port_is_all_host() {
    for (text, host) in [("[::1]:80", "[::1]"), ("m1:80", "m1"), ("m1", "m1"), (":80", "")] {
        assert_eq!(host_of(text), host);
    }
}
