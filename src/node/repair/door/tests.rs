//! The raft port of a node that repairs its data directory, with certificates.

use crate::node::repair::door::Door;
use crate::node::tests::securing::{Certificates, dialer};
use crate::peer::mending::{MendCall, MendReply, MendWants};
use crate::peer::rpc::{Question, Reply, ask};
use crate::runtime::{Env, Listener};

const MICROS: u64 = 60_000_000;

#[tokio::test]
async fn it_answers_members_alone() {
    let (ours, theirs) = (Certificates::of(&["a", "b"]), Certificates::of(&["b"]));
    let repairing = dialer(Some(ours.tls("a")));
    let mut listener = repairing.env.listen("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let question = Question::Mend(MendCall { caller: None, cluster: None, wants: MendWants::Leader });
    let asking = async {
        let member = ask(&dialer(Some(ours.tls("b"))), &addr, &question, MICROS).await;
        assert!(
            matches!(&member, Ok(Reply::Mend(MendReply::Refused(why))) if why.contains("repairing")),
            "{member:?}"
        );
        for stranger in [None, Some(theirs.tls("b"))] {
            let told = ask(&dialer(stranger), &addr, &question, MICROS).await.unwrap_err();
            assert!(!told.contains("repairing"), "{told}");
        }
    };
    tokio::select! {
        never = Door::new(&repairing, None, None).run(&mut listener) => match never {},
        () = asking => {}
    }
}
