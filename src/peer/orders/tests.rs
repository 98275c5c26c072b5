use crate::peer::orders::{OrderCode, OrderError};
use crate::raft::NodeId;
use crate::replica::ClientError;

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
