//! Users, roles and tokens as bytes: in commands, and in snapshots.
//!
//! ```text
//! principal = 1 (user) | 2 (token), id, revision (u64 each)
//! change    = 1 enable | 2 disable | 3 name, password, names     add user
//!           | 4 name  remove user     | 5 name, password         set a password
//!           | 6 name, names, names    grant and revoke roles
//!           | 7 name, grants, rights  add role    | 8 name       remove role
//!           | 9 name, grants, grants, rights, rights             change role
//!           | 10 name, hash, owner, end  add token | 11 name     revoke token
//! owner     = 1 name (a user's) | 2 names (of roles)
//! password  = 0 | 1 string         end  = 0 | 1 seconds (u64)
//! grant     = access (u8: 1 read, 2 write, 3 both), range
//! rights    = a bit each (u8)      hash = 32 bytes
//! security  = enabled (u8), revision (u64), users, roles, tokens, each list behind its count (u32)
//! user      = id (u64), name, password, revision of the password (u64), names
//! role      = name, grants, rights
//! token     = id (u64), name, hash, 1 user (u64) | 2 names, end
//! ```
//! Lists of names and of grants stand behind their count (u16). In a snapshot users and tokens
//! ascend by id, roles and names of roles by name.

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::fields::{put_count, put_range, take_list, take_range};
use crate::kv::security::change::{
    LIST_MAX, PASSWORD_HASH_BYTES_MAX, PRINCIPAL_NAME_BYTES_MAX, SECURITY_BYTES_MAX, SecurityChange,
    TokenOwner,
};
use crate::kv::security::rules::{
    Access, AdminRights, Grant, Principal, ROOT_ROLE, Role, Security, Subject, TOKEN_HASH_BYTES, Token,
    TokenRights, User,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// What is wrong with rules that no change makes.
const fn inconsistent(why: &'static str) -> DecodeError {
    DecodeError::Inconsistent { what: "users, roles and tokens", why }
}

impl Principal {
    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (tag, id) = match self.subject {
            Subject::User(id) => (1, id),
            Subject::Token(id) => (2, id),
        };
        out.put_u8(tag);
        out.put_u64(id);
        out.put_u64(self.as_of);
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else.
    pub fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let tag = reader.u8("principal")?;
        let (id, as_of) = (reader.u64("principal")?, reader.u64("revision of the rules")?);
        let subject = match tag {
            1 => Subject::User(id),
            2 => Subject::Token(id),
            other => return Err(DecodeError::Invalid { what: "principal", value: u64::from(other) }),
        };
        Ok(Self { subject, as_of })
    }
}

impl SecurityChange {
    pub(in crate::kv) fn encode(&self, out: &mut Vec<u8>) {
        let tag = match self {
            Self::Enable => 1,
            Self::Disable => 2,
            Self::AddUser { .. } => 3,
            Self::RemoveUser(_) => 4,
            Self::SetPassword { .. } => 5,
            Self::ChangeUser { .. } => 6,
            Self::AddRole { .. } => 7,
            Self::RemoveRole(_) => 8,
            Self::ChangeRole { .. } => 9,
            Self::AddToken { .. } => 10,
            Self::RevokeToken(_) => 11,
        };
        out.put_u8(tag);
        match self {
            Self::Enable | Self::Disable => {}
            Self::RemoveUser(name) | Self::RemoveRole(name) | Self::RevokeToken(name) => put_text(out, name),
            Self::AddUser { name, password, roles } => {
                put_text(out, name);
                put_password(out, password.as_ref());
                put_names(out, roles);
            }
            Self::SetPassword { name, password } => {
                put_text(out, name);
                put_password(out, password.as_ref());
            }
            Self::ChangeUser { name, grant, revoke } => {
                put_text(out, name);
                put_names(out, grant);
                put_names(out, revoke);
            }
            Self::AddRole { name, grants, admin } => {
                put_text(out, name);
                put_grants(out, grants);
                out.put_u8(admin.bits());
            }
            Self::ChangeRole { name, grant, revoke, grant_admin, revoke_admin } => {
                put_text(out, name);
                put_grants(out, grant);
                put_grants(out, revoke);
                out.put_u8(grant_admin.bits());
                out.put_u8(revoke_admin.bits());
            }
            Self::AddToken { name, hash, owner, ends_at } => {
                put_text(out, name);
                out.extend_from_slice(hash);
                match owner {
                    TokenOwner::User(user) => {
                        out.put_u8(1);
                        put_text(out, user);
                    }
                    TokenOwner::Roles(roles) => {
                        out.put_u8(2);
                        put_names(out, roles);
                    }
                }
                put_end(out, *ends_at);
            }
        }
    }

