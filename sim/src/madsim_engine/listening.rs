//! Who listens where, and how a connection is made.

use crate::madsim_engine::connections::SimStream;
use crate::madsim_engine::pipes::{GIVE_UP_MICROS, Place, Port, RETRANSMIT_MICROS, wake};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::{NodeHost, Shared, World};
use infinitystore::runtime::Listener;
use std::io::{self, ErrorKind};
use std::task::Poll;

impl World {
    /// Closes the ports of a machine whose process is gone. Callers that were not accepted yet find
    /// that out.
    pub(super) fn close_ports(&mut self, slot: usize) {
        let ports = self.connections.ports.iter().filter(|(_, port)| port.slot == slot);
        for addr in ports.map(|(addr, _)| addr.clone()).collect::<Vec<_>>() {
            self.close_port(&addr);
        }
    }

    fn close_port(&mut self, addr: &str) {
        let Some(port) = self.connections.ports.remove(addr) else { return };
        for id in port.backlog {
            if self.machines[port.slot].powered {
                self.break_connection(id);
            } else {
                self.connections.abandon(id);
            }
        }
    }
}

/// Connects from a place to `addr`; `None` is a client's place.
pub(super) async fn connect(shared: &Shared, from: Place, addr: &str) -> io::Result<SimStream> {
    let give_up = now() + GIVE_UP_MICROS;
    let slot = slot_of(addr)?;
    if let Some((caller, _)) = from {
        let mut world = shared.lock();
        let (no_name, no_handles) = {
            let until = |it: Option<&NodeHost>, of: fn(&NodeHost) -> u64| it.map_or(0, of);
            let there = world.machines.get(slot);
            let no_name = until(there, |it| it.no_name_until);
            (no_name, until(world.machines.get(caller), |it| it.no_handles_until))
        };
        if no_name > now() {
            world.mark("name not resolved");
            return Err(io::Error::other(format!("{addr}: cannot be resolved")));
        }
        if no_handles > now() {
            return Err(no_handles_left());
        }
    }
    loop {
        let (there, back) = {
            let mut world = shared.lock();
            if slot >= world.machines.len() {
                return Err(io::Error::new(ErrorKind::NotFound, format!("{addr}: no such machine")));
            }
            let to = Some((slot, 0));
            let through = world.machines[slot].powered && world.reaches(from, to) && world.reaches(to, from);
            if through { (world.delay(from, to), world.delay(to, from)) } else { (0, 0) }
        };
        if back > 0 {
            sleep_until(now() + there + back).await;
            break;
        }
        if now() >= give_up {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("{addr}: no answer")));
        }
        sleep_until(now() + RETRANSMIT_MICROS).await;
    }
    let mut world = shared.lock();
    let world = &mut *world;
    let Some(port) = world.connections.ports.get(addr) else {
        return Err(io::Error::new(ErrorKind::ConnectionRefused, format!("{addr}: connection refused")));
    };
    let to = Some((port.slot, port.life));
    let process = (port.slot, port.life);
    let id = world.connections.add(from, to);
    // An address with few connections may use the last places, others may not. When the turn of
    // this connection comes, there are no more than those that are there now: others come behind
    // it.
    let is_full = |most: usize| world.connections.to_http(process) + most / 16 > most;
    let met_full = from.is_none() && world.limits.connections.is_some_and(is_full);
    if let Some(connection) = world.connections.open.get_mut(&id) {
        connection.met_full = met_full;
    }
    if let Some(port) = world.connections.ports.get_mut(addr) {
        port.backlog.push_back(id);
        wake(&mut port.acceptor);
    }
    Ok(SimStream::new(shared.clone(), id, 0))
}

/// Listens on `addr`.
pub(super) fn listen(shared: &Shared, slot: usize, life: u32, addr: &str) -> io::Result<SimListener> {
    let mut world = shared.lock();
    if world.connections.ports.contains_key(addr) {
        return Err(io::Error::new(ErrorKind::AddrInUse, format!("{addr}: in use")));
    }
    world.connections.ports.insert(addr.to_owned(), Port { slot, life, ..Port::default() });
    Ok(SimListener { shared: shared.clone(), addr: addr.to_owned(), life })
}

/// EMFILE.
fn no_handles_left() -> io::Error {
    io::Error::from_raw_os_error(24)
}

/// The machine of an address like `m3:8000`.
fn slot_of(addr: &str) -> io::Result<usize> {
    let slot =
        addr.strip_prefix('m').and_then(|rest| rest.split(':').next()).and_then(|slot| slot.parse().ok());
    slot.ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("{addr}: cannot be resolved")))
}

/// A listening socket.
pub(super) struct SimListener {
    shared: Shared,
    addr: String,
    life: u32,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, String)> {
        std::future::poll_fn(|cx| {
            let mut world = self.shared.lock();
            let Some(port) = world.connections.ports.get_mut(&self.addr) else {
                return Poll::Ready(Err(io::Error::other("the simulated port is closed")));
            };
            let (slot, is_waiting) = (port.slot, !port.backlog.is_empty());
            if is_waiting && world.machines[slot].no_handles_until > now() {
                world.mark("no descriptor for a connection");
                return Poll::Ready(Err(no_handles_left()));
            }
            let Some(port) = world.connections.ports.get_mut(&self.addr) else { return Poll::Pending };
            match port.backlog.pop_front() {
                Some(id) => {
                    Poll::Ready(Ok((SimStream::new(self.shared.clone(), id, 1), "somebody".to_owned())))
                }
                None => {
                    port.acceptor = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.addr.clone())
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut world = self.shared.lock();
        if world.connections.ports.get(&self.addr).is_some_and(|port| port.life == self.life) {
            world.close_port(&self.addr);
        }
    }
}
