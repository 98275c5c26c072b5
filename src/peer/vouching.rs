//! Callers that this node does not know, and who vouches for them.
//!
//! A member whose entry has not arrived here yet has to be let in: a node that was away may hear of
//! it from nobody else. But any certificate of the authority could say that it is such a member,
//! that of a removed node, say, and lead the cluster. So where connections are secured, this node
//! asks those whom it knows, each called by its name, whether there is a member of that id and that
//! name.

use crate::peer::address_book::AddressBook;
use crate::peer::rpc::{Question, Reply, ask_member};
use crate::peer::secured::Dialer;
use crate::peer::vouched::Voucher;
use crate::raft::{NodeId, Time};
use crate::runtime::{Env, until};
use crate::tls::PeerCertificate;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use tokio::sync::Mutex;

/// How long those who are asked may take.
const ANSWER_MICROS: u64 = 1_000_000;
/// After a round the next one begins at the earliest: nobody makes a node ask all the time.
const PAUSE_MICROS: u64 = 1_000_000;
/// Rounds of questions: one at a time.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// When the last one ended.
    ended: Mutex<Option<Time>>,
}

impl Rounds {
    /// Whether somebody who is known says that the holder of a certificate is that member.
    pub(crate) async fn confirm<E: Env>(
        &self,
        dialer: &Dialer<E>,
        address_book: &AddressBook,
        (id, shown): (NodeId, &PeerCertificate),
    ) -> bool {
        let mut ended = self.ended.lock().await;
        let is_confirmed = || !address_book.is_stranger(id, shown);
        if is_confirmed() {
            return true;
        }
        let env = &dialer.env;
        if ended.is_some_and(|ended| env.now().since(ended) < PAUSE_MICROS) {
            return false;
        }
        // A round whose caller leaves before its end counts, too.
        *ended = Some(env.now());
        let (known, told): (Vec<_>, Vec<_>) =
            address_book.vouchers().into_iter().partition(|voucher| voucher.name.is_some());
        let has_answered = ask_all(dialer, address_book, known, &is_confirmed).await;
        // A node that was told of once may have left since: that counts where nobody else says
        // anything.
        if !has_answered && !is_confirmed() {
            ask_all(dialer, address_book, told, &is_confirmed).await;
        }
        *ended = Some(env.now());
        is_confirmed()
    }
}

/// Asks them all at once, until it `is_done`. Whether one has answered that knows a leader, and
/// this node as a member.
async fn ask_all<E: Env>(
    dialer: &Dialer<E>,
    address_book: &AddressBook,
    vouchers: Vec<Voucher>,
    is_done: &impl Fn() -> bool,
) -> bool {
    let (me, env) = (address_book.me(), &dialer.env);
    let has_answered = AtomicBool::new(false);
    let ask = |voucher: Voucher| {
        let (me, has_answered) = (&me, &has_answered);
        async move {
            let called = (voucher.name.as_deref(), voucher.addr.as_str());
            let answer = ask_member(dialer, called, &Question::Members, ANSWER_MICROS).await;
            // A node that does not answer vouches for nobody.
            let Ok(Reply::Members(view)) = answer else { return };
            // One that was removed, or cut off, does not know what became of the others.
            let is_in_touch = view.leader.is_some();
            if is_in_touch && view.members.iter().any(|member| member.id == me.id && member.name == me.name) {
                has_answered.store(true, Ordering::Relaxed);
            }
            address_book.take_view(&voucher, &view);
        }
    };
    let mut asked: Vec<_> = vouchers.into_iter().map(|one| Box::pin(ask(one))).collect();
    let asking = poll_fn(|cx| {
        asked.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if asked.is_empty() || is_done() { Poll::Ready(()) } else { Poll::Pending }
    });
    until(env, env.now().plus(ANSWER_MICROS), asking).await;
    has_answered.load(Ordering::Relaxed)
}