    pub(in crate::kv) fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("change of the rules")? {
            1 => Self::Enable,
            2 => Self::Disable,
            3 => Self::AddUser {
                name: take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?,
                password: take_password(reader)?,
                roles: take_names(reader)?,
            },
            4 => Self::RemoveUser(take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?),
            5 => Self::SetPassword {
                name: take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?,
                password: take_password(reader)?,
            },
            6 => Self::ChangeUser {
                name: take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?,
                grant: take_names(reader)?,
                revoke: take_names(reader)?,
            },
            7 => Self::AddRole {
                name: take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?,
                grants: take_grants(reader)?,
                admin: take_rights(reader)?,
            },
            8 => Self::RemoveRole(take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?),
            9 => Self::ChangeRole {
                name: take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?,
                grant: take_grants(reader)?,
                revoke: take_grants(reader)?,
                grant_admin: take_rights(reader)?,
                revoke_admin: take_rights(reader)?,
            },
            10 => {
                let name = take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?;
                let hash = take_hash(reader)?;
                let owner = match reader.u8("owner of a token")? {
                    1 => TokenOwner::User(take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?),
                    2 => TokenOwner::Roles(take_names(reader)?),
                    other => {
                        return Err(DecodeError::Invalid {
                            what: "owner of a token",
                            value: u64::from(other),
                        });
                    }
                };
                Self::AddToken { name, hash, owner, ends_at: take_end(reader)? }
            }
            11 => Self::RevokeToken(take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?),
            tag => return Err(DecodeError::Invalid { what: "change of the rules", value: u64::from(tag) }),
        })
    }
}

