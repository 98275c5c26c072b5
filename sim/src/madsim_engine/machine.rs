//! Machines, switched on and off.

use crate::machines::replica_config;
use crate::madsim_engine::certificates;
use crate::madsim_engine::env::SimEnv;
use crate::madsim_engine::run::Run;
use crate::madsim_engine::stopping::STOP_MICROS;
use crate::madsim_engine::time::now;
use crate::madsim_engine::witness::witnessed;
use crate::madsim_engine::world::{Exit, Shared};
use crate::madsim_engine::written::Written;
use crate::record::violation::Violation;
use crate::schedule::MILLI;
use infinitystore::api::{HttpOptions, HttpServer};
use infinitystore::node::{Node, NodeExit, NodeOptions, NodeSlot, ScrubOptions, keep_certificates};
use infinitystore::runtime::{Env, Metrics};

use std::sync::Arc;
use tokio::sync::Notify;

/// Time between a process' end by an error and its next start, as a supervisor would have it.
const SUPERVISOR_MICROS: u64 = 300 * MILLI;

impl Run {
    /// Starts a machine's process, if none runs.
    pub(super) fn start(&self, slot: usize) {
        let (env, options) = {
            let mut world = self.shared.lock();
            let world = &mut *world;
            let settings = &world.schedule.settings;
            let mut options =
                NodeOptions::new(&format!("node{}", world.machines[slot].namesake.unwrap_or(slot)));
            options.data_dir = "/data".into();
            let number = world.machines[slot].namesake.unwrap_or(slot);
            options.insecure = !world.limits.secured;
            let mut files = None;
            if world.limits.secured {
                let (tls, read) = certificates::of_node(number);
                (options.transport.tls, files) = (Some(tls), Some(read));
                *world.marks.entry("node with certificates").or_default() += 1;
            }
            options.raft_addr = world.machines[slot].raft_addr();
            options.http_addr = world.machines[slot].http_addr();
            options.request_timeout_micros = settings.client_timeout_micros;
            options.segment_bytes = settings.segment_bytes;
            options.replica = replica_config(settings);
            options.speak(world.machines[slot].speaks);
            options.scrub = scrub_options(world.schedule.seed);
            world.limits.apply(&mut options);
            if world.machines[slot].joins {
                let others = world.machines.iter().filter(|other| other.slot != slot);
                options.join = others.map(|other| other.raft_addr()).collect();
            }
            let machine = &mut world.machines[slot];
            if machine.on {
                return;
            }
            machine.starts();
            (machine.started_at, machine.certificates) = (now(), [files, None]);
            machine.done = Default::default();
            machine.written = Written::from(machine.disk.bytes());
            machine.revisions.clear();
            machine.view.knows_its_rules = false;
            (machine.stop, machine.stopping) = (Some(Arc::new(Notify::new())), None);
            (machine.on, machine.powered, machine.start_at) = (true, true, None);
            world.trace.line(now(), Some(slot), "start", "");
            if let Some(timeline) = world.trace.timeline() {
                timeline.note(now(), Some(slot), "start", "");
            }
            let machine = &world.machines[slot];
            let (life, disk) = (machine.life, machine.disk.clone());
            (SimEnv { shared: self.shared.clone(), slot, life, disk }, options)
        };
        self.handle.restart(self.nodes[slot]);
        let node = self.handle.get_node(self.nodes[slot]).expect("made at the start of the run");
        let process = (slot, env.life);
        node.spawn(witnessed(self.shared.clone(), process, serve(env, options)));
    }

    /// Ends a machine's process here and now. With the power, data that was not synced may be lost,
    /// and the far ends of its connections are not told.
    pub(super) fn switch_off(&self, slot: usize, power: bool) {
        {
            let mut world = self.shared.lock();
            if let Some(timeline) = world.trace.timeline() {
                timeline.status(now(), slot, None);
            }
            world.wire_tap.switched_off(slot);
            let machine = &mut world.machines[slot];
            machine.powered = !power;
            (machine.on, machine.handle, machine.power_fails_at) = (false, None, None);
            (machine.stop, machine.stopping) = (None, None);
            machine.life += 1;
            machine.view.leads = false;
            if machine.paused_until > now() {
                machine.paused_until = now();
            }
        }
        self.handle.resume(self.nodes[slot]);
        self.handle.kill(self.nodes[slot]);
        let mut world = self.shared.lock();
        let world = &mut *world;
        world.close_ports(slot);
        let machine = &mut world.machines[slot];
        machine.under_way.iter_mut().for_each(|(_, write)| write.settle_snapshot(&machine.hardware.disk));
        machine.disk.process_died();
        machine.disk.faults(|faults| {
            (faults.operations_left, faults.fail_sync, faults.fail_write) = (None, false, false);
        });
        if power {
            machine.disk.power_lost(&mut world.disk_rng);
        }
        let _ = machine.disk.troubled();
    }

