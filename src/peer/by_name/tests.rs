use super::Named;
use crate::codec::{from_bytes, to_bytes};
use crate::peer::orders::{Health, MemberDone, MemberView};
use crate::raft::{NodeId, ReplicationState};
use crate::replica::Standing;

/// A member as it goes over the wire: names are text.
type InText = (u64, String, (String, String), String, String, Option<u64>, Option<u64>, Option<String>);

fn view(standing: Standing, health: Health, replication: Option<ReplicationState>) -> MemberView {
    MemberView {
        id: NodeId::new(2),
        name: "b".to_owned(),
        raft_addr: "r".to_owned(),
        http_addr: "h".to_owned(),
        standing,
        health,
        match_index: Some(7),
        lag: None,
        replication,
        silent_micros: None,
        withdrawn: None,
    }
}

fn in_text(standing: &str, health: &str, replication: Option<&str>) -> (InText, Option<u64>, Option<String>) {
    let addresses = ("r".to_owned(), "h".to_owned());
    let replication = replication.map(str::to_owned);
    let known = (Some(7), None);
    let text = (2, "b".to_owned(), addresses, standing.to_owned(), health.to_owned());
    ((text.0, text.1, text.2, text.3, text.4, known.0, known.1, replication), None, None)
}

#[test]
fn a_member_goes_over_as_text() {
    for standing in Standing::ALL {
        for health in Health::ALL {
            for replication in ReplicationState::ALL.iter().copied().map(Some).chain([None]) {
                let member = view(standing, *health, replication);
                let text = in_text(standing.name(), health.name(), replication.map(ReplicationState::name));
                let bytes = to_bytes(&text);
                assert_eq!(to_bytes(&member), bytes);
                assert_eq!(from_bytes::<MemberView>("a member", &bytes).unwrap(), member);
            }
        }
    }
}

#[test]
fn a_name_that_nothing_has_is_an_error() {
    let good = (2_u64, "b".to_owned(), "learner".to_owned());
    let done = from_bytes::<MemberDone>("a member", &to_bytes(&good)).unwrap();
    assert_eq!(done.standing, Standing::Learner);
    let bad = (2_u64, "b".to_owned(), "Learner".to_owned());
    assert!(from_bytes::<MemberDone>("a member", &to_bytes(&bad)).is_err());
    assert!(
        from_bytes::<MemberView>("a member", &to_bytes(&in_text("voter", "ok", Some("waiting")))).is_err()
    );
}
