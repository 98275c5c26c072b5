//! Users, roles and tokens, written once more from `docs/security.md`: what a change of them does,
//! and what they say of a range. The rules know nothing of sorted ranges: a range is granted if
//! nothing of it is left once all that is granted is taken away from it.

use bytes::Bytes;
use infinitystore::kv::{
    AdminRight, AdminRights, Denial, Grant, KeyRange, Principal, ROOT_ROLE, Security, SecurityChange,
    SecurityRefusal, Subject, TokenOwner, TokenRights,
};
use std::collections::{BTreeMap, BTreeSet};

/// Names of roles.
type Names = BTreeSet<String>;

#[derive(Clone, Debug, PartialEq)]
struct User {
    id: u64,
    /// The change that set its password.
    since: u64,
    /// Its hash.
    password: Option<String>,
    roles: Names,
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    id: u64,
    hash: [u8; 32],
    rights: TokenRights,
    ends_at: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
struct Role {
    grants: Vec<Grant>,
    admin: AdminRights,
}

impl Role {
    /// What is granted twice is granted once: then it is revoked as well.
    fn grant(&mut self, grants: &[Grant]) {
        for grant in grants {
            if !self.grants.contains(grant) {
                self.grants.push(grant.clone());
            }
        }
    }
}

/// The rules as they are after some change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Whether requests are judged.
    pub enabled: bool,
    /// How many changes there were.
    pub changes: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    tokens: BTreeMap<String, Token>,
}

impl Rules {
    /// The rules after a change.
    ///
    /// # Errors
    /// Why it is not made.
    pub fn changed(&self, change: &SecurityChange) -> Result<Self, SecurityRefusal> {
        let mut next = self.clone();
        next.changes += 1;
        next.make(change)?;
        match (next.enabled, self.enabled, next.has_way_in()) {
            (true, true, false) => Err(SecurityRefusal::WouldLockOut),
            (true, false, false) => Err(SecurityRefusal::NoAdministrator),
            _ => Ok(next),
        }
    }

    fn make(&mut self, change: &SecurityChange) -> Result<(), SecurityRefusal> {
        let id = self.changes;
        match change {
            SecurityChange::Enable => self.enabled = true,
            SecurityChange::Disable => self.enabled = false,
            SecurityChange::AddUser { name, password, roles } => {
                if self.users.contains_key(name) {
                    return Err(SecurityRefusal::UserExists);
                }
                let user = User { id, since: id, password: password.clone(), roles: self.known(roles)? };
                self.users.insert(name.clone(), user);
            }
            SecurityChange::RemoveUser(name) => {
                let user = self.users.remove(name).ok_or(SecurityRefusal::NoUser)?;
                self.tokens.retain(|_, token| token.rights != TokenRights::User(user.id));
            }
            SecurityChange::SetPassword { name, password } => {
                let user = self.users.get_mut(name).ok_or(SecurityRefusal::NoUser)?;
                (user.since, user.password) = (id, password.clone());
            }
            SecurityChange::ChangeUser { name, grant, revoke } => {
                let grant = self.known(grant)?;
                let user = self.users.get_mut(name).ok_or(SecurityRefusal::NoUser)?;
                user.roles.extend(grant);
                user.roles.retain(|role| !revoke.contains(role));
            }
            SecurityChange::AddRole { name, grants, admin } => {
                if name == ROOT_ROLE || self.roles.contains_key(name) {
                    return Err(SecurityRefusal::RoleExists);
                }
                let mut role = Role { grants: Vec::new(), admin: *admin };
                role.grant(grants);
                self.roles.insert(name.clone(), role);
            }
            SecurityChange::RemoveRole(name) => {
                self.role_mut(name)?;
                self.roles.remove(name);
                self.users.values_mut().for_each(|user| user.roles.retain(|role| role != name));
                for token in self.tokens.values_mut() {
                    if let TokenRights::Roles(roles) = &mut token.rights {
                        roles.remove(name);
                    }
                }
            }
            SecurityChange::ChangeRole { name, grant, revoke, grant_admin, revoke_admin } => {
                let role = self.role_mut(name)?;
                for one in revoke {
                    let at = role.grants.iter().position(|is| is == one).ok_or(SecurityRefusal::NoGrant)?;
                    role.grants.remove(at);
                }
                role.grant(grant);
                let has = |right: &AdminRight| {
                    (role.admin.has(*right) || grant_admin.has(*right)) && !revoke_admin.has(*right)
                };
                role.admin =
                    AdminRight::ALL.into_iter().filter(has).fold(AdminRights::NONE, AdminRights::with);
            }
            SecurityChange::AddToken { name, hash, owner, ends_at } => {
                if self.tokens.contains_key(name) || self.tokens.values().any(|token| token.hash == *hash) {
                    return Err(SecurityRefusal::TokenExists);
                }
                let rights = match owner {
                    TokenOwner::User(user) => {
                        TokenRights::User(self.users.get(user).ok_or(SecurityRefusal::NoUser)?.id)
                    }
                    TokenOwner::Roles(roles) => TokenRights::Roles(self.known(roles)?),
                };
                self.tokens.insert(name.clone(), Token { id, hash: *hash, rights, ends_at: *ends_at });
            }
            SecurityChange::RevokeToken(name) => {
                self.tokens.remove(name).ok_or(SecurityRefusal::NoToken)?;
            }
        }
        Ok(())
    }

