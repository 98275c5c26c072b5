//! Answers other nodes' questions.

use crate::codec::FeatureLevel;
use crate::node::handle::DriverOrder;
use crate::node::join::Joiner;
use crate::peer::incoming::Answers;
use crate::peer::mending::{MendCall, MendReply, MendWants};
use crate::peer::rpc::{JoinError, Question, Reply, read_question, write_reply};
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::{Env, until};
use crate::tls::{PeerCertificate, Stream};
use tokio::sync::oneshot;
use tracing::debug;

/// A caller that takes longer to send its question, or to take its answer, is given up.
const TALK_MICROS: u64 = 5_000_000;

/// Answers questions, on behalf of the node.
#[derive(Clone, Debug)]
pub(super) struct PeerQuestions<E> {
    /// What does the work.
    pub joiner: Joiner<E>,
}

impl<E: Env> Answers<E> for PeerQuestions<E> {
    async fn serve(
        &self,
        (mut stream, level): (Stream<E::Stream>, FeatureLevel),
        shown: Option<PeerCertificate>,
    ) {
        let env = &self.joiner.env;
        let asked = until(env, env.now().plus(TALK_MICROS), read_question(&mut stream, level)).await;
        let question = match asked {
            Some(Ok(question)) => question,
            Some(Err(error)) => return debug!(%error, "a question could not be understood"),
            None => return debug!("a caller put no question"),
        };
        let answered = if let Some(reason) = self.refuse(&question, shown.as_ref()) {
            Some(Reply::Refused(reason))
        } else if let Some(error) = self.refuse_join(&question, shown.as_ref()).await {
            Some(Reply::Joined(Err(error)))
        } else {
            self.answer(question).await
        };
        let Some(reply) = answered else { return };
        let _ = until(env, env.now().plus(TALK_MICROS), write_reply(&mut stream, level, &reply)).await;
    }
}

impl<E: Env> PeerQuestions<E> {
    /// Why a question is not taken: it is one that only a member asks about itself, and the caller
    /// shows another node's certificate.
    fn refuse(&self, question: &Question, shown: Option<&PeerCertificate>) -> Option<String> {
        let about = match question {
            Question::Announce { id, .. } => *id,
            Question::Mend(MendCall { caller: Some(caller), .. }) => caller.member,
            Question::Manage { .. } => {
                let shown = shown.filter(|shown| !self.joiner.address_book.is_a_members(shown))?;
                return Some(format!(
                    "members pass orders on, and the caller's certificate is of {:?}, which is no member",
                    shown.name
                ));
            }
            _ => return None,
        };
        let shown = shown.filter(|shown| !self.joiner.address_book.may_speak_for(about, shown))?;
        Some(format!("this is about member {about}, and the caller's certificate is of {:?}", shown.name))
    }

    /// Why a join is not taken: once the cluster is not open, it takes a right to add a member,
    /// which no certificate gives. Members pass joins on, and may join again under their names.
    async fn refuse_join(&self, question: &Question, shown: Option<&PeerCertificate>) -> Option<JoinError> {
        let (Question::Join { name, raft_addr, .. }, Some(shown)) = (question, shown) else { return None };
        // The cluster may be open no more, or have removed the caller, and this node not know it
        // yet.
        match self.joiner.handle.request(ClientRequest::Barrier).await {
            ClientReply::UpToDate => {}
            // It is no member of any cluster that it could add somebody to; or its cluster is being
            // made, and nobody has enabled anything yet.
            ClientReply::Failed(ClientError::Reserved | ClientError::Founding) => return None,
            _ => return Some(JoinError::NoLeader),
        }
        let is_enabled = self.joiner.handle.facts().security().is_enabled();
        if !is_enabled || self.joiner.address_book.is_a_members(shown) {
            return None;
        }
        Some(JoinError::Conflict(format!(
            "the caller's certificate is of {:?}, which is no member, and in this cluster it takes the right `members` to add \
             one: have it added with `infinitystore member add {name}={raft_addr}`",
            shown.name
        )))
    }

    /// `None` if no answer is better than a wrong one.
    async fn answer(&self, question: Question) -> Option<Reply> {
        let joiner = &self.joiner;
        Some(match question {
            Question::Describe => Reply::Described(joiner.describe_me().await),
            Question::Join { name, raft_addr, hops } => {
                Reply::Joined(joiner.join(&name, &raft_addr, hops).await)
            }
            Question::Announce { id, store, raft_addr, http_addr } => {
                done(joiner.announce(id, store, raft_addr, http_addr).await)
            }
            Question::Reserve { cluster, micros } => match joiner.reserve(cluster, micros).await {
                Ok(store) => Reply::Reserved(store),
                Err(reason) => Reply::Refused(reason),
            },
            Question::Release(cluster) => {
                let _ = joiner.handle.orders.send(DriverOrder::Release(cluster)).await;
                Reply::Done
            }
            Question::Adopt(adoption) => done(joiner.adopt(adoption).await?),
            Question::Manage { order, conditions, hops } => {
                Reply::Managed(joiner.manage(&order, conditions, hops).await)
            }
            Question::Members => Reply::Members(joiner.own_view().await),
            Question::Mend(call) => Reply::Mend(self.mend(call).await?),
        })
    }
}

impl<E: Env> PeerQuestions<E> {
    /// Answers a node that repairs its data directory. `None` when this node has ended.
    async fn mend(&self, call: MendCall) -> Option<MendReply> {
        let orders = &self.joiner.handle.orders;
        let asks_leader = matches!(call.wants, MendWants::Leader);
        let (reply, answer) = oneshot::channel();
        orders.send(DriverOrder::Mend(call, reply)).await.ok()?;
        let first = answer.await.ok()?;
        if !asks_leader || !matches!(first, MendReply::Leads { .. }) {
            return Some(first);
        }
        // A quorum has to confirm it now: the caller may have acknowledged what a later leader
        // sent.
        let term = self.joiner.handle.status().await.replica.term;
        let confirmed = self.joiner.handle.request(ClientRequest::Barrier).await;
        if confirmed != ClientReply::UpToDate {
            return Some(MendReply::Refused("no quorum confirms this leader".to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        orders.send(DriverOrder::Leads(term, reply)).await.ok()?;
        answer.await.ok()
    }
}

fn done(result: Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(reason) => Reply::Refused(reason),
    }
}
