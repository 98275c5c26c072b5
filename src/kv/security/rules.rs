//! The rules as they are: users, roles, tokens.

use crate::kv::security::ranges::{cover, joined};
use crate::kv::types::KeyRange;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The role that has all rights. It is always there, and cannot be changed.
pub const ROOT_ROLE: &str = "root";
/// A token is kept as a hash of this length.
pub const TOKEN_HASH_BYTES: usize = 32;

/// What may be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// To see them: their values, their versions, whether they are there, how they change.
    Read,
    /// To set and to delete them.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Whether it lets one read.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether it lets one write.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// What may be done with some keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Which keys.
    pub range: KeyRange,
    /// What may be done with them.
    pub access: Access,
}

/// Something that is done with the cluster, and not with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdminRight {
    /// Members are added and removed, and leadership is handed over.
    Members,
    /// Users, roles and tokens are changed. It is as good as all rights: its holder may grant any.
    Security,
    /// All there is, is read at once, the hashes of passwords and tokens included.
    Backups,
    /// Limits are changed, and the past is forgotten.
    Settings,
}

impl AdminRight {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Members, Self::Security, Self::Backups, Self::Settings];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Security => "security",
            Self::Backups => "backups",
            Self::Settings => "settings",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Members => 1,
            Self::Security => 2,
            Self::Backups => 4,
            Self::Settings => 8,
        }
    }
}

/// A set of [`AdminRight`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdminRights(u8);

impl AdminRights {
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether it holds one.
    #[must_use]
    pub const fn has(self, right: AdminRight) -> bool {
        self.0 & right.bit() != 0
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, right: AdminRight) -> Self {
        Self(self.0 | right.bit())
    }

    /// With those of another set, and without those of a third.
    #[must_use]
    pub const fn changed(self, granted: Self, revoked: Self) -> Self {
        Self((self.0 | granted.0) & !revoked.0)
    }

    /// Those in it.
    pub fn iter(self) -> impl Iterator<Item = AdminRight> {
        AdminRight::ALL.into_iter().filter(move |right| self.has(*right))
    }

    /// As a byte.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// From a byte; `None`: it has bits that mean nothing.
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        if bits < 16 { Some(Self(bits)) } else { None }
    }
}

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Never given again, so that a later user of the same name is another one.
    pub id: u64,
    /// What it is called.
    pub name: String,
    /// The hash of its password (a PHC string, argon2id). `None`: it has none, and comes with a
    /// token or a certificate.
    pub password: Option<String>,
    /// The revision of the rules that set the password.
    pub password_since: u64,
    /// The names of its roles.
    pub roles: BTreeSet<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, password, password_since, roles } = self;
        f.debug_struct("User")
            .field("id", id)
            .field("name", name)
            .field("has_password", &password.is_some())
            .field("password_since", password_since)
            .field("roles", roles)
            .finish()
    }
}

/// A role: what those who have it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What it is called.
    pub name: String,
    /// What it may do with keys, in the order in which it was granted.
    pub grants: Vec<Grant>,
    /// What it may do with the cluster.
    pub admin: AdminRights,
    /// The ranges that it may read, sorted and joined. Derived from `grants`.
    reads: Vec<KeyRange>,
    /// The same of those that it may write.
    writes: Vec<KeyRange>,
}

impl Role {
    /// A role with these rights.
    #[must_use]
    pub fn new(name: String, grants: Vec<Grant>, admin: AdminRights) -> Self {
        let ranges = |is_wanted: fn(Access) -> bool| {
            joined(grants.iter().filter(|one| is_wanted(one.access)).map(|one| one.range.clone()))
        };
        let (reads, writes) = (ranges(Access::reads), ranges(Access::writes));
        Self { name, grants, admin, reads, writes }
    }
}

/// Whose rights a token has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenRights {
    /// Those of a user, whatever they are.
    User(u64),
    /// Those of roles, by name.
    Roles(BTreeSet<String>),
}

/// A token: the client that shows it has its rights.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Never given again.
    pub id: u64,
    /// What it is called.
    pub name: String,
    /// The SHA-256 of what is shown.
    pub hash: [u8; TOKEN_HASH_BYTES],
    /// Its rights.
    pub rights: TokenRights,
    /// When it ends, seconds since 1970; `None`: when it is revoked. Clocks do not reach the state
    /// machine: the node that is asked compares it with its own.
    pub ends_at: Option<u64>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, hash: _, rights, ends_at } = self;
        f.debug_struct("Token")
            .field("id", id)
            .field("name", name)
            .field("rights", rights)
            .field("ends_at", ends_at)
            .finish_non_exhaustive()
    }
}

