//! Members that are not known here yet, and that others have named.

use crate::peer::orders::MembersView;
use crate::raft::{MEMBERS_MAX, Membership, NodeId};
use std::collections::BTreeMap;

/// Members that are remembered, at most.
const VOUCHED_MAX: usize = 4 * MEMBERS_MAX;

/// One who is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voucher {
    /// The member; `None`: the node at that address.
    pub id: Option<NodeId>,
    /// Its name, by which it is called.
    pub name: Option<String>,
    /// Where it may be reached.
    pub addr: String,
}

/// Members that others have named.
#[derive(Debug, Default)]
pub(crate) struct Vouched {
    members: BTreeMap<(NodeId, String), Told>,
}

#[derive(Debug)]
struct Told {
    addr: String,
    /// The member of a committed membership at which this chain of vouching begins.
    root: Option<NodeId>,
}

impl Vouched {
    /// The names of a member, as the others say.
    pub(crate) fn names(&self, id: NodeId) -> impl Iterator<Item = &str> {
        let from = (id, String::new());
        let of_member = self.members.range(from..).take_while(move |((known, _), _)| *known == id);
        of_member.map(|((_, name), _)| name.as_str())
    }

    /// They are believed as well: all whom this node knew may be gone.
    pub(crate) fn vouchers(&self) -> impl Iterator<Item = Voucher> + '_ {
        self.members.iter().map(|((id, name), told)| Voucher {
            id: Some(*id),
            name: Some(name.clone()),
            addr: told.addr.clone(),
        })
    }

    /// What one of those who are believed has told.
    pub(crate) fn take(&mut self, by: &Voucher, view: &MembersView) {
        let named_before = by.id.zip(by.name.clone()).and_then(|key| self.members.get(&key));
        let root = named_before.map_or(by.id, |told| told.root);
        for member in view.members.iter().take(MEMBERS_MAX) {
            let key = (member.id, member.name.clone());
            if self.members.len() >= VOUCHED_MAX && !self.members.contains_key(&key) {
                self.members.pop_first();
            }
            self.members.insert(key, Told { addr: member.raft_addr.clone(), root });
        }
    }

    /// Another membership is committed. What it says itself nobody need vouch for, and one who was
    /// removed is not believed any more.
    pub(crate) fn settle(&mut self, committed: &Membership) {
        self.members.retain(|(id, _), told| {
            let is_known = committed.members.contains_key(id) || committed.proves_removed(*id);
            !is_known && !told.root.is_some_and(|root| committed.proves_removed(root))
        });
    }
}

#[cfg(test)]
mod tests;
