use crate::node::address::{advertised, check_address, host_of};

#[test]
fn what_is_an_address() {
    for good in ["localhost:8000", "127.0.0.1:1", "[::1]:65535", "node-1.example.org:80"] {
        assert_eq!(check_address(good), Ok(()), "{good}");
    }
    for bad in
        ["", "host", ":8000", "host:", "host:0", "host:65536", "host:x", "::1:80", "ho st:80", "a\n:80"]
    {
        assert!(check_address(bad).is_err(), "{bad:?}");
    }
    for (bad, says) in [
        ("http://host:80", "a URL"),
        ("https://[::1]:80", "a URL"),
        ("0.0.0.0:80", "every interface"),
        ("[::]:80", "every interface"),
        ("[::ffff:0.0.0.0]:80", "every interface"),
        ("0:80", "every interface"),
        ("::1:80", "brackets"),
    ] {
        assert!(check_address(bad).is_err_and(|error| error.contains(says)), "{bad}");
    }
    assert!(check_address(&format!("{}:80", "h".repeat(300))).is_err());
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
    assert_eq!(host_of("[::1]:8000"), "[::1]");
}
