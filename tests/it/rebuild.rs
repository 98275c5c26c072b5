//! A member whose state differs from the others' becomes the same program anew, and joins its
//! cluster by itself. Nothing that a user can do makes a state differ: the test stands between
//! leader and member, and puts the leader's verdict into its mouth.

use crate::support::{Cluster, Node, eventually};
use infinitystore::codec::encode_frame;
use infinitystore::raft::{LogIndex, NodeId, Term};
use infinitystore::replica::{PeerMessage, StateHash, StateHashKind};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// States are compared at entries of such an index.
const CHECKPOINT: u64 = 256;
/// Bytes of a block before its body, where the body's length stands, and bytes behind it.
const BLOCK_HEAD: usize = 15;
const BLOCK_LENGTH_AT: usize = 11;
const BLOCK_TAIL: usize = 4;
/// The kind of a member's hello.
const HELLO: u8 = 1;
/// Where the caller stands in its body: behind three levels and the cluster.
const CALLER_AT: usize = 3 * 2 + 16;
/// Bytes of a frame before its payload, of which the first four are the payload's length.
const FRAME_HEAD: usize = 12;

/// A frame, and the member on whose connection it is to go.
type Forged = (u64, Vec<u8>);

/// A way to a node's raft port. What is put into it goes to the node between two frames.
#[derive(Clone, Default)]
struct Way(Arc<Mutex<Option<Forged>>>);

impl Way {
    /// Listens, and lets through what comes, until the test ends.
    fn begin(listener: TcpListener, raft_port: u16) -> Self {
        let way = Self::default();
        let this = way.clone();
        thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                let Ok(node) = TcpStream::connect(("localhost", raft_port)) else { continue };
                let (this, back) = (this.clone(), (node.try_clone().unwrap(), caller.try_clone().unwrap()));
                thread::spawn(move || this.carry(caller, node));
                thread::spawn(move || carry_bytes(back.0, back.1));
            }
        });
        way
    }

    fn put(&self, message: &PeerMessage) {
        let mut frame = Vec::new();
        encode_frame(&mut frame, |out| message.encode(out));
        *self.0.lock().unwrap() = Some((message.from().get(), frame));
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let carried = (|| -> io::Result<()> {
            let mut piece = vec![0; BLOCK_HEAD];
            from.read_exact(&mut piece)?;
            let length = u32::from_le_bytes(piece[BLOCK_LENGTH_AT..].try_into().unwrap()) as usize;
            let kind = piece[BLOCK_LENGTH_AT - 1];
            piece.resize(BLOCK_HEAD + length + BLOCK_TAIL, 0);
            from.read_exact(&mut piece[BLOCK_HEAD..])?;
            to.write_all(&piece)?;
            if kind != HELLO {
                return Ok(());
            }
            let at = BLOCK_HEAD + CALLER_AT;
            let caller = u64::from_le_bytes(piece[at..at + 8].try_into().unwrap());
            loop {
                piece.resize(FRAME_HEAD, 0);
                from.read_exact(&mut piece)?;
                let length = u32::from_le_bytes(piece[..4].try_into().unwrap()) as usize;
                piece.resize(FRAME_HEAD + length, 0);
                from.read_exact(&mut piece[FRAME_HEAD..])?;
                to.write_all(&piece)?;
                let frame = self.0.lock().unwrap().take_if(|(from, _)| *from == caller);
                if let Some((_, frame)) = frame {
                    to.write_all(&frame)?;
                }
            }
        })();
        if carried.is_ok() {
            carry_bytes(from, to);
        } else {
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

fn carry_bytes(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// A number of a node's status.
fn number(node: &Node, name: &str) -> u64 {
    eventually(name, || node.status()?[name].as_u64())
}

#[test]
fn a_member_whose_state_differs_starts_itself_again_and_joins_anew() {
    // A quorum has to be left without the member.
    let cluster = Cluster::start(2, &[]);
    let leader = &cluster.nodes[cluster.leader()];
    let listener = TcpListener::bind("localhost:0").unwrap();
    let advertised = format!("--advertise-raft-addr={}", listener.local_addr().unwrap());
    let joined = format!("--join=localhost:{}", leader.raft_port);
    let member = Node::new(cluster.dir.path(), "node-3", &[&advertised, &joined]);
    let way = Way::begin(listener, member.raft_port);
    member.start();
    member.wait_until_ready();
    for key in 0..CHECKPOINT + 20 {
        assert_eq!(leader.set(&format!("key-{key}"), "v").status, 200);
    }
    eventually("the member to apply them", || {
        (member.status()?["applied_index"].as_u64()? > CHECKPOINT).then_some(())
    });
    let (pid, id) = (member.pid(), number(&member, "id"));
    way.put(&PeerMessage::StateHash(StateHash {
        from: NodeId::new(number(leader, "id")),
        to: NodeId::new(id),
        term: Term::new(number(leader, "term")),
        kind: StateHashKind::Verdict,
        index: LogIndex::new(CHECKPOINT),
        hash: 1,
    }));
    eventually("the verdict to reach it", || way.is_empty().then_some(()));
    eventually("it to be a new member", || (member.status()?["id"].as_u64()? > id).then_some(()));
    member.wait_until_ready();
    assert_eq!(member.pid(), pid, "it is the same process, which became the program anew");
    let log = member.log();
    assert!(log.contains("this node starts itself again"), "{log}");
    assert!(member.data_dir().join("damaged-1/rebuild").exists());
    assert!(member.get("/v1/alarms").body.contains("state-differed"));
    assert_eq!(member.get("/get?key=key-3").status, 200);
    eventually("the old member to leave", || {
        (leader.status()?["members"].as_array()?.len() == 3).then_some(())
    });
    assert_eq!(member.set("since", "v").status, 200);
}