    /// Looks at nodes that ended by themselves, as a supervisor does.
    pub(super) fn take_exits(&self) {
        let exits = std::mem::take(&mut self.shared.lock().exits);
        for Exit { slot, life, how } in exits {
            let (current, rotten, troubled) = {
                let world = self.shared.lock();
                let machine = &world.machines[slot];
                (machine.life == life, machine.rotten, machine.disk.troubled())
            };
            if !current {
                continue;
            }
            if how == Ok(NodeExit::Stopped) && self.shared.lock().machines[slot].stopping.is_some() {
                self.shared.lock().stopped(slot);
                let start_at = self.shared.lock().machines[slot].start_at;
                let is_dying = self.shared.lock().machines[slot].power_fails_at.is_some();
                if !is_dying {
                    self.switch_off(slot, false);
                    self.shared.lock().machines[slot].start_at = start_at;
                }
                continue;
            }
            if self.was_left_behind(slot, &how) {
                continue;
            }
            let (what, mark, check) = match how {
                Ok(NodeExit::Outgrown(why)) => (why, "", "no release is too old for its cluster"),
                Ok(NodeExit::Stopped | NodeExit::Removed) => {
                    ("it stopped unasked".to_owned(), "", "a node serves until it is told")
                }
                Ok(NodeExit::Rebuild(why)) => (why, "", "the states of members agree"),
                Ok(NodeExit::Failed(why) | NodeExit::DiskFailed(why)) => {
                    (why, "process ended by disk error", "a sound disk is enough")
                }
                Err(why) => (why, "start failed by disk", "a sound disk is accepted"),
            };
            {
                let mut world = self.shared.lock();
                world.trace.line(now(), Some(slot), "ended", &what);
                if let Some(timeline) = world.trace.timeline() {
                    timeline.note(now(), Some(slot), "ended", what.as_str());
                }
            }
            let fails_soon = self.shared.lock().machines[slot].power_fails_at.is_some();
            if fails_soon {
                continue;
            }
            self.switch_off(slot, false);
            let mut world = self.shared.lock();
            if rotten && check == "a sound disk is accepted" {
                // The simulated operator: a node that cannot help itself is wiped, and joins anew.
                world.mark("damage reported");
                drop(world);
                self.replace_disk(slot);
            } else if troubled && !mark.is_empty() {
                world.mark(mark);
                world.machines[slot].start_at = Some(now() + SUPERVISOR_MICROS);
            } else {
                let what = format!("machine {slot}: {what}");
                world.judge(Err(Violation { check, what }));
            }
        }
    }
}

/// In half of the runs what is at rest is read again and again.
fn scrub_options(seed: u64) -> ScrubOptions {
    let bytes_per_second = if seed.is_multiple_of(2) { 8 << 20 } else { 0 };
    ScrubOptions { bytes_per_second, rest_micros: 500 * MILLI }
}

/// A node's life, as its binary has it: the ports, the HTTP server, then the node, until the node
/// has ended.
async fn serve(env: SimEnv, options: NodeOptions) {
    let (shared, slot, life) = (env.shared.clone(), env.slot, env.life);
    let how = live(&shared, env, options).await;
    shared.lock().exits.push(Exit { slot, life, how });
}

async fn live(shared: &Shared, env: SimEnv, options: NodeOptions) -> Result<NodeExit, String> {
    let (slot, http_addr, metrics) = (env.slot, options.http_addr.clone(), Metrics::new());
    let listener = env.listen(&http_addr).await.map_err(|error| error.to_string())?;
    let peers = Node::listen(&env, &options).await.map_err(|error| error.to_string())?;
    let (http, stop) = {
        let mut world = shared.lock();
        let number = world.machines[slot].namesake.unwrap_or(slot);
        let tls = world.has_secured_clients().then(|| {
            let (tls, files) = certificates::of_client_port(number);
            world.machines[slot].certificates[1] = Some(files);
            tls
        });
        (HttpOptions { tls, ..world.limits.http() }, world.machines[slot].stop.clone())
    };
    let ports = [("peer", &options.transport.tls), ("client", &http.tls)];
    let secured: Vec<_> = ports.into_iter().filter_map(|(port, tls)| Some((port, tls.as_ref()?))).collect();
    secured.iter().for_each(|(port, tls)| metrics.certificates.add(port, tls));
    if !secured.is_empty() {
        env.spawn(keep_certificates(env.clone(), metrics.clone()));
    }
    shared.lock().machines[slot].scrub = Some(metrics.scrub.clone());
    let started = NodeSlot::default();
    let server = HttpServer::start(env.clone(), listener, http, started.clone(), metrics.clone());
    let node = Node::start_on(env.clone(), options, metrics, peers).await;
    let node = node.map_err(|error| error.to_string())?;
    started.fill(node.handle());
    shared.lock().machines[slot].handle = Some(node.handle());
    let told = async {
        match stop {
            Some(stop) => stop.notified().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = told => {}
        exit = node.stopped() => return Ok(exit),
    }
    server.stop(env.now().plus(STOP_MICROS)).await;
    node.stop();
    Ok(node.stopped().await)
}
