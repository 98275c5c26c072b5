use crate::codec::{FeatureLevel, FeatureLevels};
use crate::peer::block::{Block, BlockError, STEP_BYTES};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

async fn read(bytes: &[u8]) -> Result<Block, BlockError> {
    Block::read(&mut &*bytes, FeatureLevels::OF_THIS_RELEASE, 100).await
}

fn block() -> Block {
    Block { level: FeatureLevel::NEWEST, kind: 7, body: b"content".to_vec() }
}

#[tokio::test]
async fn a_block_is_read_as_it_was_written() {
    assert_eq!(read(&block().encode()).await.unwrap(), block());
}

#[tokio::test]
async fn every_truncation_is_an_error() {
    let bytes = block().encode();
    for length in 0..bytes.len() {
        assert!(matches!(read(&bytes[..length]).await, Err(BlockError::Io(_))), "{length} bytes");
    }
}

#[tokio::test]
async fn every_flipped_bit_is_an_error() {
    let bytes = block().encode();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&damaged).await.is_err(), "bit {bit}");
    }
}

#[tokio::test]
async fn strangers_are_recognised_by_their_first_bytes() {
    for stranger in ["GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", "I", "Inf", "InfStorf"] {
        let said = read(stranger.as_bytes()).await;
        let prefix = "InfStore".starts_with(stranger);
        assert_eq!(matches!(said, Err(BlockError::Garbage(_))), !prefix, "{stranger:?}: {said:?}");
    }
}

#[tokio::test]
async fn another_level_is_named_before_its_content_is_looked_at() {
    let here = FeatureLevels::OF_THIS_RELEASE;
    for (number, who) in
        [(FeatureLevel::NEWEST.get() + 1, "this node"), (FeatureLevel::OLDEST.get() - 1, "the other one")]
    {
        let mut bytes = block().encode();
        bytes[8..10].copy_from_slice(&number.to_le_bytes());
        let error = read(&bytes[..15]).await.unwrap_err();
        let found = FeatureLevel::new(number);
        assert!(matches!(error, BlockError::Level { found: it, .. } if it == found), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("level {number} of the protocol, and this node {here}")), "{text}");
        assert!(text.contains(&format!("{who} is of an older release")), "{text}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_by_its_header() {
    let long = Block { level: FeatureLevel::NEWEST, kind: 7, body: vec![0; 101] }.encode();
    assert!(matches!(read(&long[..15]).await, Err(BlockError::TooLong { length: 101, limit: 100 })));
}

#[tokio::test]
async fn a_body_takes_memory_only_as_it_arrives() {
    let large = Block { level: FeatureLevel::NEWEST, kind: 5, body: vec![7; 200 << 10] };
    let bytes = large.encode();
    assert_eq!(Block::read(&mut &*bytes, FeatureLevels::OF_THIS_RELEASE, 256 << 10).await.unwrap(), large);
    // Announced in full, sent in part: what was made room for stays near what came.
    let mut cut = Largest { bytes: &bytes[..20_000], offered: 0 };
    assert!(Block::read(&mut cut, FeatureLevels::OF_THIS_RELEASE, 256 << 10).await.is_err());
    assert!(cut.offered <= STEP_BYTES, "{} bytes were made room for at once", cut.offered);
}

/// Bytes, and the largest buffer that was offered for them.
struct Largest<'b> {
    bytes: &'b [u8],
    offered: usize,
}

impl AsyncRead for Largest<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.offered = self.offered.max(buffer.remaining());
        let (now, later) = self.bytes.split_at(self.bytes.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_a_stranger_says_is_not_repeated() {
    for stranger in ["SSH-2.0-secret\r\n", "HTTP/1.1 200 OK\r\n\r\nsecret", "\u{16}\u{3}secret\u{1b}[2J"] {
        let said = read(stranger.as_bytes()).await.unwrap_err().to_string();
        assert!(!["secret", "SSH", "\u{1b}"].iter().any(|word| said.contains(word)), "{said}");
    }
}
