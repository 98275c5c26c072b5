use crate::codec::{FeatureLevel, FeatureLevels, encode_frame};
use crate::peer::address_book::{AddressBook, Me};
use crate::peer::hello::{Hello, HelloAnswer, PeerHello, Starts};
use crate::peer::incoming::{
    Answers, BUFFER_BYTES, BUFFER_BYTES_KEPT, Incoming, KNOWN_MAX, PeerBatch, PortPlace, PortPlaces,
    ROOM_UNIT_BYTES, Receiver, make_room,
};
use crate::peer::options::TransportOptions;
use crate::raft::{
    AppendClock, Body, ClusterId, Entry, EntryKind, LogId, LogIndex, Member, Membership, Message, NodeId,
    ReadRound, Session, StoreId, Term,
};
use crate::replica::{LevelsSaid, PeerMessage};
use crate::runtime::door::Caller;
use crate::runtime::{Env, Listener, Metrics, TokioEnv, watch};
use crate::storage::MemoryDisk;
use crate::tls::{PeerCertificate, Stream};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

fn at(level: FeatureLevel) -> Receiver {
    Receiver { cluster: ClusterId(1), from: NodeId::new(2), to: NodeId::new(1), level }
}

fn receiver() -> Receiver {
    at(FeatureLevel::NEWEST)
}

fn frame(from: u64, to: u64) -> Vec<u8> {
    let (from, to, term) = (NodeId::new(from), NodeId::new(to), Term::new(1));
    let message = PeerMessage::Raft(Message { from, to, term, body: Body::VoteGranted });
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, |out| message.encode(out));
    bytes
}

#[test]
fn messages_are_decoded_as_soon_as_they_are_complete() {
    let bytes = [frame(2, 1), frame(2, 1)].concat();
    let mut received = BytesMut::new();
    let mut decoded = 0;
    for (position, byte) in bytes.iter().enumerate() {
        received.put_u8(*byte);
        decoded += receiver().decode(&mut received).unwrap().len();
        assert_eq!(decoded, (position + 1) * 2 / bytes.len());
    }
}

#[test]
fn nobody_speaks_for_another_or_to_another() {
    for (from, to) in [(3, 1), (2, 3)] {
        assert!(receiver().decode(&mut BytesMut::from(&frame(from, to)[..])).is_err(), "{from} to {to}");
    }
}

#[test]
fn what_a_level_has_no_words_for_is_refused_at_it() {
    let (from, to, term) = (NodeId::new(2), NodeId::new(1), Term::new(1));
    let levels = PeerMessage::Levels(LevelsSaid { from, to, term, speaks: FeatureLevels::OF_THIS_RELEASE });
    let id = LogId::new(term, LogIndex::new(1));
    let entries = vec![Entry::new(id, EntryKind::Level, &FeatureLevel::NEWEST.to_data())];
    let body = Body::AppendEntries {
        session: Session::new(1),
        prev: LogId::ZERO,
        acknowledged: LogId::ZERO,
        entries,
        commit: LogIndex::ZERO,
        round: ReadRound::ZERO,
        clock: AppendClock::default(),
    };
    for message in [levels, PeerMessage::Raft(Message { from, to, term, body })] {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, |out| message.encode(out));
        let mut received = BytesMut::from(&bytes[..]);
        assert!(at(FeatureLevel::OLDEST).decode(&mut received).is_err(), "{message:?}");
        let mut received = BytesMut::from(&bytes[..]);
        assert_eq!(at(FeatureLevel::NEWEST).decode(&mut received).unwrap(), [message]);
    }
}

/// An append with one small entry, in a frame.
fn small_append(index: u64) -> Vec<u8> {
    let (from, to, term) = (NodeId::new(2), NodeId::new(1), Term::new(1));
    let id = |index| LogId::new(term, LogIndex::new(index));
    let entries = vec![Entry::new(id(index + 1), EntryKind::Command, &[7; 100])];
    let (commit, round) = (LogIndex::new(index), ReadRound::ZERO);
    let body = Body::AppendEntries {
        session: Session::new(1),
        prev: id(index),
        acknowledged: LogId::ZERO,
        entries,
        commit,
        round,
        clock: AppendClock::default(),
    };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, |out| PeerMessage::Raft(Message { from, to, term, body }).encode(out));
    bytes
}

