//! Passwords: hashed and compared on a worker of their own, a few at a time.
//!
//! A hash is argon2id, written as a PHC string. It costs some 20 MiB and some 20 ms on purpose, so
//! that a thief of one cannot try many passwords. A client sends its password with each request. To
//! save the cost, a password that was right is remembered, as a hash under a key of this process. A
//! new password for that user ends this.

use crate::codec::{from_base64, to_base64};
use crate::runtime::Env;
use crate::runtime::door::Caller;
use crate::runtime::work::{WorkQueue, Worker};
use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Bytes of a salt.
const SALT_BYTES: usize = 16;
/// Bytes of what is compared.
const HASH_BYTES: usize = 32;
/// Passwords that wait to be compared, at most, with the one at hand.
const WAITING_MAX: usize = 64;
/// Of those, so many of one caller; its others wait for them, …
const WAITING_EACH_MAX: usize = 2;
/// … and so many in all.
const TURNS_EACH_MAX: usize = 64;
/// New passwords that wait to be hashed, at most. Only who may set one has a place here.
const NEW_MAX: usize = 16;
/// Passwords that are remembered, at most.
const REMEMBERED_MAX: usize = 4096;
/// What no hash that is compared may cost more of.
const COST_MAX: PasswordCost = PasswordCost { memory_kib: 256 << 10, passes: 16 };

/// What one hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// How often all of it is gone through.
    pub passes: u32,
}

impl Default for PasswordCost {
    /// What OWASP recommends for argon2id: 19 MiB, 2 passes.
    fn default() -> Self {
        Self { memory_kib: 19 << 10, passes: 2 }
    }
}

/// No password is hashed now: too many wait already, or there is no thread for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Hashes and compares passwords.
pub(crate) struct Passwords {
    cost: PasswordCost,
    /// Started with the first password.
    queue: Mutex<Option<Arc<WorkQueue<Job>>>>,
    places: Arc<Semaphore>,
    /// The same for new passwords: those who guess must not keep them from being changed.
    new_places: Arc<Semaphore>,
    /// The callers whose passwords are compared, or wait for that.
    turns: Arc<Mutex<BTreeMap<Caller, Turns>>>,
    /// The key under which passwords are remembered, drawn with the first one.
    key: OnceLock<[u8; 32]>,
    remembered: Mutex<Remembered>,
    /// What an unknown user's password is compared with: it takes as long.
    nobody: String,
}

/// What one caller has under way.
struct Turns {
    semaphore: Arc<Semaphore>,
    count: usize,
}

/// A caller may have a password compared.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _waiter: Waiter,
}

/// Somebody who has a turn, or waits for one.
struct Waiter {
    turns: Arc<Mutex<BTreeMap<Caller, Turns>>>,
    caller: Caller,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_caller) = turns.get_mut(&self.caller) {
            of_caller.count -= 1;
            if of_caller.count == 0 {
                turns.remove(&self.caller);
            }
        }
    }
}

#[derive(Default)]
struct Remembered {
    known: HashSet<[u8; 32]>,
    /// The oldest first.
    order: VecDeque<[u8; 32]>,
}

/// One password's work.
struct Job {
    task: Task,
    _place: OwnedSemaphorePermit,
}

enum Task {
    Hash { password: Vec<u8>, salt: [u8; SALT_BYTES], cost: PasswordCost, reply: oneshot::Sender<String> },
    Compare { password: Vec<u8>, with: String, reply: oneshot::Sender<bool> },
}

impl Passwords {
    pub(crate) fn new(cost: PasswordCost) -> Self {
        let (salt, hash) = ([0; SALT_BYTES], [0; HASH_BYTES]);
        Self {
            cost,
            queue: Mutex::default(),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            new_places: Arc::new(Semaphore::new(NEW_MAX)),
            turns: Arc::default(),
            key: OnceLock::new(),
            remembered: Mutex::default(),
            nobody: phc(cost, &salt, &hash),
        }
    }

    /// The hash of a new password, with a new salt.
    pub(crate) async fn hash<E: Env>(&self, env: &E, password: Vec<u8>) -> Result<String, Busy> {
        let mut salt = [0; SALT_BYTES];
        fill(env, &mut salt);
        let (reply, answer) = oneshot::channel();
        self.queue_task(env, &self.new_places, Task::Hash { password, salt, cost: self.cost, reply })?;
        answer.await.map_err(|_| Busy)
    }

