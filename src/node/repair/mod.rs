//! A node whose data directory is damaged repairs it before it takes part.
//!
//! Until then it is like a node that is down: it votes for nobody, acknowledges nothing and serves
//! nobody. It only answers questions of other nodes that repair theirs, so that two damaged members
//! can help each other. `docs/protocol.md` says why what it does is safe.

mod door;
mod fetch;

use crate::node::beside::in_blocks;
use crate::node::options::{NodeOptions, StartError};
use crate::node::repair::door::{Door, Lending};
use crate::node::repair::fetch::{Fetch, Me};
use crate::peer::mending::MendCaller;
use crate::peer::secured::Dialer;
use crate::runtime::{Alarms, Env, Metrics, RepairProgress};
use crate::storage::{Prognosis, Sound, Survey, all_aside, note_alarms, read_alarms};
use std::collections::BTreeSet;
use tracing::{info, warn};

/// Damages that an alarm names, at most.
const DAMAGES_NAMED: usize = 3;

/// Repairs the directory. When it returns, the directory is whole, or the damaged member is set
/// aside and the node has to join anew, or nothing was changed. In any case the directory is to be
/// opened again.
///
/// # Errors
/// [`StartError`] if nobody can help, or the disk fails.
pub(super) async fn repair<E: Env>(
    env: &E,
    options: &NodeOptions,
    listener: &mut E::Listener,
    survey: Survey<E::Disk>,
    metrics: &Metrics,
) -> Result<(), StartError> {
    let progress = &metrics.repair;
    metrics.alarm_board.recall(read_alarms(env.disk(), &options.data_dir), E::THREADS);
    let is_news = progress.begin(survey.damages().to_vec());
    if is_news {
        for damage in survey.damages() {
            warn!(%damage, "the data directory is damaged");
        }
    }
    let ended = Repair::<E>::new(env, options, survey, metrics).run(listener, is_news).await;
    match ended {
        Ok(Ended::Repaired) => progress.end(true),
        Ok(Ended::Unchanged) => progress.give_up(),
        Err(_) => progress.end(false),
    }
    ended.map(|_| ())
}

/// What has become of a repair.
enum Ended {
    /// The directory is mended, or set aside.
    Repaired,
    /// Nobody could help, and nothing was changed.
    Unchanged,
}

/// Raises the alarm that the directory was damaged. What it returns writes that down, and is to be
/// called right before the directory counts as whole: afterwards nothing else knows of it.
fn raise_repaired<E: Env>(
    env: &E,
    options: &NodeOptions,
    board: &Alarms,
    (done, damages): (&str, &[String]),
) -> impl FnOnce() + Send + 'static {
    let what = damages.iter().take(DAMAGES_NAMED).cloned().collect::<Vec<_>>().join("; ");
    let text = format!("the data directory was damaged, and the node has {done}: {what}");
    board.raise("repaired", &text, E::THREADS);
    let (board, disk, dir) = (board.clone(), env.disk().clone(), options.data_dir.clone());
    move || {
        let Some(lines) = board.take_news() else { return };
        if let Err(error) = note_alarms(&disk, &dir, &lines) {
            board.not_written();
            warn!(%error, "that the directory was damaged could not be written down; it is tried again");
        }
    }
}

/// A repair under way.
struct Repair<'r, E: Env> {
    env: &'r E,
    options: &'r NodeOptions,
    survey: Survey<E::Disk>,
    progress: &'r RepairProgress,
    alarms: &'r Alarms,
    dialer: Dialer<E>,
    /// Raft addresses of others.
    peers: Vec<String>,
    me: Me,
}

impl<'r, E: Env> Repair<'r, E> {
    fn new(env: &'r E, options: &'r NodeOptions, survey: Survey<E::Disk>, metrics: &'r Metrics) -> Self {
        let found = survey.peers();
        let listed = options.initial_cluster.iter().filter(|node| node.name != options.name);
        let named = options.join.iter().chain(listed.map(|node| &node.raft_addr)).cloned();
        let all: BTreeSet<String> = found.into_iter().chain(named).collect();
        let peers = all.into_iter().filter(|addr| *addr != options.raft_addr).collect();
        let caller = survey.supposed_identity().map(|identity| MendCaller {
            cluster: identity.cluster,
            member: identity.member,
            store: identity.store,
        });
        let me = Me { caller, cluster: survey.cluster() };
        let (tls, speaks) = (options.transport.tls.clone(), options.transport.speaks);
        let dialer = Dialer { env: env.clone(), tls, names: None, speaks };
        let (progress, alarms) = (&metrics.repair, &metrics.alarm_board);
        Self { env, options, survey, progress, alarms, dialer, peers, me }
    }

