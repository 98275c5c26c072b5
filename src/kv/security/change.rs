//! What is changed about users, roles and tokens.

use crate::kv::security::rules::{
    AdminRights, Grant, ROOT_ROLE, Role, Security, TOKEN_HASH_BYTES, Token, TokenRights, User,
};
use crate::kv::types::KEY_BYTES_MAX;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// A name of a user, a role or a token is at most this long.
pub(super) const PRINCIPAL_NAME_BYTES_MAX: usize = 128;
/// The hash of a password is at most this long.
pub(super) const PASSWORD_HASH_BYTES_MAX: usize = 512;
/// Roles of one user or token, and grants of one role, at most.
pub(super) const LIST_MAX: usize = 256;
/// Users, roles and tokens take at most this many bytes together.
pub(in crate::kv) const SECURITY_BYTES_MAX: usize = 2 << 20;

/// Whose rights a new token has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenOwner {
    /// Those of the user with this name.
    User(String),
    /// Those of these roles.
    Roles(Vec<String>),
}

/// One change. A command carries it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum SecurityChange {
    /// Requests are judged from now on.
    Enable,
    /// They are not any more.
    Disable,
    /// A new user.
    AddUser {
        /// Its name.
        name: String,
        /// The hash of its password, if it is to have one.
        password: Option<String>,
        /// Its roles.
        roles: Vec<String>,
    },
    /// A user goes, and its tokens with it.
    RemoveUser(String),
    /// Another password, or none. A client that came with the old one is asked again.
    SetPassword {
        /// Name of the user.
        name: String,
        /// The hash of the new one.
        password: Option<String>,
    },
    /// Other roles for a user.
    ChangeUser {
        /// Name of the user.
        name: String,
        /// Roles that it gets.
        grant: Vec<String>,
        /// Roles that it loses.
        revoke: Vec<String>,
    },
    /// A new role.
    AddRole {
        /// Its name.
        name: String,
        /// What it may do with keys.
        grants: Vec<Grant>,
        /// What it may do with the cluster.
        admin: AdminRights,
    },
    /// A role goes. Users and tokens that had it do not have it any more.
    RemoveRole(String),
    /// Other rights for a role.
    ChangeRole {
        /// Name of the role.
        name: String,
        /// What it may do more with keys.
        grant: Vec<Grant>,
        /// Grants that it loses; each as it was granted.
        revoke: Vec<Grant>,
        /// What it may do more with the cluster.
        grant_admin: AdminRights,
        /// What it may do no more.
        revoke_admin: AdminRights,
    },
    /// A new token.
    AddToken {
        /// Its name.
        name: String,
        /// The SHA-256 of what will be shown.
        hash: [u8; TOKEN_HASH_BYTES],
        /// Its rights.
        owner: TokenOwner,
        /// When it ends, seconds since 1970.
        ends_at: Option<u64>,
    },
    /// A token counts no more.
    RevokeToken(String),
}

/// Why a change makes no sense, whatever the rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kv) enum BadChange {
    Name,
    LongList(usize),
    PasswordHash,
    LongKey(usize),
    EmptyRange,
}

/// Hashes are left out.
impl fmt::Debug for SecurityChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name) = self.in_words();
        write!(f, "{what} {name}")
    }
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SecurityRefusal {
    /// No user has that name.
    #[error("there is no such user")]
    NoUser,
    /// A user has that name.
    #[error("there is such a user already; choose another name, or change that one")]
    UserExists,
    /// No role has that name.
    #[error("there is no such role; make it first")]
    NoRole,
    /// A role has that name.
    #[error("there is such a role already; choose another name, or change that one")]
    RoleExists,
    /// No token has that name.
    #[error("there is no such token")]
    NoToken,
    /// A token has that name.
    #[error("there is such a token already; choose another name, or revoke that one")]
    TokenExists,
    /// A role does not have what is to be taken from it.
    #[error("the role has no such grant; a grant is revoked as it was granted")]
    NoGrant,
    /// Nobody could administer the cluster any more.
    #[error(
        "nobody with the role root would be left with a way in that lasts (a password, or a token without an end); give one to another user first, or disable authentication"
    )]
    WouldLockOut,
    /// Nobody could, if it were enabled now.
    #[error(
        "nobody has the role root and a way in that lasts: add a user with that role and a password, or a token without an end, first"
    )]
    NoAdministrator,
    /// The role root is what it is.
    #[error("the role root has all rights; it can be neither changed nor removed")]
    BuiltIn,
    /// There is no room.
    #[error(
        "users, roles and tokens take too much room: at most 2 MiB in all, and 256 roles or grants each; remove some"
    )]
    Full,
}

