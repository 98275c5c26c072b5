use crate::api::http::request_line::RequestLine;

fn is_refused(pieces: &[&[u8]]) -> bool {
    let mut line = RequestLine::default();
    pieces.iter().any(|piece| line.look_at(piece))
}

#[test]
fn a_number_sign_is_seen_in_a_request_line_however_that_comes() {
    for (text, refused) in [
        ("GET /a#b HTTP/1.1\r\nhost: t\r\n\r\n", true),
        ("GET /a# HTTP/1.0\n\n", true),
        ("\r\n\r\nDELETE /v1/kv?prefix=a#1 HTTP/1.1\r\n", true),
        ("GET /a%23b HTTP/1.1\r\nx: #\r\n\r\n", false),
        ("GET / HTTP/1.1\r\n\r\nGET /# HTTP/1.1\r\n\r\n", false),
        // The middle of another request.
        ("x: a#b\r\nGET /# HTTP/1.1\r\n", false),
        ("#", false),
        ("#\n", false),
        ("", false),
    ] {
        let bytes = text.as_bytes();
        for size in 1..=bytes.len().max(1) {
            let pieces: Vec<_> = bytes.chunks(size).collect();
            assert_eq!(is_refused(&pieces), refused, "{text:?} by {size}");
        }
    }
}