    async fn run(self, listener: &mut E::Listener, is_news: bool) -> Result<Ended, StartError> {
        match self.survey.prognosis() {
            Prognosis::Mendable(sound) => self.mend(*sound, listener).await,
            Prognosis::Replaceable(why) => self.replace((&why, is_news), listener).await,
        }
    }

    /// Gets what is missing, and writes a whole log. Until then the directory is as it was, but for
    /// what the next start removes. If nobody gives anything for long, that is left to it.
    async fn mend(self, sound: Sound, listener: &mut E::Listener) -> Result<Ended, StartError> {
        if sound.missing().is_some() && self.peers.is_empty() {
            let lost = match sound.missing_count() {
                1 => "one entry of its log is lost".to_owned(),
                count => format!("{count} entries of its log are lost"),
            };
            return Err(self.alone(&lost));
        }
        let Self { env, options, survey, progress, alarms, dialer, peers, me } = self;
        let survey = in_blocks(env, move || survey.begin_mending().map(|()| survey)).await?;
        let lending = Lending::of(&survey);
        let door = Door::new(&dialer, me.caller, lending.clone());
        let mut fetch = Fetch { env, dialer, me, peers, progress, survey, lending };
        let fetched = tokio::select! {
            biased;
            fetched = fetch.all(sound) => fetched?,
            never = door.run(listener) => match never {},
        };
        let Some(fetched) = fetched else { return Ok(Ended::Unchanged) };
        let entries = fetched.missing_count();
        debug_assert_eq!(entries, 0, "nothing is missing any more");
        progress.note("writing the mended log", 0);
        let survey = fetch.survey;
        let note = raise_repaired(env, options, alarms, ("repaired it", survey.damages()));
        let mend = move || {
            note();
            survey.mend(&fetched)
        };
        in_blocks(env, mend).await?;
        let status = progress.status();
        info!(
            entries = status.entries_fetched,
            bytes = status.bytes_fetched,
            "REPAIRED the data directory: what was damaged came from other members, or was not needed"
        );
        Ok(Ended::Repaired)
    }

    /// Waits until a cluster that can go on without this member is there, and sets aside what is
    /// left. Until then it writes nothing. If none is there for long, it leaves all as it is.
    async fn replace(
        self,
        (why, is_news): (&str, bool),
        listener: &mut E::Listener,
    ) -> Result<Ended, StartError> {
        if self.peers.is_empty() {
            return Err(self.alone(why));
        }
        let Self { env, options, survey, progress, alarms, dialer, peers, me } = self;
        let door = Door::new(&dialer, me.caller, Lending::of(&survey));
        let doing = format!("it cannot go on as the member that it was, since {why}");
        if is_news {
            progress.note(&doing, 0);
            warn!(%why, "this node cannot go on as the member that it was; it joins its cluster anew");
        }
        let leader = tokio::select! {
            biased;
            leader = fetch::find_leader(&dialer, (&peers, me), progress, &doing) => leader?,
            never = door.run(listener) => match never {},
        };
        let Some(leader) = leader else { return Ok(Ended::Unchanged) };
        let mut known = peers.clone();
        known.insert(0, leader);
        let mut done = "set it aside and joined anew".to_owned();
        let before = all_aside(env.disk(), &options.data_dir).map_or(0, |all| all.len());
        if before > 0 {
            done.push_str(&format!(", {} times by now (suspect its disk)", before + 1));
        }
        let note = raise_repaired(env, options, alarms, (&done, survey.damages()));
        let set_aside = move || {
            note();
            survey.set_aside(&known)
        };
        let aside = in_blocks(env, set_aside).await?;
        warn!(aside = %aside.display(), "set the damaged data aside; this node joins its cluster anew under its name");
        Ok(Ended::Repaired)
    }

    /// Nobody can help.
    fn alone(&self, what: &str) -> StartError {
        let dir = self.options.data_dir.display();
        let damages = self.survey.damages().join("\n  ");
        StartError::Storage(format!(
            "the data directory {dir} is damaged, and {what}:\n  {damages}\nThis node knows of no other member. Choose one:\n\
             - if its cluster has other members, start it with --join and the raft address of one: it repairs itself from them\n\
             - put a copy of the damaged files back\n\
             - infinitystore wal repair {dir} --accept-loss   shows what is lost and goes on without it"
        ))
    }
}