impl SecurityRefusal {
    const ALL: [Self; 11] = [
        Self::NoUser,
        Self::UserExists,
        Self::NoRole,
        Self::RoleExists,
        Self::NoToken,
        Self::TokenExists,
        Self::NoGrant,
        Self::WouldLockOut,
        Self::NoAdministrator,
        Self::BuiltIn,
        Self::Full,
    ];

    /// As a number.
    pub(in crate::kv) fn code(self) -> u64 {
        let place = Self::ALL.iter().position(|one| *one == self);
        place.map_or(0, |place| place as u64 + 1)
    }

    /// From a number.
    pub(in crate::kv) fn from_code(code: u64) -> Option<Self> {
        let place = usize::try_from(code.checked_sub(1)?).ok()?;
        Self::ALL.get(place).copied()
    }
}

impl SecurityChange {
    /// What it does, and to whom; nothing secret.
    #[must_use]
    pub fn in_words(&self) -> (&'static str, &str) {
        match self {
            Self::Enable => ("enable authentication", ""),
            Self::Disable => ("disable authentication", ""),
            Self::AddUser { name, .. } => ("add user", name),
            Self::RemoveUser(name) => ("remove user", name),
            Self::SetPassword { name, .. } => ("set the password of user", name),
            Self::ChangeUser { name, .. } => ("change the roles of user", name),
            Self::AddRole { name, .. } => ("add role", name),
            Self::RemoveRole(name) => ("remove role", name),
            Self::ChangeRole { name, .. } => ("change role", name),
            Self::AddToken { name, .. } => ("add token", name),
            Self::RevokeToken(name) => ("revoke token", name),
        }
    }

    /// Bytes of its strings.
    pub(in crate::kv) fn bytes(&self) -> usize {
        let strings = |list: &[String]| list.iter().map(String::len).sum::<usize>();
        let grants = |list: &[Grant]| list.iter().map(|grant| grant.range.bytes()).sum::<usize>();
        let name = self.in_words().1.len();
        name + match self {
            Self::AddUser { password, roles, .. } => {
                password.as_ref().map_or(0, String::len) + strings(roles)
            }
            Self::SetPassword { password, .. } => password.as_ref().map_or(0, String::len),
            Self::ChangeUser { grant, revoke, .. } => strings(grant) + strings(revoke),
            Self::AddRole { grants: list, .. } => grants(list),
            Self::ChangeRole { grant, revoke, .. } => grants(grant) + grants(revoke),
            Self::AddToken { owner: TokenOwner::Roles(roles), .. } => TOKEN_HASH_BYTES + strings(roles),
            Self::AddToken { owner: TokenOwner::User(user), .. } => TOKEN_HASH_BYTES + user.len(),
            Self::Enable
            | Self::Disable
            | Self::RemoveUser(_)
            | Self::RemoveRole(_)
            | Self::RevokeToken(_) => 0,
        }
    }