/// What credentials have proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The user with this id.
    User(u64),
    /// The token with this id.
    Token(u64),
}

/// Who asks, and by which rules that was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// The user or token that asks.
    pub subject: Subject,
    /// The revision of the rules by which its credentials were good.
    pub as_of: u64,
}

/// Why a request is not carried out. It names no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// There are none.
    #[error("this cluster wants credentials: a user's name and password, or a token")]
    NoCredentials,
    /// They were good once: the user is gone, the password was changed, or the token was revoked or
    /// has ended.
    #[error("these credentials count no more; authenticate again")]
    Ended,
    /// No right to read.
    #[error("no role lets you read all of these keys; have read access to them granted to one of your roles")]
    MayNotRead,
    /// No right to write.
    #[error(
        "no role lets you write all of these keys; have write access to them granted to one of your roles"
    )]
    MayNotWrite,
    /// A lease that has no key yet is its maker's.
    #[error("this lease has no keys, and another user or token made it; make one of your own")]
    AnothersLease,
    /// No right to do that with the cluster.
    #[error("no role lets you do this; have the right {} granted to one of your roles", .0.name())]
    MayNotAdminister(AdminRight),
}

impl Denial {
    /// As a byte.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::NoCredentials => 1,
            Self::Ended => 2,
            Self::MayNotRead => 3,
            Self::MayNotWrite => 4,
            Self::AnothersLease => 5,
            Self::MayNotAdminister(right) => 16 + right.bit(),
        }
    }

    /// From a byte.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        let known =
            [Self::NoCredentials, Self::Ended, Self::MayNotRead, Self::MayNotWrite, Self::AnothersLease];
        let rights = AdminRight::ALL.into_iter().map(Self::MayNotAdminister);
        known.into_iter().chain(rights).find(|one| one.code() == code)
    }
}

/// Users, roles and tokens, and whether they count.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Whether requests are judged. Until then everybody may do everything.
    pub(super) enabled: bool,
    /// Raised by one with every change. Ids are the revision that gave them.
    pub(super) revision: u64,
    pub(super) users: BTreeMap<u64, User>,
    /// By name, without [`ROOT_ROLE`].
    pub(super) roles: BTreeMap<String, Role>,
    pub(super) tokens: BTreeMap<u64, Token>,
    /// Ids by name. Derived, as the next two.
    pub(super) user_ids: BTreeMap<String, u64>,
    pub(super) token_ids: BTreeMap<String, u64>,
    pub(super) token_hashes: BTreeMap<[u8; TOKEN_HASH_BYTES], u64>,
    /// What it takes in a snapshot, bytes. Derived.
    pub(super) bytes: usize,
    /// A hash of that. Derived.
    pub(super) digest: u128,
}

/// Hashes are left out.
impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { enabled, revision, users, roles, tokens, .. } = self;
        f.debug_struct("Security")
            .field("enabled", enabled)
            .field("revision", revision)
            .field("users", users)
            .field("roles", roles)
            .field("tokens", tokens)
            .finish_non_exhaustive()
    }
}

/// What a principal may do.
#[derive(Debug)]
pub(in crate::kv) struct Rights<'s> {
    /// Whose things are that the principal makes.
    owner: Option<Subject>,
    is_root: bool,
    roles: Vec<&'s Role>,
}

