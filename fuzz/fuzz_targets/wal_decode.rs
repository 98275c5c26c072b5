//! A data directory whose files hold anything: opening and dumping it may fail, and never panics.
//!
//! Checksums keep random bytes out of the decoders, so there are three ways in, chosen by the first
//! byte: the log is replaced by the input; the input edits the files of a real directory; the input
//! is the content of a batch that is otherwise correct. The last one is encoded here, from
//! `docs/wal-format.md`, on purpose.
#![no_main]

use infinitystore::codec::checksum;
use infinitystore::kv::{Op, Store};
use infinitystore::raft::{ClusterId, LogId, LogIndex, Member, NodeId, StoreId, Term, bootstrap_log};
use infinitystore::replica::SnapshotSave;
use infinitystore::storage::{Bootstrap, MemoryDisk, SpareMode, Storage, StorageClock, StorageOptions, dump};
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const DIR: &str = "/data";
const SECTOR: usize = 512;
const BLOCK: usize = 4096;

static BASE: LazyLock<(MemoryDisk, Vec<PathBuf>)> = LazyLock::new(|| {
    let disk = MemoryDisk::new();
    let (storage, _) = open(&disk).expect("a new directory opens");
    let mut store = Store::new();
    store.apply(1, &Op::set("key", "value").into());
    let first = LogId::new(Term::new(1), LogIndex::new(1));
    let membership = infinitystore::raft::Membership::bootstrap([member()]).unwrap();
    let save = SnapshotSave { last: first, membership, membership_id: first, store };
    storage.snapshot_files().save(save).expect("a snapshot is saved");
    storage.close().expect("it closes");
    let files = disk.files().into_iter().filter(|file| !file.ends_with("lock")).collect();
    (disk, files)
});

fn member() -> Member {
    Member {
        name: "node1".into(),
        raft_addr: "localhost:8000".into(),
        http_addr: ":8001".into(),
        store_id: StoreId(2),
    }
}

fn bootstrap() -> Bootstrap {
    Bootstrap {
        name: "node1".into(),
        cluster: ClusterId(1),
        member: NodeId::new(1),
        store: StoreId(2),
        initial: bootstrap_log([member()]).unwrap(),
    }
}

fn open(
    disk: &MemoryDisk,
) -> Result<(Storage<MemoryDisk>, infinitystore::storage::Opened), infinitystore::storage::OpenError> {
    let options = StorageOptions {
        segment_bytes: 64 << 10,
        spare_mode: SpareMode::Inline,
        clock: StorageClock::still(),
        ..StorageOptions::new(DIR)
    };
    Storage::open(disk.clone(), options, &bootstrap())
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, input)) = input.split_first() else { return };
    let (base, files) = &*BASE;
    let disk = base.copy();
    let segment =
        files.iter().find(|file| file.extension().is_some_and(|end| end == "seg")).expect("there is a log");
    match mode % 3 {
        0 => disk.overwrite(segment, input.to_vec()),
        1 => edit(&disk, files, input),
        _ => {
            let mut bytes = disk.content(segment).expect("it was just listed");
            append_batch(&mut bytes, input);
            disk.overwrite(segment, bytes);
        }
    }
    for item in dump(&disk, Path::new(DIR)) {
        let _ = item.to_string();
    }
    if let Err(error) = open(&disk) {
        let _ = error.to_string();
    }
});

/// Five bytes an edit: file, offset (24 bits), what to put there.
fn edit(disk: &MemoryDisk, files: &[PathBuf], input: &[u8]) {
    for edit in input.chunks_exact(5) {
        let file = &files[edit[0] as usize % files.len()];
        let mut bytes = disk.content(file).expect("it was listed");
        let at = u32::from_le_bytes([edit[1], edit[2], edit[3], 0]) as usize % (bytes.len() + 1);
        match bytes.get_mut(at) {
            Some(byte) => *byte = edit[4],
            None => bytes.push(edit[4]),
        }
        if edit[4] == 0xff {
            bytes.truncate(at);
        }
        disk.overwrite(file, bytes);
    }
}

/// Puts a batch behind the first one: correct stamps and checksums around records made of the
/// input, each a type byte, a length byte and a body.
fn append_batch(file: &mut [u8], input: &[u8]) {
    let mut records = Vec::new();
    let mut rest = input;
    while let [kind, length, body @ ..] = rest {
        let body = &body[..body.len().min(*length as usize)];
        let mut covered = (body.len() as u32).to_le_bytes().to_vec();
        covered.push(kind % 8);
        covered.extend_from_slice(body);
        records.extend_from_slice(&checksum(&covered).to_le_bytes());
        records.extend_from_slice(&covered);
        rest = &rest[2 + body.len()..];
    }
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    let previous = word(BLOCK + 8 + 4);
    let life = u64::from_le_bytes(file[8 + 16..8 + 24].try_into().expect("eight bytes"));
    let mut covered = checksum(&records).to_le_bytes().to_vec();
    covered.extend_from_slice(&previous.to_le_bytes());
    covered.extend_from_slice(&(records.len() as u32).to_le_bytes());
    for number in [2u64, 1, 0, 0] {
        covered.extend_from_slice(&number.to_le_bytes());
    }
    let mut payload = b"ISb1".to_vec();
    payload.extend_from_slice(&checksum(&covered).to_le_bytes());
    payload.extend_from_slice(&covered);
    payload.extend_from_slice(&records);
    let blocks = payload.len().div_ceil(BLOCK / SECTOR * (SECTOR - 8));
    let start = 2 * BLOCK;
    if start + blocks * BLOCK > file.len() {
        return;
    }
    payload.resize(blocks * (BLOCK / SECTOR) * (SECTOR - 8), 0);
    for (number, part) in payload.chunks(SECTOR - 8).enumerate() {
        let at = start + number * SECTOR;
        let place = if number == 0 { 0x5be5_0b8e_c4ad_3f61 } else { 0 };
        let stamp = mix(mix(life ^ place).wrapping_add((at / SECTOR) as u64)).max(1);
        file[at..at + 8].copy_from_slice(&stamp.to_le_bytes());
        file[at + 8..at + SECTOR].copy_from_slice(part);
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let value = (value ^ (value >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    value ^ (value >> 32)
}