    /// Whether it makes sense, whatever the state.
    pub(in crate::kv) fn check(&self) -> Result<(), BadChange> {
        match self {
            Self::Enable | Self::Disable => return Ok(()),
            Self::AddUser { password, .. } | Self::SetPassword { password, .. } => {
                check_password(password.as_ref())?
            }
            Self::AddRole { grants, .. } => check_grants(grants)?,
            Self::ChangeRole { grant, revoke, .. } => {
                check_grants(grant)?;
                check_grants(revoke)?;
            }
            _ => {}
        }
        check_name(self.in_words().1)?;
        match self {
            Self::AddUser { roles, .. } | Self::AddToken { owner: TokenOwner::Roles(roles), .. } => {
                check_names(roles)
            }
            Self::ChangeUser { grant, revoke, .. } => check_names(grant).and_then(|()| check_names(revoke)),
            Self::AddToken { owner: TokenOwner::User(user), .. } => check_name(user),
            _ => Ok(()),
        }
    }
}

/// Some grants and more of them. What is granted twice stands there once, so that it is gone once
/// it is revoked.
fn with_grants(mut grants: Vec<Grant>, more: &[Grant]) -> Vec<Grant> {
    for one in more {
        if !grants.contains(one) {
            grants.push(one.clone());
        }
    }
    grants
}

/// A name stands in headers, in paths and in lines of text.
fn check_name(name: &str) -> Result<(), BadChange> {
    let is_good = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
    if name.is_empty() || name.len() > PRINCIPAL_NAME_BYTES_MAX || !name.chars().all(is_good) {
        return Err(BadChange::Name);
    }
    Ok(())
}

fn check_names(names: &[String]) -> Result<(), BadChange> {
    if names.len() > LIST_MAX {
        return Err(BadChange::LongList(names.len()));
    }
    names.iter().try_for_each(|name| check_name(name))
}

fn check_password(hash: Option<&String>) -> Result<(), BadChange> {
    let is_good = |hash: &String| hash.starts_with("$argon2id$") && hash.len() <= PASSWORD_HASH_BYTES_MAX;
    if hash.is_none_or(is_good) { Ok(()) } else { Err(BadChange::PasswordHash) }
}

fn check_grants(grants: &[Grant]) -> Result<(), BadChange> {
    if grants.len() > LIST_MAX {
        return Err(BadChange::LongList(grants.len()));
    }
    for Grant { range, .. } in grants {
        let longest = range.start.len().max(range.end.as_ref().map_or(0, |end| end.len().saturating_sub(1)));
        if longest > KEY_BYTES_MAX {
            return Err(BadChange::LongKey(longest));
        }
        if range.is_empty() {
            return Err(BadChange::EmptyRange);
        }
    }
    Ok(())
}

impl Security {
    /// The rules after a change.
    ///
    /// # Errors
    /// [`SecurityRefusal`] if the change is not made.
    pub(in crate::kv) fn changed(&self, change: &SecurityChange) -> Result<Self, SecurityRefusal> {
        let mut next = self.clone();
        next.revision += 1;
        next.make(change)?;
        next.derive();
        if next.bytes > SECURITY_BYTES_MAX {
            return Err(SecurityRefusal::Full);
        }
        if next.enabled && !next.has_administrator() {
            return Err(if self.enabled {
                SecurityRefusal::WouldLockOut
            } else {
                SecurityRefusal::NoAdministrator
            });
        }
        Ok(next)
    }

