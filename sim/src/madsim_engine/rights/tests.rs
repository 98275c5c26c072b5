use super::{OPERATOR_HASH, ROLES, Shown, TOKENS, hash_of, may_be_of};
use crate::checks::keyspace::rules::Rules;
use infinitystore::kv::{AdminRights, ROOT_ROLE, SecurityChange, Subject, TokenOwner};

fn token(name: &str, hash: &str, roles: &[&str]) -> SecurityChange {
    let owner = TokenOwner::Roles(roles.iter().map(|role| (*role).to_owned()).collect());
    SecurityChange::AddToken { name: name.to_owned(), hash: hash_of(hash), owner, ends_at: None }
}

/// The rules after each of these changes, the first one without any.
fn rules(changes: Vec<SecurityChange>) -> Vec<Rules> {
    let mut all = vec![Rules::default()];
    for change in changes {
        let next = all[all.len() - 1].changed(&change);
        all.push(next.expect("a change that may be made"));
    }
    all
}

#[test]
fn a_write_is_its_callers_or_nobodys_in_a_cluster_that_is_open() {
    let (name, hash) = TOKENS[0];
    let role = ROLES[0].to_owned();
    let all = rules(vec![
        token("operator", OPERATOR_HASH, &[ROOT_ROLE]),
        SecurityChange::AddRole { name: role.clone(), grants: Vec::new(), admin: AdminRights::NONE },
        SecurityChange::Enable,
        token(name, hash, &[&role]),
        SecurityChange::Disable,
    ]);
    let [.., closed, known, open] = &all[..] else { panic!("there are six") };
    let shown = Shown::Token(name, hash);
    let its = known.principal(name).map(|by| by.subject);
    assert!(matches!(its, Some(Subject::Token(_))));
    // The node had the rules `known`, or had heard meanwhile that the cluster is open.
    let of = |by, before| may_be_of(by, shown, before, [known, open].into_iter());
    assert!(of(its, known));
    assert!(of(its, open), "it is asked for while the rules are in force");
    assert!(of(None, open), "the node had heard that the cluster is open, and asked for no name");
    assert!(!of(None, known), "no write is done without a name");
    assert!(!of(Some(Subject::User(99)), open), "somebody else's");
    // Nobody knew the token then; and yet no write without a name was done.
    assert!(!may_be_of(None, shown, closed, [closed].into_iter()));
}
