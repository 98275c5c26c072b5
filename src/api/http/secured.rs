//! The handshake of a connection, where clients are served over TLS.

use crate::api::http::context::Context;
use crate::api::http::control::{Control, Order, Phase};
use crate::api::http::linger::linger;
use crate::runtime::Env;
use crate::runtime::door::Caller;
use crate::tls::{NotAccepted, PeerCertificate, PortTls, Stream};
use hyper::Request;
use hyper::http::request::Parts;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::AsyncWriteExt;

/// The answer to a client that does not speak TLS.
const SPEAKS_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\
    content-length: 40\r\n\r\n\"this port speaks TLS: use https://...\"\n";

/// A stream that a client and this node agree on, and who the client is, if it has shown a
/// certificate.
pub(super) type Secured<E> = (Stream<<E as Env>::Stream>, Option<Arc<PeerCertificate>>);

/// Takes the handshake of a connection, if there is to be one. `None`: there is no connection any
/// more. The sweep ends a handshake that takes as long as a request's head may.
pub(super) async fn secured<E: Env>(
    context: &Context<E>,
    control: &Control,
    stream: E::Stream,
    from: &str,
) -> Option<Secured<E>> {
    let Some(tls) = &context.options.tls else { return Some((Stream::Plain(stream), None)) };
    control.enter(Phase::Head, context.tick());
    let secured = shake_hands(context, control, tls, stream, from).await;
    control.enter(Phase::Idle, context.tick());
    secured
}

async fn shake_hands<E: Env>(
    context: &Context<E>,
    control: &Control,
    tls: &PortTls,
    stream: E::Stream,
    from: &str,
) -> Option<Secured<E>> {
    let caller = Caller::of(from);
    let mut handshake = pin!(async {
        let begun = tls.begin(stream).await?;
        context.handshakes.pass(&caller, tls.accept(begun)).await
    });
    let mut registered = None;
    let accepted = poll_fn(|cx| {
        control.register(&mut registered, cx.waker());
        if control.order() != Order::Serve {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Some)
    });
    match accepted.await? {
        Ok((stream, shown)) => {
            if let Some(failures) = context.connections().handshakes.ended(context.env.now()) {
                tracing::info!(failures, "TLS handshakes of clients go well again");
            }
            Some((stream, shown.map(Arc::new)))
        }
        Err(NotAccepted::Silent) => None,
        Err(NotAccepted::NoTls(mut stream)) => {
            note_failure(context, from, "it does not speak TLS");
            if stream.write_all(SPEAKS_TLS).await.is_ok() {
                linger(&context.env, &mut stream).await;
            }
            None
        }
        Err(NotAccepted::Failed(reason)) => {
            note_failure(context, from, &reason);
            None
        }
    }
}

/// Notes in a request who has sent it: an `Arc<PeerCertificate>` among its extensions.
pub(super) fn note_caller<B>(request: &mut Request<B>, shown: Option<&Arc<PeerCertificate>>) {
    if let Some(shown) = shown {
        request.extensions_mut().insert(shown.clone());
    }
}

/// Who has sent a request, if the client has shown a certificate.
pub(super) fn caller(head: &Parts) -> Option<&PeerCertificate> {
    head.extensions.get::<Arc<PeerCertificate>>().map(|shown| &**shown)
}

/// One line for many: a client that fails tries again and again.
fn note_failure<E: Env>(context: &Context<E>, from: &str, reason: &str) {
    tracing::debug!(%from, %reason, "a TLS handshake failed");
    let is_first = context.connections().handshakes.failed(context.env.now());
    if is_first {
        tracing::warn!(
            %from, %reason,
            "the TLS handshake of a client failed; further ones are only counted, until none has failed for a while"
        );
    }
}