/// What a log keeps of many small appends is their size, not that of the buffers that they were
/// received in.
#[test]
fn entries_do_not_keep_the_buffers_that_they_were_received_in() {
    let mut received = BytesMut::new();
    let (mut kept, mut buffers) = (Vec::new(), BTreeSet::new());
    for index in 1..2_000 {
        make_room(&mut received);
        received.put_slice(&small_append(index));
        buffers.insert(received.as_ptr() as usize / BUFFER_BYTES);
        kept.extend(receiver().decode(&mut received).unwrap());
    }
    assert!(received.try_reclaim(BUFFER_BYTES), "nobody else has a part of the buffer");
    let entries = kept.into_iter().map(|message| match message {
        PeerMessage::Raft(Message { body: Body::AppendEntries { entries, .. }, .. }) => entries,
        other => panic!("{other:?}"),
    });
    // With everything else of their messages gone, the entries own what they keep alone: count its
    // capacity.
    let mut held = 0;
    let mut length = 0;
    for entry in entries.flatten() {
        length += entry.encoded_bytes();
        let alone = Bytes::clone(entry.encoded());
        drop(entry);
        held += alone.try_into_mut().expect("nobody else keeps it").capacity();
    }
    assert!(held <= 2 * length, "{held} bytes are held for {length}");
    assert!(buffers.len() <= 2, "one buffer is used again and again: {}", buffers.len());
}

#[test]
fn a_buffer_that_grew_for_a_long_message_is_given_back() {
    let mut received = BytesMut::with_capacity(64 << 20);
    received.put_slice(&small_append(1));
    receiver().decode(&mut received).unwrap();
    make_room(&mut received);
    assert!(received.capacity() < BUFFER_BYTES_KEPT);
}

/// However many addresses they call from.
#[test]
fn strangers_cannot_take_the_places_of_members() {
    let places = Arc::new(Mutex::new(PortPlaces::new(1024, 128)));
    let stranger = |number: usize| Caller::of(&format!("10.1.{}.{}:1", number / 250, number % 250));
    let crowd: Vec<_> =
        (0..2000).filter_map(|number| PortPlace::take(&places, stranger(number), false)).collect();
    assert_eq!(crowd.len(), 768);
    assert!(PortPlace::take(&places, Caller::of("10.0.0.9:1"), false).is_none());
    // Of one that is in the address book, and of one that was let in from elsewhere before.
    let member = Caller::of("10.0.0.1:1");
    let mut held: Vec<_> =
        (0..128).map(|_| PortPlace::take(&places, member.clone(), true).expect("a place")).collect();
    let mut crowd = crowd;
    drop(crowd.pop());
    let mut other = PortPlace::take(&places, Caller::of("10.0.0.2:1"), false).expect("a stranger's place");
    other.become_members();
    crowd.push(PortPlace::take(&places, stranger(7), false).expect("the place that it left"));
    held.push(PortPlace::take(&places, Caller::of("10.0.0.2:1"), false).expect("it is known"));
    drop((crowd, held, other));
    let places = places.lock().unwrap();
    assert_eq!(places.pools.each_ref().map(|pool| pool.taken()), [0, 0]);
}

#[test]
fn few_callers_are_remembered_as_members() {
    let places = Arc::new(Mutex::new(PortPlaces::new(1024, 128)));
    let caller = |number: usize| Caller::of(&format!("10.0.0.{number}:1"));
    for number in (0..KNOWN_MAX + 1).chain([1]) {
        PortPlace::take(&places, caller(number), false).expect("a place").become_members();
    }
    let known = places.lock().unwrap().known.clone();
    assert_eq!((known.len(), known.contains(&caller(0)), known.back()), (KNOWN_MAX, false, Some(&caller(1))));
}

