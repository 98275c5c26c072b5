//! What other members give, as bytes.

use crate::node::repair::fetch::decode_chunk;
use crate::raft::{LogId, LogIndex, Member, Membership, SnapshotMeta, StoreId, Term};

/// A snapshot of ten bytes.
fn described() -> Vec<u8> {
    let (name, raft_addr, http_addr) = ("a".to_owned(), "a:1".to_owned(), "a:2".to_owned());
    let membership = Membership::bootstrap([Member { name, raft_addr, http_addr, store_id: StoreId(1) }]);
    let at = |index| LogId::new(Term::new(2), LogIndex::new(index));
    let (membership, membership_id) = (membership.unwrap(), at(1));
    SnapshotMeta { last: at(7), membership, membership_id, bytes: 10, hash: 3 }.encode()
}

#[test]
fn a_chunk_has_to_fit_into_its_snapshot() {
    let decoded = |offset, length: usize, done| decode_chunk(&described(), offset, vec![0; length], done);
    for (offset, length, done) in [(0, 4, false), (4, 6, true), (0, 10, true), (10, 0, true)] {
        let chunk = decoded(offset, length, done).unwrap();
        assert_eq!((chunk.offset, chunk.data.len(), chunk.done), (offset, length, done));
    }
    // A peer that never comes to an end would fill the disk.
    for (offset, length, done) in
        [(4, 6, false), (4, 7, false), (4, 7, true), (0, 4, true), (11, 0, true), (u64::MAX, 1, false)]
    {
        decoded(offset, length, done).unwrap_err();
    }
    decode_chunk(&described()[1..], 0, vec![0; 10], true).unwrap_err();
}
