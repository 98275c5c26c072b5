use super::parse;
use bytes::BytesMut;

#[test]
fn answers_are_taken_off_one_after_the_other() {
    let mut read = BytesMut::from(
        &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 404 No\r\ncontent-length: 0\r\n\r"[..],
    );
    let first = parse(&mut read, false).unwrap().unwrap();
    assert_eq!((first.code, first.text().as_str()), (200, "abc"));
    assert_eq!(first.header("content-length"), Some("3"));
    assert!(parse(&mut read, false).unwrap().is_none(), "a byte is missing");
    read.extend_from_slice(b"\n");
    assert_eq!(parse(&mut read, false).unwrap().unwrap().code, 404);
    assert!(read.is_empty());
}

#[test]
fn what_is_no_answer_is_said() {
    for wrong in
        ["HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"]
    {
        assert!(parse(&mut BytesMut::from(wrong), false).is_err(), "{wrong:?}");
    }
}
