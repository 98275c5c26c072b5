//! A part of the exam: a node that is promised to a cluster which goes away, and a node that lost
//! its disk and is called as the member that it was. Neither is held against the node for ever.

use crate::madsim_engine::certificates::of_node;
use crate::madsim_engine::connections::SimStream;
use crate::madsim_engine::http::{Request, ask, within};
use crate::madsim_engine::laws::{self, Told, same};
use crate::madsim_engine::listening::connect;
use crate::madsim_engine::probe::Prober;
use crate::madsim_engine::run::{Newcomer, Run};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::Shared;
use crate::schedule::{MILLI, SECOND};
use infinitystore::codec::FeatureLevel;
use infinitystore::codec::{checksum_parts, to_bytes};
use infinitystore::tls::{Callee, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// A promise is asked for so much time.
const PROMISE_MICROS: u64 = 2 * SECOND;
/// What takes longer never happens.
const PATIENCE_MICROS: u64 = 60 * SECOND;

// docs/transport.md has what follows.
const MAGIC: &[u8; 8] = b"InfStore";
const HEADER_BYTES: usize = 15;
const KIND_RPC: u8 = 2;
const KIND_ACCEPTED: u8 = 3;
const KIND_QUESTION: u8 = 5;
const KIND_REPLY: u8 = 6;
const QUESTION_RESERVE: u32 = 3;
const REPLY_RESERVED: u32 = 2;
const REPLY_REFUSED: u32 = 4;

impl Run {
    /// Clusters that are no more had themselves promised a node without data, one after the other.
    /// Each promise ends in its time, and then the node serves, and may be promised again.
    pub(super) async fn examine_promises(&self, free: usize) -> Result<(), String> {
        for cluster in [1, 2] {
            let promised = reserve(&self.shared, free, cluster).await?;
            same("a node without data is promised", &promised, &true)?;
            let promised = reserve(&self.shared, free, cluster + 2).await?;
            same("a promised node is promised to another", &promised, &false)?;
            sleep_until(now() + PROMISE_MICROS + PROMISE_MICROS / 4).await;
        }
        let give_up = now() + PATIENCE_MICROS / 6;
        loop {
            let answer = ask(&self.shared, free, &Request::get("/get?key=promised")).await?;
            if laws::get("promised", &answer)? == Told::Value(None) {
                break;
            }
            if now() >= give_up {
                return Err(format!("machine {free} was promised, and does not serve: {}", answer.text()));
            }
            sleep_until(now() + 100 * MILLI).await;
        }
        self.shared.lock().mark("promises ended");
        Ok(())
    }

    /// A member loses its disk and comes back as a cluster of one, which the others call as that
    /// member. It takes no write. Then it is joined again by hand, and serves.
    pub(super) async fn examine_replacement(
        &self,
        lost: usize,
        through: usize,
        join: &Request,
    ) -> Result<(), String> {
        self.switch_off(lost, true);
        {
            let mut world = self.shared.lock();
            let world = &mut *world;
            world.attendance.disturb();
            let machine = &mut world.machines[lost];
            let was = machine.member.take();
            machine.wipe(was, &mut world.lost_disks);
            (machine.store, machine.joins) = (None, false);
            machine.under_way.clear();
            self.operator.borrow_mut().insert(lost, Newcomer { was, damaged: true });
        }
        self.start(lost);
        self.wait("a cluster of one serves", || self.shared.lock().machines[lost].handle.is_some()).await?;
        let give_up = now() + PATIENCE_MICROS;
        loop {
            let status = ask(&self.shared, lost, &Request::get("/v1/status")).await?;
            let status: serde_json::Value =
                serde_json::from_slice(&status.body).map_err(|error| format!("/v1/status: {error}"))?;
            if !status["withdrawn"].is_null() {
                break;
            }
            if now() >= give_up {
                return Err(format!(
                    "machine {lost} lost its disk, is called as a member, and does not say so"
                ));
            }
            self.tick();
            sleep_until(now() + 50 * MILLI).await;
        }
        let write = Request::post("/set", "{\"key\":\"lost\",\"value\":\"v\",\"action\":\"set\"}");
        let told = laws::set(&ask(&self.shared, lost, &write).await?)?;
        if !matches!(told, Told::NotAppended(_)) {
            return Err(format!("machine {lost} lost its disk, is called as a member, and says {told:?}"));
        }
        let give_up = now() + PATIENCE_MICROS;
        loop {
            let answer = ask(&self.shared, through, join).await?;
            if answer.code == 200 {
                break;
            }
            let may_wait = matches!(answer.code, 400 | 409 | 500 | 503);
            if !may_wait || now() >= give_up {
                return Err(format!("machine {lost} is to join again: {} {}", answer.code, answer.text()));
            }
            self.tick();
            sleep_until(now() + 100 * MILLI).await;
        }
        self.shared.lock().mark("a lost member joined again by hand");
        self.wait_until_well().await?;
        Prober::new(self.shared.clone(), 103).examine(lost, through).await
    }
}

/// Has a machine promised to a cluster that does not exist. Whether it agrees.
async fn reserve(shared: &Shared, slot: usize, cluster: u128) -> Result<bool, String> {
    let addr = shared.lock().machines[slot].raft_addr();
    let asking = async {
        let wrong = |error: std::io::Error| format!("machine {slot} is to be promised: {error}");
        let stream = connect(shared, None, &addr).await.map_err(wrong)?;
        let mut stream = secured(shared, &addr, stream).await.map_err(wrong)?;
        stream.write_all(&block(KIND_RPC, &[])).await.map_err(wrong)?;
        stream.flush().await.map_err(wrong)?;
        let (kind, _) = read_block(&mut stream).await.map_err(wrong)?;
        same("the answer to a hello", &kind, &KIND_ACCEPTED)?;
        let question = to_bytes(&(QUESTION_RESERVE, cluster, PROMISE_MICROS));
        stream.write_all(&block(KIND_QUESTION, &question)).await.map_err(wrong)?;
        stream.flush().await.map_err(wrong)?;
        let (kind, body) = read_block(&mut stream).await.map_err(wrong)?;
        same("the kind of a reply", &kind, &KIND_REPLY)?;
        match body.first_chunk().map(|start| u32::from_le_bytes(*start)) {
            Some(REPLY_RESERVED) => Ok(true),
            Some(REPLY_REFUSED) => Ok(false),
            other => Err(format!("machine {slot} is to be promised, and replies {other:?}")),
        }
    };
    let answer = within(now() + PATIENCE_MICROS, asking).await;
    answer.unwrap_or_else(|| Err(format!("machine {slot} is to be promised, and says nothing")))
}

fn block(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes =
        [&MAGIC[..], &FeatureLevel::OLDEST.get().to_le_bytes(), &[kind], &length.to_le_bytes(), body]
            .concat();
    let sum = checksum_parts(&[&bytes]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

async fn read_block(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let length = u32::from_le_bytes([header[11], header[12], header[13], header[14]]);
    let mut rest = vec![0; length as usize + 4];
    stream.read_exact(&mut rest).await?;
    rest.truncate(length as usize);
    Ok((header[10], rest))
}

/// As [`PortTls::connect`], by the node of number 0, if nodes have certificates in this run.
async fn secured(shared: &Shared, addr: &str, stream: SimStream) -> std::io::Result<Stream<SimStream>> {
    if !shared.lock().limits.secured {
        return Ok(Stream::Plain(stream));
    }
    let (tls, _) = of_node(0);
    tls.connect(stream, Callee::Address(addr)).await.map_err(std::io::Error::other)
}