    /// Waits until the caller may have a password compared: no caller takes all places.
    ///
    /// # Errors
    /// [`Busy`]: too many of its own wait.
    pub(crate) async fn turn(&self, caller: &Caller) -> Result<Turn, Busy> {
        let (semaphore, waiter) = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Turns { semaphore: Arc::new(Semaphore::new(WAITING_EACH_MAX)), count: 0 };
            let of_caller = turns.entry(caller.clone()).or_insert_with(new);
            if of_caller.count >= TURNS_EACH_MAX {
                return Err(Busy);
            }
            of_caller.count += 1;
            let waiter = Waiter { turns: self.turns.clone(), caller: caller.clone() };
            (of_caller.semaphore.clone(), waiter)
        };
        let permit = semaphore.acquire_owned().await.map_err(|_| Busy)?;
        Ok(Turn { _permit: permit, _waiter: waiter })
    }

    /// Whether a password is the right one. `hash`: of the user, if there is one that has a
    /// password.
    pub(crate) async fn is_right<E: Env>(
        &self,
        env: &E,
        password: &[u8],
        hash: Option<&str>,
    ) -> Result<bool, Busy> {
        let with = hash.unwrap_or(&self.nobody).to_owned();
        let (reply, answer) = oneshot::channel();
        self.queue_task(env, &self.places, Task::Compare { password: password.to_vec(), with, reply })?;
        let is_right = answer.await.map_err(|_| Busy)?;
        Ok(is_right && hash.is_some())
    }

    /// Whether a user's password was right before, by the hash that the user has now.
    pub(crate) fn is_remembered(&self, user: u64, hash: &str, password: &[u8]) -> bool {
        let Some(key) = self.key.get() else { return false };
        let name = name(key, user, hash, password);
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).known.contains(&name)
    }

    /// A user's password was right, by that hash.
    pub(crate) fn remember<E: Env>(&self, env: &E, user: u64, hash: &str, password: &[u8]) {
        let key = self.key.get_or_init(|| {
            let mut key = [0; 32];
            fill(env, &mut key);
            key
        });
        let name = name(key, user, hash, password);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.known.insert(name) {
            remembered.order.push_back(name);
        }
        while remembered.order.len() > REMEMBERED_MAX
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.known.remove(&oldest);
        }
    }

    fn queue_task<E: Env>(&self, env: &E, places: &Arc<Semaphore>, task: Task) -> Result<(), Busy> {
        let place = places.clone().try_acquire_owned().map_err(|_| Busy)?;
        self.queue_of(env)?.push_all(&mut vec![Job { task, _place: place }]);
        Ok(())
    }

    /// The worker's queue. If the system gives no thread, the next password is another try: a
    /// password in a queue that nobody empties would wait for ever.
    fn queue_of<E: Env>(&self, env: &E) -> Result<Arc<WorkQueue<Job>>, Busy> {
        let mut known = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*known {
            return Ok(queue.clone());
        }
        let queue = WorkQueue::new();
        if let Err(error) = env.start_worker("passwords", PasswordWorker, queue.clone()) {
            tracing::warn!(%error, "there is no thread to hash passwords");
            return Err(Busy);
        }
        *known = Some(queue.clone());
        Ok(queue)
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.get_mut().unwrap_or_else(PoisonError::into_inner) {
            queue.close();
        }
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("cost", &self.cost).finish_non_exhaustive()
    }
}

struct PasswordWorker;

impl Worker for PasswordWorker {
    type Job = Job;
    const IS_PATIENT: bool = true;

    fn work(&mut self, jobs: Vec<Job>) -> bool {
        for Job { task, _place } in jobs {
            // The caller may have gone: then it is not worth the work.
            match task {
                Task::Hash { password, salt, cost, reply } if !reply.is_closed() => {
                    if let Some(hash) = hash(&password, &salt, cost) {
                        let _ = reply.send(phc(cost, &salt, &hash));
                    }
                }
                Task::Compare { password, with, reply } if !reply.is_closed() => {
                    let _ = reply.send(compare(&password, &with));
                }
                Task::Hash { .. } | Task::Compare { .. } => {}
            }
        }
        true
    }
}

/// What a user's password is remembered as.
fn name(key: &[u8; 32], user: u64, hash: &str, password: &[u8]) -> [u8; 32] {
    let mut inner = Sha256::new();
    inner.update(key);
    inner.update(user.to_le_bytes());
    // Of a fixed length, so that nothing is taken for a part of the password.
    inner.update(Sha256::digest(hash));
    inner.update(password);
    // Of the key and the hash again: so nothing can be appended to a password that is known.
    let mut outer = Sha256::new();
    outer.update(key);
    outer.update(inner.finalize());
    outer.finalize().into()
}

fn hash(password: &[u8], salt: &[u8], cost: PasswordCost) -> Option<[u8; HASH_BYTES]> {
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(HASH_BYTES)).ok()?;
    let mut hash = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut hash)
        .ok()?;
    Some(hash)
}

/// Whether the password's hash is this one.
fn compare(password: &[u8], with: &str) -> bool {
    let Some((cost, salt, expected)) = parse_phc(with) else { return false };
    hash(password, &salt, cost).is_some_and(|hash| bool::from(hash.ct_eq(&expected)))
}

/// A hash as a PHC string.
fn phc(cost: PasswordCost, salt: &[u8; SALT_BYTES], hash: &[u8; HASH_BYTES]) -> String {
    let plain = |bytes: &[u8]| to_base64(bytes).trim_end_matches('=').to_owned();
    let PasswordCost { memory_kib, passes } = cost;
    format!("$argon2id$v=19$m={memory_kib},t={passes},p=1${}${}", plain(salt), plain(hash))
}

/// What [`phc`] wrote.
pub(crate) fn parse_phc(text: &str) -> Option<(PasswordCost, [u8; SALT_BYTES], [u8; HASH_BYTES])> {
    let mut parts = text.strip_prefix("$argon2id$v=19$m=")?.split('$');
    let (memory, rest) = parts.next()?.split_once(",t=")?;
    let passes = rest.strip_suffix(",p=1")?;
    let cost = PasswordCost { memory_kib: memory.parse().ok()?, passes: passes.parse().ok()? };
    let (salt, hash) =
        (from_base64(parts.next()?.as_bytes()).ok()?, from_base64(parts.next()?.as_bytes()).ok()?);
    let is_good =
        parts.next().is_none() && cost.memory_kib <= COST_MAX.memory_kib && cost.passes <= COST_MAX.passes;
    Some((cost, salt.try_into().ok()?, hash.try_into().ok()?)).filter(|_| is_good)
}

/// Random bytes.
pub(crate) fn fill<E: Env>(env: &E, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&env.seed().to_le_bytes()[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests;
