//! The callers of requests in runs with users, and what administrators change.
//!
//! There is always a way in that nothing takes away: the token of the operator, with all rights. It
//! has an end, so that it does not count as a way in that lasts. The first two changes of a run
//! make it, and a user with all rights. The clients of single keys, the operator and the probes
//! come with it.

use crate::checks::keyspace::rules::Rules;
use crate::schedule::{KeyspaceKind, KeyspaceOperation};
use infinitystore::kv::{
    Access, AdminRight, AdminRights, Grant, KeyRange, Principal, Query, ROOT_ROLE, SecurityChange, Subject,
    TokenOwner,
};
use infinitystore::replica::ClientRequest;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What every password is kept as, but for its end.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$";
/// The administrator that comes first.
const FIRST: &str = "first";
/// The operator's token.
const OPERATOR: &str = "operator";
/// Users that come and go.
const USERS: [&str; 3] = ["a", "b", "c"];
/// Tokens that come and go.
const TOKENS: [&str; 3] = ["s", "t", "u"];
const ROLES: [&str; 4] = ["reader", "writer", "other", "large"];
/// Bounds of what is granted: beginnings and ends of keys of these clients, and others.
const BOUNDS: [&[u8]; 9] = [b"k/", b"k/a", b"k/a\0", b"k/b", b"k/b/", b"k/b0", b"k/n1", b"k0", b"z"];
/// The principal of the operator's token, which is the second thing that is made.
pub const OPERATOR_IS: Principal = Principal { subject: Subject::Token(2), as_of: 2 };

/// The caller of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Nobody says who asks.
    #[default]
    Nobody,
    /// The operator.
    Operator,
    /// A client with the credentials of this user or token, as the machine that is asked knows
    /// them. If it knows none, the client has those of another user.
    Known(&'static str),
    /// The one that this client was when it asked last, as it was found out then.
    AsBefore,
    /// Somebody whom a node of a bygone time, or nobody, found out.
    Guessed(Principal),
}

impl Caller {
    /// The caller's principal, by what a machine has. `before`: the principal with which this
    /// client asked last.
    #[must_use]
    pub fn principal(self, rules: &Rules, before: Option<Principal>) -> Option<Principal> {
        match self {
            Self::Nobody => None,
            Self::Operator => Some(OPERATOR_IS),
            Self::Known(name) => {
                let others = USERS.into_iter().chain(TOKENS);
                rules.principal(name).or_else(|| others.into_iter().find_map(|other| rules.principal(other)))
            }
            Self::AsBefore => before,
            Self::Guessed(principal) => Some(principal),
        }
    }

    /// The caller of an operation. One that ends the small limits of a run is not to be denied.
    pub(super) fn of(client: usize, operation: &KeyspaceOperation) -> Self {
        let mut rng = SmallRng::seed_from_u64(!operation.draw);
        match operation.kind {
            KeyspaceKind::Unlimit => Self::Operator,
            KeyspaceKind::Secure | KeyspaceKind::Limit | KeyspaceKind::Compact => {
                Self::draw_administrator(&mut rng, client)
            }
            _ => Self::draw(&mut rng, client),
        }
    }

    /// Mostly the same for a client.
    fn draw(rng: &mut SmallRng, client: usize) -> Self {
        let names = [USERS, TOKENS].concat();
        match rng.random_range(0..20) {
            0 => Self::Nobody,
            1 => Self::Operator,
            2 => {
                let id = rng.random_range(0..24);
                let subject = if rng.random() { Subject::User(id) } else { Subject::Token(id) };
                Self::Guessed(Principal { subject, as_of: rng.random_range(0..24) })
            }
            3..6 => Self::AsBefore,
            6..9 => Self::Known(names[rng.random_range(0..names.len())]),
            _ => Self::Known(names[client % names.len()]),
        }
    }

    /// An administrator, and now and then somebody who would like to be one.
    fn draw_administrator(rng: &mut SmallRng, client: usize) -> Self {
        match rng.random_range(0..10) {
            0 => Self::draw(rng, client),
            1..4 => Self::Known(FIRST),
            _ => Self::Operator,
        }
    }
}

fn pick(rng: &mut SmallRng, names: &[&str]) -> String {
    names[rng.random_range(0..names.len())].to_owned()
}

fn roles(rng: &mut SmallRng) -> Vec<String> {
    let mut roles: Vec<String> =
        (0..[1, 1, 2, 3, 0][rng.random_range(0..5)]).map(|_| pick(rng, &ROLES)).collect();
    if rng.random_bool(0.05) {
        roles.push(ROOT_ROLE.to_owned());
    }
    roles
}

fn password(rng: &mut SmallRng) -> Option<String> {
    rng.random_bool(0.8).then(|| format!("{HASH}{}", rng.random::<u64>()))
}

fn grant(rng: &mut SmallRng) -> Grant {
    use Access::{Read, ReadWrite, Write};
    let access = [Read, Write, ReadWrite, ReadWrite][rng.random_range(0..4)];
    let range = match rng.random_range(0..8) {
        0..4 => KeyRange::prefix(&b"k/"[..]),
        4 => KeyRange { start: bytes::Bytes::from_static(BOUNDS[rng.random_range(0..8)]), end: None },
        5 => KeyRange::one(BOUNDS[rng.random_range(0..7)]),
        _ => {
            let from = rng.random_range(0..BOUNDS.len() - 1);
            let to = rng.random_range(from + 1..BOUNDS.len());
            let [start, end] = [from, to].map(|bound| bytes::Bytes::from_static(BOUNDS[bound]));
            KeyRange { start, end: Some(end) }
        }
    };
    Grant { range, access }
}

