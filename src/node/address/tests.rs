use crate::node::address::{advertised, check_address, is_link_local};

#[test]
fn what_is_wrong_with_an_address_is_said_with_it() {
    assert_eq!(check_address("localhost:8000"), Ok(()));
    assert_eq!(
        check_address("host:x"),
        Err("\"host:x\" is no address: its port is no number from 1 to 65535; expected host:port".to_owned())
    );
}

#[test]
fn what_others_are_told() {
    for (listen, advertise, told) in [
        ("localhost:8000", None, "localhost:8000"),
        (":8000", None, "name:8000"),
        ("0.0.0.0:8000", None, "name:8000"),
        ("[::]:8000", None, "name:8000"),
        (":8000", Some("public"), "public:8000"),
        (":8000", Some("public:9"), "public:9"),
        ("10.0.0.1:8000", Some("public"), "public:8000"),
        (":8000", Some("[::1]"), "[::1]:8000"),
    ] {
        assert_eq!(advertised(listen, advertise, "name"), told, "{listen} {advertise:?}");
    }
}

#[test]
fn addresses_of_one_link_are_told_apart() {
    for addr in ["169.254.169.254:80", "[fe80::1]:8000", "[::ffff:169.254.0.1]:1"] {
        assert!(is_link_local(addr), "{addr}");
    }
    for addr in ["10.0.0.1:8000", "127.0.0.1:1", "[fd00::1]:8000", "169.254.host:1", "node-1:8000"] {
        assert!(!is_link_local(addr), "{addr}");
    }
}