impl Security {
    /// Appends all of it.
    pub(in crate::kv) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.enabled));
        out.put_u64(self.revision);
        put_length(out, self.users.len());
        for user in self.users.values() {
            out.put_u64(user.id);
            put_text(out, &user.name);
            put_password(out, user.password.as_ref());
            out.put_u64(user.password_since);
            put_names(out, &user.roles);
        }
        put_length(out, self.roles.len());
        for role in self.roles.values() {
            put_text(out, &role.name);
            put_grants(out, &role.grants);
            out.put_u8(role.admin.bits());
        }
        put_length(out, self.tokens.len());
        for token in self.tokens.values() {
            out.put_u64(token.id);
            put_text(out, &token.name);
            out.extend_from_slice(&token.hash);
            match &token.rights {
                TokenRights::User(id) => {
                    out.put_u8(1);
                    out.put_u64(*id);
                }
                TokenRights::Roles(roles) => {
                    out.put_u8(2);
                    put_names(out, roles);
                }
            }
            put_end(out, token.ends_at);
        }
    }

    /// Reads what [`Self::encode`] wrote.
    pub(in crate::kv) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > SECURITY_BYTES_MAX {
            let (length, limit) = (bytes.len() as u64, SECURITY_BYTES_MAX as u64);
            return Err(DecodeError::TooLong { what: "users, roles and tokens", length, limit });
        }
        let mut reader = Reader::new(bytes);
        let enabled = reader.flag("whether requests are judged")?;
        let revision = reader.counter("revision of the rules")?;
        let mut security = Self { enabled, revision, ..Self::default() };
        for _ in 0..reader.u32("number of users")? {
            let user = take_user(&mut reader)?;
            ascends(&security.users, user.id, revision)?;
            security.users.insert(user.id, user);
        }
        for _ in 0..reader.u32("number of roles")? {
            let name = take_text(&mut reader, PRINCIPAL_NAME_BYTES_MAX)?;
            if name == ROOT_ROLE || security.roles.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(inconsistent("its roles do not ascend"));
            }
            let grants = take_grants(&mut reader)?;
            let role = Role::new(name.clone(), grants, take_rights(&mut reader)?);
            security.roles.insert(name, role);
        }
        for _ in 0..reader.u32("number of tokens")? {
            let token = take_token(&mut reader)?;
            ascends(&security.tokens, token.id, revision)?;
            security.tokens.insert(token.id, token);
        }
        reader.finish("users, roles and tokens")?;
        security.derive();
        security.check()?;
        Ok(security)
    }

    /// Works out what follows from the rest.
    pub(super) fn derive(&mut self) {
        self.user_ids = self.users.values().map(|user| (user.name.clone(), user.id)).collect();
        self.token_ids = self.tokens.values().map(|token| (token.name.clone(), token.id)).collect();
        self.token_hashes = self.tokens.values().map(|token| (token.hash, token.id)).collect();
        let mut encoded = Vec::new();
        // Before the first change there is nothing to tell apart.
        if self.revision > 0 {
            self.encode(&mut encoded);
        }
        self.bytes = encoded.len();
        self.digest = if encoded.is_empty() { 0 } else { xxh3_128(&encoded) };
    }

    /// Names are one's own, and what is named is there.
    fn check(&self) -> Result<(), DecodeError> {
        if self.user_ids.len() != self.users.len() {
            return Err(inconsistent("two users have one name"));
        }
        if self.token_ids.len() != self.tokens.len() || self.token_hashes.len() != self.tokens.len() {
            return Err(inconsistent("two tokens have one name or one hash"));
        }
        let are_known = |names: &BTreeSet<String>| {
            names.iter().all(|name| name == ROOT_ROLE || self.roles.contains_key(name))
        };
        let users =
            self.users.values().all(|user| are_known(&user.roles) && user.password_since <= self.revision);
        let tokens = self.tokens.values().all(|token| match &token.rights {
            TokenRights::User(id) => self.users.contains_key(id),
            TokenRights::Roles(names) => are_known(names),
        });
        if !users || !tokens {
            return Err(inconsistent("it names what is not there"));
        }
        if self.enabled && !self.has_administrator() {
            return Err(inconsistent("nobody has all rights"));
        }
        Ok(())
    }
}

fn ascends<T>(known: &BTreeMap<u64, T>, id: u64, revision: u64) -> Result<(), DecodeError> {
    if id > revision || known.last_key_value().is_some_and(|(last, _)| *last >= id) {
        return Err(inconsistent("its ids do not ascend"));
    }
    Ok(())
}

fn take_user(reader: &mut Reader) -> Result<User, DecodeError> {
    Ok(User {
        id: reader.u64("id of a user")?,
        name: take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?,
        password: take_password(reader)?,
        password_since: reader.u64("revision of a password")?,
        roles: take_name_set(reader)?,
    })
}

fn take_token(reader: &mut Reader) -> Result<Token, DecodeError> {
    let id = reader.u64("id of a token")?;
    let name = take_text(reader, PRINCIPAL_NAME_BYTES_MAX)?;
    let hash = take_hash(reader)?;
    let rights = match reader.u8("rights of a token")? {
        1 => TokenRights::User(reader.u64("id of a user")?),
        2 => TokenRights::Roles(take_name_set(reader)?),
        other => return Err(DecodeError::Invalid { what: "rights of a token", value: u64::from(other) }),
    };
    Ok(Token { id, name, hash, rights, ends_at: take_end(reader)? })
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.put_u32(u32::try_from(length).expect("all of them take 2 MiB at most"));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_bytes(text.as_bytes());
}