    fn known(&self, names: &[String]) -> Result<Names, SecurityRefusal> {
        let is_known = |name: &String| name == ROOT_ROLE || self.roles.contains_key(name);
        if names.iter().all(is_known) {
            Ok(names.iter().cloned().collect())
        } else {
            Err(SecurityRefusal::NoRole)
        }
    }

    fn role_mut(&mut self, name: &str) -> Result<&mut Role, SecurityRefusal> {
        if name == ROOT_ROLE {
            return Err(SecurityRefusal::BuiltIn);
        }
        self.roles.get_mut(name).ok_or(SecurityRefusal::NoRole)
    }

    /// Whether anybody has all rights, and credentials that no clock ends.
    fn has_way_in(&self) -> bool {
        let is_root = |roles: &Names| roles.contains(ROOT_ROLE);
        let is_token =
            |token: &Token| token.ends_at.is_none() && self.roles_of_token(token).is_some_and(is_root);
        self.users.values().any(|user| user.password.is_some() && is_root(&user.roles))
            || self.tokens.values().any(is_token)
    }

    fn user(&self, id: u64) -> Option<&User> {
        self.users.values().find(|user| user.id == id)
    }

    fn roles_of_token<'s>(&'s self, token: &'s Token) -> Option<&'s Names> {
        match &token.rights {
            TokenRights::User(id) => self.user(*id).map(|user| &user.roles),
            TokenRights::Roles(roles) => Some(roles),
        }
    }

    /// The roles of a caller.
    ///
    /// # Errors
    /// It is nobody, or not any more.
    pub(super) fn roles_of(&self, by: Option<&Principal>) -> Result<&Names, Denial> {
        let by = by.ok_or(Denial::NoCredentials)?;
        let roles = match by.subject {
            Subject::User(id) => self.user(id).filter(|user| user.since <= by.as_of).map(|user| &user.roles),
            Subject::Token(id) => {
                let token = self.tokens.values().find(|token| token.id == id);
                token.and_then(|token| self.roles_of_token(token))
            }
        };
        roles.ok_or(Denial::Ended)
    }

    /// Whether roles let their holder read, or write, all of a range.
    pub(super) fn covers(&self, roles: &Names, writes: bool, range: &KeyRange) -> bool {
        let grants =
            self.roles.iter().filter(|(name, _)| roles.contains(*name)).flat_map(|(_, role)| &role.grants);
        let mut left = vec![range.clone()];
        for grant in grants.filter(|grant| if writes { grant.access.writes() } else { grant.access.reads() })
        {
            left = left.iter().flat_map(|piece| without(piece, &grant.range)).collect();
        }
        roles.contains(ROOT_ROLE) || !is_empty(range) && left.is_empty()
    }

    /// Whether there is no key that roles let their holder write.
    pub(super) fn writes_nothing(&self, roles: &Names) -> bool {
        let mut of_roles = self.roles.iter().filter(|(name, _)| roles.contains(*name));
        let writes = |grant: &Grant| grant.access.writes() && !is_empty(&grant.range);
        !roles.contains(ROOT_ROLE) && !of_roles.any(|(_, role)| role.grants.iter().any(writes))
    }