    fn make(&mut self, change: &SecurityChange) -> Result<(), SecurityRefusal> {
        match change {
            SecurityChange::Enable => self.enabled = true,
            SecurityChange::Disable => self.enabled = false,
            SecurityChange::AddUser { name, password, roles } => {
                if self.user_ids.contains_key(name) {
                    return Err(SecurityRefusal::UserExists);
                }
                let roles = self.known_roles(roles)?;
                let (id, password_since) = (self.revision, self.revision);
                let user = User { id, name: name.clone(), password: password.clone(), password_since, roles };
                self.users.insert(id, user);
            }
            SecurityChange::RemoveUser(name) => {
                let id = self.user_id(name)?;
                self.users.remove(&id);
                self.tokens.retain(|_, token| token.rights != TokenRights::User(id));
            }
            SecurityChange::SetPassword { name, password } => {
                let revision = self.revision;
                let user = self.user_mut(name)?;
                user.password.clone_from(password);
                user.password_since = revision;
            }
            SecurityChange::ChangeUser { name, grant, revoke } => {
                let granted = self.known_roles(grant)?;
                let user = self.user_mut(name)?;
                user.roles.extend(granted);
                user.roles.retain(|role| !revoke.contains(role));
                if user.roles.len() > LIST_MAX {
                    return Err(SecurityRefusal::Full);
                }
            }
            SecurityChange::AddRole { name, grants, admin } => {
                if name == ROOT_ROLE || self.roles.contains_key(name) {
                    return Err(SecurityRefusal::RoleExists);
                }
                let grants = with_grants(Vec::new(), grants);
                self.roles.insert(name.clone(), Role::new(name.clone(), grants, *admin));
            }
            SecurityChange::RemoveRole(name) => self.remove_role(name)?,
            SecurityChange::ChangeRole { name, grant, revoke, grant_admin, revoke_admin } => {
                let role = self.role(name)?;
                let admin = role.admin.changed(*grant_admin, *revoke_admin);
                let mut grants = role.grants.clone();
                for one in revoke {
                    let place = grants.iter().position(|known| known == one);
                    grants.remove(place.ok_or(SecurityRefusal::NoGrant)?);
                }
                let grants = with_grants(grants, grant);
                if grants.len() > LIST_MAX {
                    return Err(SecurityRefusal::Full);
                }
                self.roles.insert(name.clone(), Role::new(name.clone(), grants, admin));
            }
            SecurityChange::AddToken { name, hash, owner, ends_at } => {
                if self.token_ids.contains_key(name) || self.token_hashes.contains_key(hash) {
                    return Err(SecurityRefusal::TokenExists);
                }
                let rights = match owner {
                    TokenOwner::User(user) => TokenRights::User(self.user_id(user)?),
                    TokenOwner::Roles(roles) => TokenRights::Roles(self.known_roles(roles)?),
                };
                let id = self.revision;
                let token = Token { id, name: name.clone(), hash: *hash, rights, ends_at: *ends_at };
                self.tokens.insert(id, token);
            }
            SecurityChange::RevokeToken(name) => {
                let id = self.token_ids.get(name).ok_or(SecurityRefusal::NoToken)?;
                self.tokens.remove(id);
            }
        }
        Ok(())
    }

    fn remove_role(&mut self, name: &str) -> Result<(), SecurityRefusal> {
        self.role(name)?;
        self.roles.remove(name);
        for user in self.users.values_mut() {
            user.roles.remove(name);
        }
        for token in self.tokens.values_mut() {
            if let TokenRights::Roles(roles) = &mut token.rights {
                roles.remove(name);
            }
        }
        Ok(())
    }

    fn role(&self, name: &str) -> Result<&Role, SecurityRefusal> {
        if name == ROOT_ROLE {
            return Err(SecurityRefusal::BuiltIn);
        }
        self.roles.get(name).ok_or(SecurityRefusal::NoRole)
    }

    fn user_id(&self, name: &str) -> Result<u64, SecurityRefusal> {
        self.user_ids.get(name).copied().ok_or(SecurityRefusal::NoUser)
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, SecurityRefusal> {
        let id = self.user_id(name)?;
        self.users.get_mut(&id).ok_or(SecurityRefusal::NoUser)
    }

    fn known_roles(&self, names: &[String]) -> Result<BTreeSet<String>, SecurityRefusal> {
        let is_known = |name: &String| name == ROOT_ROLE || self.roles.contains_key(name);
        if !names.iter().all(is_known) {
            return Err(SecurityRefusal::NoRole);
        }
        Ok(names.iter().map(|name| name.to_string()).collect())
    }
}
