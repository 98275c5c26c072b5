//! Closing a connection so that the client gets to read the answer.

use crate::runtime::{Env, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// After an answer to a request that was not read to its end, at most this much of its rest is
/// taken in, …
const LINGER_BYTES_MAX: usize = 64 << 20;
/// … for at most this time. Closing at once would make the client's system throw the answer away
/// unread.
const LINGER_MICROS: u64 = 2_000_000;

/// Ends our side, and takes in what the client still sends, so that it gets to read the answer.
pub(super) async fn linger<E: Env>(env: &E, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let deadline = env.now().plus(LINGER_MICROS);
    let drain = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut scratch = vec![0; 16 << 10];
        let mut taken = 0;
        while taken < LINGER_BYTES_MAX {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(count) => taken += count,
            }
        }
    };
    // Whether it was drained or given up makes no difference: the connection is closed now.
    let _ = until(env, deadline, drain).await;
}