    /// Whether roles let their holder do something with the cluster.
    pub(super) fn administers(&self, roles: &Names, right: AdminRight) -> bool {
        let has = |name: &String| self.roles.get(name).is_some_and(|role| role.admin.has(right));
        roles.contains(ROOT_ROLE) || roles.iter().any(has)
    }

    /// Whose things are that a caller makes: those that a user's token makes are the user's.
    pub(super) fn owner(&self, by: Option<&Principal>) -> Option<Subject> {
        let subject = by.filter(|_| self.enabled)?.subject;
        let Subject::Token(id) = subject else { return Some(subject) };
        match self.tokens.values().find(|token| token.id == id)?.rights {
            TokenRights::User(user) => Some(Subject::User(user)),
            TokenRights::Roles(_) => Some(subject),
        }
    }

    /// Whether a user of that name is a caller.
    pub(super) fn is_user(&self, name: &str, by: Option<&Principal>) -> bool {
        let user = self.users.get(name).map(|user| Subject::User(user.id));
        user.is_some() && user == by.map(|by| by.subject)
    }

    /// Whoever shows the credentials of a user or a token of that name, by these rules.
    #[must_use]
    pub fn principal(&self, name: &str) -> Option<Principal> {
        let user = self.users.get(name).map(|user| Subject::User(user.id));
        let subject = user.or_else(|| self.tokens.get(name).map(|token| Subject::Token(token.id)))?;
        Some(Principal { subject, as_of: self.changes })
    }

    /// The hash of a user's password.
    #[must_use]
    pub fn password(&self, user: &str) -> Option<&str> {
        self.users.get(user)?.password.as_deref()
    }

    /// The change that set it.
    #[must_use]
    pub fn password_since(&self, user: &str) -> Option<u64> {
        self.users.get(user).map(|user| user.since)
    }

    /// The hash of a token, and when it ends.
    #[must_use]
    pub fn token(&self, name: &str) -> Option<(&[u8; 32], Option<u64>)> {
        self.tokens.get(name).map(|token| (&token.hash, token.ends_at))
    }

    /// Whether there is a user or a role of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.users.contains_key(name) || self.roles.contains_key(name)
    }

    /// The grants of a role, if there is one.
    pub fn grants(&self, role: &str) -> &[Grant] {
        self.roles.get(role).map_or(&[], |role| &role.grants)
    }

    /// Whether the product's rules are these.
    pub(super) fn are(&self, product: &Security) -> bool {
        let users = product.users().map(|user| {
            let (id, since, roles) = (user.id, user.password_since, user.roles.clone());
            (user.name.clone(), User { id, since, password: user.password.clone(), roles })
        });
        let roles = product
            .roles()
            .map(|role| (role.name.clone(), Role { grants: role.grants.clone(), admin: role.admin }));
        let tokens = product.tokens().map(|token| {
            let (id, hash, rights, ends_at) = (token.id, token.hash, token.rights.clone(), token.ends_at);
            (token.name.clone(), Token { id, hash, rights, ends_at })
        });
        let (enabled, changes) = (product.is_enabled(), product.revision());
        let (users, roles, tokens) = (users.collect(), roles.collect(), tokens.collect());
        *self == Self { enabled, changes, users, roles, tokens }
    }
}

fn is_empty(range: &KeyRange) -> bool {
    range.end.as_ref().is_some_and(|end| *end <= range.start)
}

/// What is left of a range without another one.
fn without(range: &KeyRange, other: &KeyRange) -> Vec<KeyRange> {
    let least = |one: Option<&Bytes>, other: Option<&Bytes>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other).clone()),
        (one, other) => one.or(other).cloned(),
    };
    let before = KeyRange { start: range.start.clone(), end: least(range.end.as_ref(), Some(&other.start)) };
    let behind = other
        .end
        .as_ref()
        .map(|end| KeyRange { start: end.max(&range.start).clone(), end: range.end.clone() });
    [Some(before), behind].into_iter().flatten().filter(|piece| !is_empty(piece)).collect()
}