struct Unanswered;

impl<E: Env> Answers<E> for Unanswered {
    async fn serve(&self, _: (Stream<E::Stream>, FeatureLevel), _: Option<PeerCertificate>) {}
}

/// A raft port, and where its messages arrive.
async fn port(options: TransportOptions) -> (String, mpsc::Receiver<PeerBatch>, watch::Sender<bool>) {
    let env = TokioEnv::new(MemoryDisk::new());
    let me = Me {
        cluster: ClusterId(1),
        id: NodeId::new(1),
        store: StoreId(1),
        starts: Starts { number: 1, nonces: vec![1] },
        name: "n1".to_owned(),
        raft_addr: "n1:1".to_owned(),
        http_addr: "n1:2".to_owned(),
        speaks: FeatureLevels::OF_THIS_RELEASE,
    };
    let member = Member {
        name: "n1".to_owned(),
        raft_addr: "n1:1".to_owned(),
        http_addr: "n1:2".to_owned(),
        store_id: StoreId(1),
    };
    let address_book = AddressBook::new(me, Membership::bootstrap([member]).unwrap());
    let (messages, arrived) = mpsc::channel(16);
    let (end, ended) = watch::channel(false);
    let room = |bytes: usize| Arc::new(Semaphore::new(bytes.div_ceil(ROOM_UNIT_BYTES)));
    let incoming = Incoming {
        env: env.clone(),
        address_book: Arc::new(address_book),
        messages,
        service: Unanswered,
        discoveries: mpsc::channel(1).0,
        room: room(options.receive_bytes_max),
        parts: room(options.part_bytes_max()),
        options,
        metrics: Metrics::new(),
        ended,
        guard: None,
        refusals: Mutex::default(),
        rounds: Default::default(),
    };
    let listener = env.listen("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(Arc::new(incoming).run(listener));
    (addr, arrived, end)
}

async fn call(addr: &str, from: u64) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let hello = Hello::Peer(PeerHello {
        cluster: ClusterId(1),
        from: NodeId::new(from),
        store: StoreId(from.into()),
        raft_addr: format!("n{from}:1"),
        to: NodeId::new(1),
        starts: Starts { number: 1, nonces: vec![from] },
    });
    hello.write(&mut stream).await.unwrap();
    assert_eq!(HelloAnswer::heard(&mut stream).await.unwrap(), HelloAnswer::Accepted);
    stream
}

#[tokio::test]
async fn parts_of_messages_that_never_come_whole_take_a_bounded_memory() {
    let options = TransportOptions { write_timeout_micros: 200_000, ..TransportOptions::default() };
    let room_for = options.part_bytes_max() / (7 << 20);
    let (addr, mut arrived, _end) = port(options).await;
    let mut long = Vec::new();
    encode_frame(&mut long, |out| out.extend_from_slice(&[7; 8 << 20]));
    long.truncate(7 << 20);
    let long = Bytes::from(long);
    let mut callers = JoinSet::new();
    for number in 10..16 {
        let (addr, long) = (addr.clone(), long.clone());
        callers.spawn(async move {
            let mut stream = call(&addr, number).await;
            // Until the port closes the connection.
            let _ = stream.write_all(&long).await;
            let _ = stream.read(&mut [0]).await;
        });
    }
    for _ in room_for..6 {
        let closed = timeout(Duration::from_secs(20), callers.join_next()).await;
        assert!(closed.is_ok(), "there is room for {room_for}");
    }
    // What comes whole has room meanwhile.
    let mut other = call(&addr, 2).await;
    other.write_all(&small_append(1)).await.unwrap();
    let batch = arrived.recv().await.expect("it arrives");
    assert_eq!((batch.messages.len(), batch.messages[0].from()), (1, NodeId::new(2)));
    // Those who had room do not keep it.
    for _ in 0..room_for {
        let closed = timeout(Duration::from_secs(20), callers.join_next()).await;
        assert!(closed.is_ok(), "a part that stays a part");
    }
}
