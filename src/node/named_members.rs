//! The members that an order names, by their ids or by their names.

use crate::peer::orders::{OrderCode, OrderError};
use crate::peer::rpc::Description;
use crate::raft::{Member, Membership, NodeId, Promotion};
use std::collections::BTreeSet;

/// The member that is named: by its id, by its name, or by `id:` or `name:` and either.
pub(super) fn resolve(membership: &Membership, named: &str) -> Result<NodeId, OrderError> {
    let named_so = |name: &str| -> Vec<NodeId> {
        membership.members.iter().filter(|(_, member)| member.name == name).map(|(id, _)| *id).collect()
    };
    let by_name = |name: &str| named_so(name).first().copied();
    let name = named.strip_prefix("name:").unwrap_or(named);
    if let [one, other, ..] = named_so(name)[..]
        && !named.starts_with("id:")
    {
        let text = format!("members {one} and {other} are both named {name}: say id:{one} or id:{other}");
        return Err(OrderError::new(OrderCode::Ambiguous, text));
    }
    let by_id = |id: &str| {
        let id = id.parse().ok().map(NodeId::new);
        id.filter(|id| membership.contains(*id))
    };
    let found = if let Some(id) = named.strip_prefix("id:") {
        by_id(id)
    } else if let Some(name) = named.strip_prefix("name:") {
        by_name(name)
    } else {
        match (by_id(named), by_name(named)) {
            (Some(id), Some(other)) if id != other => {
                let text = format!(
                    "{named} is the id of one member and the name of another: say id:{named} or name:{named}"
                );
                return Err(OrderError::new(OrderCode::Ambiguous, text));
            }
            (id, name) => id.or(name),
        }
    };
    found.ok_or_else(|| {
        let known: Vec<String> =
            membership.members.iter().map(|(id, member)| format!("{} ({id})", member.name)).collect();
        let text = format!("there is no member {named}; there are {}", known.join(", "));
        OrderError::new(OrderCode::NoMember, text)
    })
}

pub(super) fn resolve_all(membership: &Membership, named: &[String]) -> Result<BTreeSet<NodeId>, OrderError> {
    named.iter().map(|named| resolve(membership, named)).collect()
}

/// Whether an order to add nodes that are members already has been carried out, or goes on by
/// itself.
///
/// # Errors
/// [`OrderError`] if it was another order that made them members.
pub(super) fn check_repeated(
    membership: &Membership,
    nodes: &[NodeId],
    named: &[String],
    learners: bool,
) -> Result<(), OrderError> {
    let names = |ids: &[NodeId]| {
        let names: Vec<String> = ids.iter().map(|id| name_of(membership, *id)).collect();
        names.join(" and ")
    };
    let promotion = |id: &NodeId| membership.learners.get(id);
    let more: Vec<NodeId> =
        nodes.iter().filter(|id| promotion(id) != Some(&Promotion::Never)).copied().collect();
    if learners && !more.is_empty() {
        let text =
            format!("{} is a member already, and no learner that is to stay one; leave it out", names(&more));
        return Err(OrderError::new(OrderCode::NodeHasData, text));
    }
    let is_leaving = |old: &NodeId| {
        let waits = |id: &NodeId| matches!(promotion(id), Some(Promotion::WhenCaughtUp { replaces, .. }) if replaces.contains(old));
        let leaves = membership.is_joint() && !membership.voters.contains(old) && promotion(old).is_none();
        leaves || nodes.iter().any(waits)
    };
    // A member that nobody knows by that name may have been replaced before.
    let is_named = |id: &NodeId, member: &Member| {
        let text = id.to_string();
        named.iter().any(|named| {
            let (as_id, as_name) = (named.strip_prefix("id:"), named.strip_prefix("name:"));
            match (as_id, as_name) {
                (Some(id), _) => id == text,
                (None, Some(name)) => name == member.name,
                (None, None) => *named == text || *named == member.name,
            }
        })
    };
    let others = membership.members.iter().filter(|(id, member)| is_named(id, member));
    let staying: Vec<NodeId> =
        others.map(|(id, _)| *id).filter(|id| !nodes.contains(id) && !is_leaving(id)).collect();
    if staying.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{} is a member already, and does not replace {}, which stays; remove {} with an order of its own",
        names(nodes),
        names(&staying),
        names(&staying)
    );
    Err(OrderError::new(OrderCode::NodeHasData, text))
}

/// The member that a node is already.
pub(super) fn is_member(membership: &Membership, target: &Description) -> Option<NodeId> {
    let member = membership.members.get(&target.id)?;
    (member.store_id == target.store).then_some(target.id)
}

pub(super) fn name_of(membership: &Membership, id: NodeId) -> String {
    membership.members.get(&id).map_or_else(|| id.to_string(), |member| member.name.clone())
}
