//! Users, roles and tokens: a small model decides beside the store.

use crate::codec::Reader;
use crate::kv::tests::against_the_model::rebuilt;
use crate::kv::tests::kit::{any_key, any_op, any_query, any_range};
use crate::kv::{
    Access, AdminRight, AdminRights, Command, Denial, Grant, IDLE_LEASES_MAX, KeyRange, LeaseId, Op, Outcome,
    Principal, Put, Query, ROOT_ROLE, Refusal, SecurityChange, SecurityRefusal, Store, Subject, TokenOwner,
    TokenRights, Txn, TxnOp,
};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_vec;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{Index, select};

const TERM: u64 = 1;
/// What every password is kept as here.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA";

// The model. It knows nothing of sorted ranges, sweeps or counts: a range is granted if each of its
// points is, and between two bounds of grants nothing changes.

/// The owner of each lease, as far as it is known.
type Owners = BTreeMap<u64, Subject>;

/// The rules, as the store lists them.
struct Model<'s>(&'s Store, &'s Owners);

impl Model<'_> {
    /// The names of the caller's roles; `None`: it is nobody.
    fn roles(&self, by: Option<Principal>) -> Option<BTreeSet<String>> {
        let (rules, by) = (self.0.security(), by?);
        let of_user = |id, as_of| {
            let user = rules.users().find(|user| user.id == id)?;
            (user.password_since <= as_of).then(|| user.roles.clone())
        };
        match by.subject {
            Subject::User(id) => of_user(id, by.as_of),
            Subject::Token(id) => match &rules.tokens().find(|token| token.id == id)?.rights {
                TokenRights::User(id) => of_user(*id, u64::MAX),
                TokenRights::Roles(roles) => Some(roles.clone()),
            },
        }
    }

    fn may(&self, by: Option<Principal>, writes: bool, range: &KeyRange) -> bool {
        let Some(names) = self.roles(by) else { return false };
        let roles = self.0.security().roles().filter(|role| names.contains(&role.name));
        let grants: Vec<Grant> = roles.flat_map(|role| role.grants.clone()).collect();
        let ends = grants.iter().flat_map(|grant| [Some(grant.range.start.clone()), grant.range.end.clone()]);
        let mut points = ends.flatten().filter(|point| range.contains(point)).chain([range.start.clone()]);
        let is_granted = |point: Bytes| {
            grants.iter().any(|grant| {
                let suits = if writes { grant.access.writes() } else { grant.access.reads() };
                suits && grant.range.contains(&point)
            })
        };
        names.contains(ROOT_ROLE) || points.all(is_granted)
    }

    fn may_administer(&self, by: Option<Principal>, right: AdminRight) -> bool {
        self.roles(by).is_some_and(|names| {
            let has = |name: &String| {
                self.0.security().roles().any(|role| role.name == *name && role.admin.has(right))
            };
            names.contains(ROOT_ROLE) || names.iter().any(has)
        })
    }

    /// Whose something is that is made now.
    fn owner(&self, by: Option<Principal>) -> Option<Subject> {
        let subject = by.filter(|_| self.0.security().is_enabled())?.subject;
        let tokens: Vec<_> = self.0.security().tokens().collect();
        let of_user = tokens.into_iter().find_map(|token| match token.rights {
            TokenRights::User(user) if subject == Subject::Token(token.id) => Some(user),
            _ => None,
        });
        Some(of_user.map_or(subject, Subject::User))
    }

    fn may_use(&self, by: Option<Principal>, lease: LeaseId) -> bool {
        let keys = self.0.lease_keys(lease, b"", usize::MAX);
        let owner = self.0.lease(lease).and_then(|lease| self.1.get(&lease.grant));
        let is_anothers = keys.is_empty() && owner.is_some_and(|owner| self.owner(by) != Some(*owner));
        if is_anothers {
            return self.may(by, true, &KeyRange::all());
        }
        keys.into_iter().all(|key| self.may(by, true, &KeyRange::one(key)))
    }

    fn may_do(&self, by: Option<Principal>, op: &Op) -> bool {
        let one = |key: &Bytes| KeyRange::one(key.clone());
        match op {
            Op::Put(put) => self.may_put(by, put),
            Op::Delete(range) => self.may(by, true, range),
            Op::Increment { key, .. } => self.may(by, true, &one(key)) && self.may(by, false, &one(key)),
            Op::Txn(txn) => self.may_transact(by, txn),
            Op::Grant { .. } => {
                let roles = self.roles(by);
                let writes = |grant: &Grant| grant.access.writes() && !grant.range.is_empty();
                let is_granted = |name: &String| {
                    let mut all = self.0.security().roles();
                    *name == ROOT_ROLE || all.any(|role| role.name == *name && role.grants.iter().any(writes))
                };
                roles.is_some_and(|names| names.iter().any(is_granted))
            }
            Op::Revoke(id) => self.roles(by).is_some() && self.may_use(by, *id),
            Op::Compact(_) | Op::Configure(_) => self.may_administer(by, AdminRight::Settings),
            Op::Expire { .. } => by.is_none(),
            Op::Secure(change) => {
                let own = matches!((&**change, by.map(|by| by.subject)), (SecurityChange::SetPassword { name, .. },
                    Some(Subject::User(id))) if self.0.security().user(name).is_some_and(|user| user.id == id));
                self.roles(by).is_some() && own || self.may_administer(by, AdminRight::Security)
            }
        }
    }

    fn may_put(&self, by: Option<Principal>, put: &Put) -> bool {
        self.may(by, true, &KeyRange::one(put.key.clone()))
            && (put.lease.is_none() || self.may_use(by, put.lease))
    }

    fn may_transact(&self, by: Option<Principal>, txn: &Txn) -> bool {
        self.roles(by).is_some()
            && txn.compare.iter().all(|compare| self.may(by, false, &compare.range))
            && txn.success.iter().chain(&txn.failure).all(|step| match step {
                TxnOp::Put(put) => self.may_put(by, put),
                TxnOp::Delete(range) => self.may(by, true, range),
                TxnOp::Get(query) => self.may(by, false, &query.range),
                TxnOp::Txn(inner) => self.may_transact(by, inner),
            })
    }

    fn may_ask(&self, by: Option<Principal>, query: &Query) -> bool {
        let keys_of = |id: LeaseId| self.0.lease_keys(id, b"", usize::MAX);
        let is_known = self.roles(by).is_some();
        match query {
            Query::Key(key) => self.may(by, false, &KeyRange::one(key.clone())),
            Query::Range(query) => self.may(by, false, &query.range),
            Query::Lease(id) | Query::LeaseKeys(id, ..) => {
                is_known && keys_of(*id).into_iter().all(|key| self.may(by, false, &KeyRange::one(key)))
            }
            Query::Leases(..) => self.may(by, false, &KeyRange::all()),
            Query::Settings => is_known,
            Query::Security => self.may_administer(by, AdminRight::Security),
            Query::Permission(right) => self.may_administer(by, *right),
        }
    }
}