fn grants(rng: &mut SmallRng) -> Vec<Grant> {
    (0..[1, 1, 2, 3, 0][rng.random_range(0..5)]).map(|_| grant(rng)).collect()
}

fn admin(rng: &mut SmallRng) -> AdminRights {
    let rights = AdminRight::ALL.into_iter();
    rights.filter(|_| rng.random_bool(0.1)).fold(AdminRights::NONE, AdminRights::with)
}

/// What an administrator changes, by what the rules are: mostly something that can be done.
pub(super) fn change(rng: &mut SmallRng, rules: &Rules) -> SecurityChange {
    let mut wanted = any_change(rng, rules);
    for _ in 0..5 {
        if rules.changed(&wanted).is_ok() || rng.random_bool(0.1) {
            break;
        }
        wanted = any_change(rng, rules);
    }
    wanted
}

fn any_change(rng: &mut SmallRng, rules: &Rules) -> SecurityChange {
    if rules.changes == 0 {
        let (password, roles) = (Some(format!("{HASH}0")), vec![ROOT_ROLE.to_owned()]);
        return SecurityChange::AddUser { name: FIRST.to_owned(), password, roles };
    }
    if rules.changes == 1 {
        let owner = TokenOwner::Roles(vec![ROOT_ROLE.to_owned()]);
        let (name, hash, ends_at) = (OPERATOR.to_owned(), [0; 32], Some(u64::MAX));
        return SecurityChange::AddToken { name, hash, owner, ends_at };
    }
    if !rules.enabled && rules.changes > 9 && rng.random_bool(0.6) {
        return SecurityChange::Enable;
    }
    let is_first = !rules.enabled && rules.changes < 10 && rng.random_bool(0.95);
    let draw = rng.random_range(0..40);
    match if is_first { MAKES[draw % MAKES.len()] } else { draw } {
        0 => SecurityChange::Disable,
        1 => SecurityChange::Enable,
        2..6 => {
            SecurityChange::AddUser { name: pick(rng, &USERS), password: password(rng), roles: roles(rng) }
        }
        6 | 7 => SecurityChange::RemoveUser(pick(rng, &USERS)),
        8..11 => SecurityChange::SetPassword { name: pick(rng, &USERS), password: password(rng) },
        11..17 => SecurityChange::ChangeUser {
            name: pick(rng, &USERS),
            grant: roles(rng),
            revoke: if rng.random() { roles(rng) } else { Vec::new() },
        },
        17..22 => SecurityChange::AddRole { name: pick(rng, &ROLES), grants: grants(rng), admin: admin(rng) },
        22 | 23 => SecurityChange::RemoveRole(pick(rng, &ROLES)),
        24..29 => change_role(rng, rules),
        29..33 => {
            let owner = match rng.random() {
                true => TokenOwner::User(pick(rng, &USERS)),
                false => TokenOwner::Roles(roles(rng)),
            };
            let ends_at = rng.random_bool(0.5).then_some(u64::MAX);
            SecurityChange::AddToken { name: pick(rng, &TOKENS), hash: rng.random(), owner, ends_at }
        }
        33..36 => SecurityChange::RevokeToken(pick(rng, &TOKENS)),
        36 | 37 if rules.enabled => attack(rng),
        _ => change_role(rng, rules),
    }
}

/// The draws that make users, roles and tokens.
const MAKES: [usize; 6] = [2, 17, 29, 2, 17, 18];

fn change_role(rng: &mut SmallRng, rules: &Rules) -> SecurityChange {
    let name = pick(rng, &ROLES);
    let has = rules.grants(&name);
    let revoke = has.get(rng.random_range(0..has.len() + 1)).cloned().into_iter().collect();
    let grant = if rng.random() { grants(rng) } else { Vec::new() };
    SecurityChange::ChangeRole { name, grant, revoke, grant_admin: admin(rng), revoke_admin: admin(rng) }
}

/// The last way in is to be taken away, and the role that has all rights to be changed.
fn attack(rng: &mut SmallRng) -> SecurityChange {
    let (name, root) = (FIRST.to_owned(), ROOT_ROLE.to_owned());
    match rng.random_range(0..6) {
        0 => SecurityChange::RemoveUser(name),
        1 => SecurityChange::ChangeUser { name, grant: Vec::new(), revoke: vec![root] },
        2 => SecurityChange::AddRole { name: root, grants: grants(rng), admin: AdminRights::NONE },
        3 => SecurityChange::RemoveRole(root),
        _ => SecurityChange::SetPassword { name, password: None },
    }
}

/// Where there are rights: ranges without an end, questions about rights, and commands that claim
/// another caller.
pub(super) fn awkward(request: &mut ClientRequest, draw: u64) {
    let is_open = draw.is_multiple_of(9);
    match request {
        ClientRequest::Watch(query) if is_open => query.range.end = None,
        ClientRequest::Read { query: Query::Range(query), .. } if is_open => query.range.end = None,
        ClientRequest::Read { query: query @ Query::Settings, .. } if draw.is_multiple_of(2) => {
            let right = AdminRight::ALL[(draw / 2 % 4) as usize];
            *query = Query::Permission(right);
        }
        ClientRequest::Write(command) if draw.is_multiple_of(10) => {
            command.by = Some(OPERATOR_IS);
        }
        _ => {}
    }
}
