use crate::peer::orders::{Health, MemberView, MembersView, OrderCode, OrderError};
use crate::raft::NodeId;
use crate::replica::{ClientError, Standing};

impl MembersView {
    /// What a member says that knows these others, by ids and names.
    pub(crate) fn naming(members: &[(u64, &str)]) -> Self {
        let one = |(id, name): &(u64, &str)| MemberView {
            id: NodeId::new(*id),
            name: (*name).to_owned(),
            raft_addr: format!("{name}:1"),
            http_addr: format!("{name}:2"),
            standing: Standing::Voter,
            health: Health::Unknown,
            match_index: None,
            lag: None,
            replication: None,
            silent_micros: None,
            withdrawn: None,
        };
        Self {
            told_by: "n3".to_owned(),
            configuration: 7,
            committed: true,
            joint: false,
            leader: None,
            members: members.iter().map(one).collect(),
        }
    }
}

/// What stands in the way at the leader is told where the order was given, too.
#[test]
fn an_order_says_why_the_leader_did_not_carry_it_out() {
    for (error, code) in [
        (ClientError::Overloaded, OrderCode::Overloaded),
        (ClientError::DiskFull, OrderCode::DiskFull),
        (ClientError::Reserved, OrderCode::Unavailable),
    ] {
        assert_eq!(OrderError::of_client(&error, |id: NodeId| id.to_string()).code, code);
    }
}