// What happens.

/// Who asks: somebody of those that there are, were, or never were.
#[derive(Clone, Debug)]
enum Who {
    Nobody,
    /// With rules that are so many revisions old.
    User(Index, u64),
    Token(Index),
    Id(u64),
}

impl Who {
    fn principal(&self, store: &Store) -> Option<Principal> {
        let rules = store.security();
        let now = rules.revision();
        let of = |subject, as_of| Some(Principal { subject, as_of });
        match self {
            Self::Nobody => None,
            Self::User(index, age) => {
                let ids: Vec<u64> = rules.users().map(|user| user.id).collect();
                if ids.is_empty() {
                    None
                } else {
                    of(Subject::User(ids[index.index(ids.len())]), now.saturating_sub(*age))
                }
            }
            Self::Token(index) => {
                let ids: Vec<u64> = rules.tokens().map(|token| token.id).collect();
                if ids.is_empty() { None } else { of(Subject::Token(ids[index.index(ids.len())]), now) }
            }
            Self::Id(id) if id % 2 == 0 => of(Subject::User(*id), now),
            Self::Id(id) => of(Subject::Token(*id), now),
        }
    }
}

fn any_who() -> impl Strategy<Value = Who> {
    prop_oneof![
        1 => Just(Who::Nobody),
        6 => (any::<Index>(), select(&[0u64, 0, 0, 1, 5][..])).prop_map(|(index, age)| Who::User(index, age)),
        4 => any::<Index>().prop_map(Who::Token),
        1 => (0..30u64).prop_map(Who::Id),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    select(&["a", "b", "c", "root"][..]).prop_map(ToString::to_string)
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let access = select(&[Access::Read, Access::Write, Access::ReadWrite, Access::ReadWrite][..]);
    (any_range(), access).prop_map(|(range, access)| Grant { range, access })
}

fn any_admin() -> impl Strategy<Value = AdminRights> {
    any_vec(select(&AdminRight::ALL[..]), 0..2)
        .prop_map(|rights| rights.into_iter().fold(AdminRights::NONE, AdminRights::with))
}

fn any_change() -> BoxedStrategy<SecurityChange> {
    let roles = || any_vec(any_name(), 0..3);
    let password = || select(vec![None, Some(HASH.to_string())]);
    let grants = || any_vec(any_grant(), 0..4);
    let owner = prop_oneof![any_name().prop_map(TokenOwner::User), roles().prop_map(TokenOwner::Roles)];
    prop_oneof![
        2 => Just(SecurityChange::Enable),
        1 => Just(SecurityChange::Disable),
        4 => (any_name(), password(), roles())
            .prop_map(|(name, password, roles)| SecurityChange::AddUser { name, password, roles }),
        1 => any_name().prop_map(SecurityChange::RemoveUser),
        1 => (any_name(), password()).prop_map(|(name, password)| SecurityChange::SetPassword { name, password }),
        3 => (any_name(), roles(), roles())
            .prop_map(|(name, grant, revoke)| SecurityChange::ChangeUser { name, grant, revoke }),
        4 => (any_name(), grants(), any_admin())
            .prop_map(|(name, grants, admin)| SecurityChange::AddRole { name, grants, admin }),
        1 => any_name().prop_map(SecurityChange::RemoveRole),
        2 => (any_name(), grants(), any_admin()).prop_map(|(name, grant, grant_admin)| {
            let revoke_admin = AdminRights::NONE;
            SecurityChange::ChangeRole { name, grant, revoke: Vec::new(), grant_admin, revoke_admin }
        }),
        3 => (any_name(), any::<[u8; 32]>(), owner, select(vec![None, Some(7)]))
            .prop_map(|(name, hash, owner, ends_at)| SecurityChange::AddToken { name, hash, owner, ends_at }),
        1 => any_name().prop_map(SecurityChange::RevokeToken),
    ]
    .boxed()
}

fn any_step() -> impl Strategy<Value = (Who, Op)> {
    let change = any_change().prop_map(|change| Op::Secure(Box::new(change)));
    (any_who(), prop_oneof![1 => any_op(), 1 => change])
}

fn any_asked() -> impl Strategy<Value = Query> {
    prop_oneof![
        any_key().prop_map(Query::Key),
        any_query().prop_map(Query::Range),
        (1..5u64).prop_map(|id| Query::Lease(LeaseId(id))),
        (1..5u64).prop_map(|id| Query::LeaseKeys(LeaseId(id), Bytes::new(), 10)),
        Just(Query::Leases(LeaseId::NONE, 10)),
        Just(Query::Settings),
        Just(Query::Security),
        select(&AdminRight::ALL[..]).prop_map(Query::Permission),
    ]
}

fn secure(store: &mut Store, change: SecurityChange) -> Outcome {
    store.apply(TERM, &Op::Secure(Box::new(change)).into())
}

/// Somebody with all rights, so that there is something to be enabled.
fn furnish(store: &mut Store) {
    let name = "first".to_string();
    secure(
        store,
        SecurityChange::AddUser {
            name,
            password: Some(HASH.to_string()),
            roles: vec![ROOT_ROLE.to_string()],
        },
    );
}

proptest! {
    #[test]
    fn the_store_allows_what_the_model_allows(
        steps in any_vec(any_step(), 1..80),
        asked in any_vec((any_who(), any_asked()), 1..12),
        watched in any_vec((any_who(), any_range()), 1..8),
        furnished in any::<bool>(),
        cuts in any_vec(any::<Index>(), 0..4),
    ) {
        let (mut store, mut open) = (Store::new(), Store::new());
        let mut owners = Owners::new();
        if furnished {
            furnish(&mut store);
            secure(&mut store, SecurityChange::Enable);
        }
        for (who, op) in steps {
            if op.check().is_err() {
                continue;
            }
            let by = who.principal(&store);
            let is_allowed = !store.security().is_enabled() || Model(&store, &owners).may_do(by, &op);
            let command = Command { idempotency_key: None, since: None, by, op: op.clone() };
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            prop_assert_eq!(Command::decode(Reader::new(bytes.into())), Ok(command.clone()));
            let hash = store.state_hash();
            let owner = Model(&store, &owners).owner(by);
            let outcome = store.apply(TERM, &command);
            if let (Outcome::Granted { id, .. }, Some(owner)) = (&outcome, owner) {
                owners.insert(store.lease(*id).unwrap().grant, owner);
            }
            let is_denied = matches!(outcome, Outcome::Refused(Refusal::Denied { .. }));
            prop_assert_eq!(is_denied, !is_allowed, "{:?} by {:?}: {:?}", op, by, outcome);
            if is_denied {
                prop_assert_eq!(store.state_hash(), hash, "what is refused changes nothing");
            } else if !matches!(op, Op::Secure(_)) {
                // What is allowed does what it always did.
                prop_assert_eq!(outcome, open.apply(TERM, &op.into()));
            }
            for (who, query) in &asked {
                let by = who.principal(&store);
                let is_allowed = !store.security().is_enabled() || Model(&store, &owners).may_ask(by, query);
                let answer = store.answer_to(by.as_ref(), query);
                prop_assert_eq!(answer.is_ok(), is_allowed, "{:?} by {:?}", query, by);
            }
            for (who, range) in &watched {
                let by = who.principal(&store);
                let is_allowed = !store.security().is_enabled() || Model(&store, &owners).may(by, false, range);
                let judged = store.judge_changes(by.as_ref(), range);
                prop_assert_eq!(judged.is_ok(), is_allowed, "{:?} by {:?}", range, by);
            }
        }
        let again = rebuilt(&store, &cuts);
        prop_assert_eq!(again.state_hash(), store.state_hash());
        prop_assert_eq!(again.security(), store.security());
    }
}

fn root_of(store: &Store) -> Option<Principal> {
    let user = store.security().user("first")?;
    Some(Principal { subject: Subject::User(user.id), as_of: store.security().revision() })
}

fn secured() -> Store {
    let mut store = Store::new();
    furnish(&mut store);
    secure(&mut store, SecurityChange::Enable);
    store
}

/// As the administrator.
fn order(store: &mut Store, change: SecurityChange) -> Outcome {
    let by = root_of(store);
    store.apply(TERM, &Command { idempotency_key: None, since: None, by, op: Op::Secure(Box::new(change)) })
}

fn refused(why: SecurityRefusal) -> Outcome {
    Outcome::Refused(Refusal::Security(why))
}

#[test]
fn nothing_is_enabled_before_somebody_could_administer_it() {
    let mut store = Store::new();
    assert_eq!(secure(&mut store, SecurityChange::Enable), refused(SecurityRefusal::NoAdministrator));
    // A way in that a clock ends is none.
    let owner = TokenOwner::Roles(vec![ROOT_ROLE.to_string()]);
    let token =
        |ends_at| SecurityChange::AddToken { name: "t".into(), hash: [1; 32], owner: owner.clone(), ends_at };
    secure(&mut store, token(Some(10)));
    assert_eq!(secure(&mut store, SecurityChange::Enable), refused(SecurityRefusal::NoAdministrator));
    secure(&mut store, SecurityChange::RevokeToken("t".into()));
    secure(&mut store, token(None));
    assert!(matches!(secure(&mut store, SecurityChange::Enable), Outcome::Secured(_)));
}

#[test]
fn the_last_administrator_is_not_locked_out() {
    let name = || "first".to_string();
    let ways = [
        SecurityChange::RemoveUser(name()),
        SecurityChange::SetPassword { name: name(), password: None },
        SecurityChange::ChangeUser { name: name(), grant: vec![], revoke: vec![ROOT_ROLE.to_string()] },
    ];
    for way in ways {
        let mut store = secured();
        assert_eq!(order(&mut store, way.clone()), refused(SecurityRefusal::WouldLockOut), "{way:?}");
        // With another one it is done.
        let roles = vec![ROOT_ROLE.to_string()];
        order(
            &mut store,
            SecurityChange::AddUser { name: "other".into(), password: Some(HASH.into()), roles },
        );
        assert!(matches!(order(&mut store, way), Outcome::Secured(_)));
    }
}

#[test]
fn the_role_root_is_what_it_is() {
    let mut store = secured();
    let root = || ROOT_ROLE.to_string();
    assert_eq!(order(&mut store, SecurityChange::RemoveRole(root())), refused(SecurityRefusal::BuiltIn));
    let change = SecurityChange::AddRole { name: root(), grants: vec![], admin: AdminRights::NONE };
    assert_eq!(order(&mut store, change), refused(SecurityRefusal::RoleExists));
}

/// Otherwise a revocation that was answered as done would leave the right in force.
#[test]
fn what_is_granted_twice_is_revoked_at_once() {
    let mut store = secured();
    let range = KeyRange::prefix(Bytes::from_static(b"app/"));
    let grant = Grant { range: range.clone(), access: Access::Read };
    let name = || "app".to_string();
    let grants = vec![grant.clone(), grant.clone()];
    order(&mut store, SecurityChange::AddRole { name: name(), grants, admin: AdminRights::NONE });
    order(&mut store, SecurityChange::AddUser { name: "b".into(), password: None, roles: vec![name()] });
    let subject = Subject::User(store.security().user("b").unwrap().id);
    let by = Some(Principal { subject, as_of: store.security().revision() });
    assert_eq!(store.judge_changes(by.as_ref(), &range), Ok(()));
    let (grant_admin, revoke_admin) = (AdminRights::NONE, AdminRights::NONE);
    let (grant, revoke) = (vec![], vec![grant]);
    let told = order(
        &mut store,
        SecurityChange::ChangeRole { name: name(), grant, revoke, grant_admin, revoke_admin },
    );
    assert!(matches!(told, Outcome::Secured(_)), "{told:?}");
    assert_eq!(store.judge_changes(by.as_ref(), &range), Err(Denial::MayNotRead));
}

#[test]
fn a_user_that_is_made_anew_is_another_one() {
    let mut store = secured();
    let add =
        || SecurityChange::AddUser { name: "a".into(), password: None, roles: vec![ROOT_ROLE.to_string()] };
    order(&mut store, add());
    let id = store.security().user("a").unwrap().id;
    order(&mut store, SecurityChange::RemoveUser("a".into()));
    order(&mut store, add());
    let by = Some(Principal { subject: Subject::User(id), as_of: store.security().revision() });
    assert_eq!(store.judge(by.as_ref(), &Op::set("k", "v")), Err(Denial::Ended));
}

#[test]
fn an_answer_is_remembered_for_the_caller_it_was_given_to() {
    let mut store = secured();
    let by = root_of(&store);
    let named = |by, op| Command { idempotency_key: Some("once".into()), since: None, by, op };
    let read = Op::Txn(Box::new(Txn {
        success: vec![TxnOp::Get(crate::kv::RangeQuery::of(KeyRange::all()))],
        ..Txn::default()
    }));
    let first = store.apply(TERM, &named(by, read.clone()));
    assert!(matches!(first, Outcome::Txn { .. }));
    assert_eq!(store.apply(TERM, &named(by, read.clone())), first);
    // Somebody else who may read it all, too, under the same name.
    let roles = vec![ROOT_ROLE.to_string()];
    order(&mut store, SecurityChange::AddUser { name: "b".into(), password: None, roles });
    let other = Principal {
        subject: Subject::User(store.security().user("b").unwrap().id),
        as_of: store.security().revision(),
    };
    assert_eq!(store.apply(TERM, &named(Some(other), read.clone())), Outcome::Refused(Refusal::KeyReused));
    // And one whose right has ended since: nothing is told, and nothing promised.
    let revoke = vec![ROOT_ROLE.to_string()];
    order(&mut store, SecurityChange::ChangeUser { name: "b".into(), grant: vec![], revoke });
    let denied = store.apply(TERM, &named(Some(other), read));
    let denial = Denial::MayNotRead;
    assert_eq!(denied, Outcome::Refused(Refusal::Denied { denial, maybe_done: true }));
}

/// Otherwise anybody with a key of their own could take a lock's lease away from its holder.
#[test]
fn a_lease_takes_no_key_of_somebody_who_may_not_write_its_others() {
    let mut store = secured();
    let by = root_of(&store);
    let lease = LeaseId(7);
    let as_root = |op| Command { idempotency_key: None, since: None, by, op };
    store.apply(TERM, &as_root(Op::Grant { id: lease, ttl_seconds: 60 }));
    let put = |key: &str| Put { key: Bytes::copy_from_slice(key.as_bytes()), value: "v".into(), lease };
    assert!(matches!(store.apply(TERM, &as_root(Op::Put(put("held")))), Outcome::Put { .. }));
    let range = KeyRange::one(Bytes::from_static(b"own"));
    let grants = vec![Grant { access: Access::ReadWrite, range }];
    order(&mut store, SecurityChange::AddRole { name: "own".into(), grants, admin: AdminRights::NONE });
    let roles = vec!["own".to_string()];
    order(&mut store, SecurityChange::AddUser { name: "b".into(), password: None, roles });
    let subject = Subject::User(store.security().user("b").unwrap().id);
    let by = Some(Principal { subject, as_of: store.security().revision() });
    let success = vec![TxnOp::Put(put("own"))];
    for op in [Op::Put(put("own")), Op::Txn(Box::new(Txn { success, ..Txn::default() }))] {
        let told = store.apply(TERM, &Command { idempotency_key: None, since: None, by, op });
        let denial = Denial::MayNotWrite;
        assert_eq!(told, Outcome::Refused(Refusal::Denied { denial, maybe_done: false }));
    }
    let free = Put { lease: LeaseId::NONE, ..put("own") };
    let told = store.apply(TERM, &Command { idempotency_key: None, since: None, by, op: Op::Put(free) });
    assert!(matches!(told, Outcome::Put { .. }), "{told:?}");
}

/// Otherwise anybody could take it before its maker has attached a key, and end it, or tie it to a
/// key that the maker may not write.
#[test]
fn a_lease_without_keys_is_its_makers() {
    let mut store = secured();
    let range = KeyRange::prefix(Bytes::from_static(b"app/"));
    let grants = vec![Grant { access: Access::ReadWrite, range }];
    order(&mut store, SecurityChange::AddRole { name: "app".into(), grants, admin: AdminRights::NONE });
    for name in ["a", "b"] {
        let (name, roles) = (name.to_string(), vec!["app".to_string()]);
        order(&mut store, SecurityChange::AddUser { name, password: None, roles });
    }
    let (name, owner) = ("t".to_string(), TokenOwner::User("a".into()));
    order(&mut store, SecurityChange::AddToken { name, hash: [7; 32], owner, ends_at: None });
    let as_of = store.security().revision();
    let of = |subject| Some(Principal { subject, as_of });
    let [a, b] = ["a", "b"].map(|name| of(Subject::User(store.security().user(name).unwrap().id)));
    let token = of(Subject::Token(store.security().tokens().next().unwrap().id));
    let root = root_of(&store);
    let lease = LeaseId(7);
    let command = |by, op| Command { idempotency_key: None, since: None, by, op };
    let granted = store.apply(TERM, &command(token, Op::Grant { id: lease, ttl_seconds: 60 }));
    assert!(matches!(granted, Outcome::Granted { .. }));
    let put = || Op::Put(Put { key: "app/x".into(), value: "v".into(), lease });
    // As it is, and as a snapshot brings it elsewhere.
    let mut again = rebuilt(&store, &[]);
    assert_eq!(again.state_hash(), store.state_hash());
    for store in [&mut store, &mut again] {
        let denial = Denial::AnothersLease;
        let denied = Outcome::Refused(Refusal::Denied { denial, maybe_done: false });
        assert_eq!(store.apply(TERM, &command(b, put())), denied);
        assert_eq!(store.apply(TERM, &command(b, Op::Revoke(lease))), denied);
        assert_eq!(store.judge_lease(b.as_ref(), lease, true), Err(denial));
        // The user whose token made it, and an administrator.
        assert_eq!(store.judge_lease(a.as_ref(), lease, true), Ok(()));
        assert_eq!(store.judge_lease(root.as_ref(), lease, true), Ok(()));
        assert!(matches!(store.apply(TERM, &command(a, put())), Outcome::Put { .. }));
        // With keys it is of those that may write them.
        assert_eq!(store.judge_lease(b.as_ref(), lease, true), Ok(()));
    }
}

/// Otherwise anybody could take the key of a job that comes every night.
#[test]
fn what_somebody_was_denied_takes_nobodys_key_away() {
    let mut store = secured();
    let by = root_of(&store);
    order(&mut store, SecurityChange::AddUser { name: "b".into(), password: None, roles: vec![] });
    let subject = Subject::User(store.security().user("b").unwrap().id);
    let other = Some(Principal { subject, as_of: store.security().revision() });
    let named = |by, op: Op| Command { idempotency_key: Some("nightly".into()), since: None, by, op };
    let job = named(by, Op::set("k", "v"));
    let squatter = named(other, Op::set("any", "v"));
    let denial = Denial::MayNotWrite;
    let denied = |maybe_done| Outcome::Refused(Refusal::Denied { denial, maybe_done });
    assert_eq!(store.apply(TERM, &squatter), denied(false));
    assert_eq!(store.apply(TERM, &named(other, Op::set("another", "v"))), denied(false));
    let kept = store.answers_bytes();
    assert_eq!(store.apply(TERM, &squatter), denied(false));
    assert_eq!(store.answers_bytes(), kept, "one for each key");
    let done = store.apply(TERM, &job);
    assert!(matches!(done, Outcome::Put { .. }), "{done:?}");
    assert_eq!(store.apply(TERM, &job), done);
    assert_eq!(store.apply(TERM, &squatter), denied(true));
    assert_eq!(store.apply(TERM, &job), done, "and it is remembered");
    let again = rebuilt(&store, &[]);
    assert_eq!((again.state_hash(), again.answers_bytes()), (store.state_hash(), store.answers_bytes()));
}

/// They count in the quota, and hardly anybody else could revoke them.
#[test]
fn leases_are_made_by_who_may_write_and_none_makes_too_many() {
    let mut store = secured();
    let range = KeyRange::prefix(Bytes::from_static(b"app/"));
    for (name, access) in [("reader", Access::Read), ("writer", Access::Write)] {
        let grants = vec![Grant { access, range: range.clone() }];
        order(&mut store, SecurityChange::AddRole { name: name.into(), grants, admin: AdminRights::NONE });
        let roles = vec![name.to_string()];
        order(&mut store, SecurityChange::AddUser { name: name.into(), password: None, roles });
    }
    let as_of = store.security().revision();
    let [reader, writer] = ["reader", "writer"].map(|name| {
        let subject = Subject::User(store.security().user(name).unwrap().id);
        Some(Principal { subject, as_of })
    });
    let root = root_of(&store);
    let command = |by, op| Command { idempotency_key: None, since: None, by, op };
    let grant = |by| command(by, Op::Grant { id: LeaseId::NONE, ttl_seconds: 60 });
    let denied = Outcome::Refused(Refusal::Denied { denial: Denial::MayNotWrite, maybe_done: false });
    assert_eq!(store.apply(TERM, &grant(reader)), denied);
    let mut granted = Vec::new();
    for _ in 0..IDLE_LEASES_MAX {
        let Outcome::Granted { id, .. } = store.apply(TERM, &grant(writer)) else { panic!("it may") };
        granted.push(id);
    }
    let put = |lease| command(writer, Op::Put(Put { key: "app/a".into(), value: "v".into(), lease }));
    let too_many = Outcome::Refused(Refusal::TooManyLeases { limit: IDLE_LEASES_MAX });
    let mut again = rebuilt(&store, &[]);
    for store in [&mut store, &mut again] {
        assert_eq!(store.apply(TERM, &grant(writer)), too_many);
        assert!(matches!(store.apply(TERM, &grant(root)), Outcome::Granted { .. }), "each has its own");
        // With a key it counts no more; without it, again.
        assert!(matches!(store.apply(TERM, &put(granted[0])), Outcome::Put { .. }));
        assert!(matches!(store.apply(TERM, &grant(writer)), Outcome::Granted { .. }));
        assert_eq!(store.apply(TERM, &grant(writer)), too_many);
        assert!(matches!(store.apply(TERM, &put(LeaseId::NONE)), Outcome::Put { .. }));
        assert!(matches!(
            store.apply(TERM, &command(writer, Op::Revoke(granted[1]))),
            Outcome::Revoked { .. }
        ));
        assert_eq!(store.apply(TERM, &grant(writer)), too_many);
        assert!(matches!(
            store.apply(TERM, &command(writer, Op::Revoke(granted[2]))),
            Outcome::Revoked { .. }
        ));
        assert!(matches!(store.apply(TERM, &grant(writer)), Outcome::Granted { .. }));
    }
    assert_eq!(again.state_hash(), store.state_hash());
}

#[test]
fn what_was_refused_stays_refused_under_its_name() {
    let mut store = secured();
    order(&mut store, SecurityChange::AddUser { name: "b".into(), password: None, roles: vec![] });
    let subject = Subject::User(store.security().user("b").unwrap().id);
    let by = Some(Principal { subject, as_of: store.security().revision() });
    let late = Command { idempotency_key: Some("late".into()), since: None, by, op: Op::set("k", "v") };
    let denied = store.apply(TERM, &late);
    assert!(matches!(denied, Outcome::Refused(Refusal::Denied { maybe_done: false, .. })));
    order(
        &mut store,
        SecurityChange::ChangeUser { name: "b".into(), grant: vec![ROOT_ROLE.into()], revoke: vec![] },
    );
    assert_eq!(store.apply(TERM, &late), denied);
    assert_eq!(store.get(b"k"), None);
}

#[test]
fn secrets_are_not_printed() {
    let mut store = secured();
    let hash = *b"a hash of thirty-two bytes: xxxx";
    let owner = TokenOwner::User("first".into());
    let token = SecurityChange::AddToken { name: "t".into(), hash, owner, ends_at: None };
    let user = SecurityChange::AddUser { name: "u".into(), password: Some(HASH.into()), roles: vec![] };
    let mut printed = format!("{token:?} {user:?} {:?}", Op::Secure(Box::new(token.clone())));
    order(&mut store, token);
    order(&mut store, user);
    printed += &format!("{:?} {store:?}", store.security());
    assert!(!printed.contains("argon2id") && !printed.contains("[97, 32"), "{printed}");
}

#[test]
fn rules_are_bounded() {
    let mut store = secured();
    let grants = |count: usize| {
        let one = |number| Grant { range: KeyRange::one(format!("{number}")), access: Access::Read };
        (0..count).map(one).collect::<Vec<_>>()
    };
    let role = |name: String, grants| SecurityChange::AddRole { name, grants, admin: AdminRights::NONE };
    assert!(Op::Secure(Box::new(role("r".into(), grants(257)))).check().is_err());
    order(&mut store, role("r".into(), grants(256)));
    let (name, grant) = ("r".to_string(), vec![Grant { range: KeyRange::all(), access: Access::Read }]);
    let (grant_admin, revoke_admin) = (AdminRights::NONE, AdminRights::NONE);
    let one_more = SecurityChange::ChangeRole { name, grant, revoke: vec![], grant_admin, revoke_admin };
    assert_eq!(order(&mut store, one_more), refused(SecurityRefusal::Full));
    let large = |number| {
        let range = |one: u8| KeyRange::one(vec![one; 60_000]);
        let grants = (0..4).map(|one| Grant { range: range(one), access: Access::Read });
        role(format!("l{number}"), grants.collect())
    };
    let outcomes: Vec<Outcome> = (0..20).map(|number| order(&mut store, large(number))).collect();
    assert_eq!(outcomes.last(), Some(&refused(SecurityRefusal::Full)));
}