fn take_text(reader: &mut Reader, limit: usize) -> Result<String, DecodeError> {
    let bytes = reader.bytes("text of the rules", limit)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| inconsistent("a text is no UTF-8"))
}

fn put_password(out: &mut Vec<u8>, password: Option<&String>) {
    out.put_u8(u8::from(password.is_some()));
    if let Some(password) = password {
        put_text(out, password);
    }
}

fn take_password(reader: &mut Reader) -> Result<Option<String>, DecodeError> {
    reader.flag("password")?.then(|| take_text(reader, PASSWORD_HASH_BYTES_MAX)).transpose()
}

fn put_end(out: &mut Vec<u8>, ends_at: Option<u64>) {
    out.put_u8(u8::from(ends_at.is_some()));
    if let Some(ends_at) = ends_at {
        out.put_u64(ends_at);
    }
}

fn take_end(reader: &mut Reader) -> Result<Option<u64>, DecodeError> {
    reader.flag("end of a token")?.then(|| reader.u64("end of a token")).transpose()
}

fn take_hash(reader: &mut Reader) -> Result<[u8; TOKEN_HASH_BYTES], DecodeError> {
    let bytes = reader.take("hash of a token", TOKEN_HASH_BYTES)?;
    bytes.first_chunk().copied().ok_or(inconsistent("a hash is cut short"))
}

fn put_names<'n>(
    out: &mut Vec<u8>,
    names: impl IntoIterator<Item = &'n String, IntoIter: ExactSizeIterator>,
) {
    let names = names.into_iter();
    put_count(out, names.len());
    names.for_each(|name| put_text(out, name));
}

fn take_names(reader: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let names = take_list(reader, |reader| take_text(reader, PRINCIPAL_NAME_BYTES_MAX))?;
    if names.len() > LIST_MAX {
        let (length, limit) = (names.len() as u64, LIST_MAX as u64);
        return Err(DecodeError::TooLong { what: "names", length, limit });
    }
    Ok(names)
}

/// Names that ascend.
fn take_name_set(reader: &mut Reader) -> Result<BTreeSet<String>, DecodeError> {
    let names = take_names(reader)?;
    if !names.is_sorted_by(|one, other| one < other) {
        return Err(inconsistent("names do not ascend"));
    }
    Ok(names.into_iter().collect())
}

fn put_grants(out: &mut Vec<u8>, grants: &[Grant]) {
    put_count(out, grants.len());
    for grant in grants {
        out.put_u8(match grant.access {
            Access::Read => 1,
            Access::Write => 2,
            Access::ReadWrite => 3,
        });
        put_range(out, &grant.range);
    }
}

fn take_grants(reader: &mut Reader) -> Result<Vec<Grant>, DecodeError> {
    let grants = take_list(reader, |reader| {
        let access = match reader.u8("access")? {
            1 => Access::Read,
            2 => Access::Write,
            3 => Access::ReadWrite,
            other => return Err(DecodeError::Invalid { what: "access", value: u64::from(other) }),
        };
        let range = take_range(reader)?;
        if range.is_empty() {
            return Err(inconsistent("a grant is of no key"));
        }
        Ok(Grant { range, access })
    })?;
    if grants.len() > LIST_MAX {
        let (length, limit) = (grants.len() as u64, LIST_MAX as u64);
        return Err(DecodeError::TooLong { what: "grants", length, limit });
    }
    Ok(grants)
}

fn take_rights(reader: &mut Reader) -> Result<AdminRights, DecodeError> {
    let bits = reader.u8("rights")?;
    AdminRights::from_bits(bits).ok_or(DecodeError::Invalid { what: "rights", value: u64::from(bits) })
}