impl Security {
    /// Whether requests are judged.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Raised by one with every change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Users, in the order in which they were made.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// Roles, by name; [`ROOT_ROLE`] is not among them.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// Tokens, in the order in which they were made.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    /// A user by name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.user_ids.get(name).and_then(|id| self.users.get(id))
    }

    /// A user by id.
    #[must_use]
    pub fn user_of(&self, id: u64) -> Option<&User> {
        self.users.get(&id)
    }

    /// A token by the hash of what is shown.
    #[must_use]
    pub fn token_of_hash(&self, hash: &[u8; TOKEN_HASH_BYTES]) -> Option<&Token> {
        self.token_hashes.get(hash).and_then(|id| self.tokens.get(id))
    }

    /// Hash of all of it.
    pub(in crate::kv) const fn digest(&self) -> u128 {
        self.digest
    }

    /// Whether a principal is one still, whatever it may do. Whether it still has its credentials,
    /// too: a client that was let in by a password that was changed since is asked for the new one.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn check_known(&self, by: Option<&Principal>) -> Result<(), Denial> {
        if self.enabled { self.rights(by).map(|_| ()) } else { Ok(()) }
    }

    /// Whether a principal may do something with the cluster.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn check_admin(&self, by: Option<&Principal>, right: AdminRight) -> Result<(), Denial> {
        if self.enabled { self.rights(by)?.check_admin(right) } else { Ok(()) }
    }

    /// Whether a principal may read all of a range.
    ///
    /// # Errors
    /// [`Denial`] if not.
    pub fn check_read(&self, by: Option<&Principal>, range: &KeyRange) -> Result<(), Denial> {
        if self.enabled { self.rights(by)?.check_read(range) } else { Ok(()) }
    }

    /// What a principal may do. Not asked while nothing is judged.
    pub(in crate::kv) fn rights(&self, by: Option<&Principal>) -> Result<Rights<'_>, Denial> {
        let Principal { subject, as_of } = by.ok_or(Denial::NoCredentials)?;
        let names = match subject {
            Subject::User(id) => {
                let user = self.users.get(id).filter(|user| user.password_since <= *as_of);
                &user.ok_or(Denial::Ended)?.roles
            }
            Subject::Token(id) => match &self.tokens.get(id).ok_or(Denial::Ended)?.rights {
                TokenRights::User(id) => &self.users.get(id).ok_or(Denial::Ended)?.roles,
                TokenRights::Roles(names) => names,
            },
        };
        let roles = names.iter().filter_map(|name| self.roles.get(name)).collect();
        Ok(Rights { owner: self.owner(by), is_root: names.contains(ROOT_ROLE), roles })
    }

    /// Whose something is that a principal makes: what a user's token makes is the user's. `None`
    /// while nothing is judged: nobody knows who asks.
    pub(in crate::kv) fn owner(&self, by: Option<&Principal>) -> Option<Subject> {
        let subject = by.filter(|_| self.enabled)?.subject;
        let Subject::Token(id) = subject else { return Some(subject) };
        match self.tokens.get(&id)?.rights {
            TokenRights::User(user) => Some(Subject::User(user)),
            TokenRights::Roles(_) => Some(subject),
        }
    }

    /// Whether somebody has all rights and a way in that no clock ends: what keeps an operator from
    /// being locked out.
    pub(super) fn has_administrator(&self) -> bool {
        let is_root = |names: &BTreeSet<String>| names.contains(ROOT_ROLE);
        let by_password = self.users.values().any(|user| user.password.is_some() && is_root(&user.roles));
        let by_token =
            self.tokens.values().filter(|token| token.ends_at.is_none()).any(|token| match &token.rights {
                TokenRights::User(id) => self.users.get(id).is_some_and(|user| is_root(&user.roles)),
                TokenRights::Roles(names) => is_root(names),
            });
        by_password || by_token
    }
}

impl Rights<'_> {
    /// Whether it is the principal's.
    pub(in crate::kv) fn owns(&self, owner: Subject) -> bool {
        self.owner == Some(owner)
    }

    pub(in crate::kv) fn check_read(&self, range: &KeyRange) -> Result<(), Denial> {
        let ranges: Vec<&[KeyRange]> = self.roles.iter().map(|role| &role.reads[..]).collect();
        if self.is_root || cover(&ranges, range) { Ok(()) } else { Err(Denial::MayNotRead) }
    }

    pub(in crate::kv) fn check_write(&self, range: &KeyRange) -> Result<(), Denial> {
        let ranges: Vec<&[KeyRange]> = self.roles.iter().map(|role| &role.writes[..]).collect();
        if self.is_root || cover(&ranges, range) { Ok(()) } else { Err(Denial::MayNotWrite) }
    }

    pub(in crate::kv) fn check_admin(&self, right: AdminRight) -> Result<(), Denial> {
        let has = self.is_root || self.roles.iter().any(|role| role.admin.has(right));
        if has { Ok(()) } else { Err(Denial::MayNotAdminister(right)) }
    }

    /// The ranges that may be read (or written), sorted and joined; `None`: all keys.
    pub(in crate::kv) fn ranges(&self, writes: bool) -> Option<Vec<KeyRange>> {
        let of = |role: &Role| if writes { role.writes.clone() } else { role.reads.clone() };
        (!self.is_root).then(|| joined(self.roles.iter().flat_map(|role| of(role))))
    }
}
