//! The bytes of a snapshot file: a header, and the body in chunks that each carry a checksum.

use crate::codec::{COUNTER_MAX, DecodeError, Reader, Writer, checksum_parts, from_bytes, to_bytes};
use crate::raft::{ClusterId, SnapshotMeta, StoreId};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::SnapshotError;
use crate::storage::format::FORMAT_VERSION;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Bytes of the body in one chunk; the last one is shorter.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
const CHECKSUM_BYTES: usize = 4;
const MAGIC: &[u8; 8] = b"ISsnapsh";
/// Magic, version u32, body length u32, checksum u32.
const FIXED_BYTES: usize = 20;
const HEADER_BYTES_MAX: usize = 1 << 20;
const HEADER_BLOCK_BYTES: usize = 4096;
/// Bytes that are written between two syncs. One sync of the whole file would hold up the syncs of
/// the log for as long as it takes.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// What a snapshot file says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) store: StoreId,
    pub(crate) meta: SnapshotMeta,
}

impl SnapshotHeader {
    /// The header's bytes, padded to whole blocks. As long for any `bytes` and `hash`.
    fn encode(&self) -> Vec<u8> {
        let body = to_bytes(self);
        let mut bytes = Vec::with_capacity(FIXED_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.put_u32(FORMAT_VERSION);
        bytes.put_u32(u32::try_from(body.len()).expect("a header is far below 4 GiB"));
        let sum = checksum_parts(&[&bytes, &body]);
        bytes.put_u32(sum);
        bytes.extend_from_slice(&body);
        bytes.resize(bytes.len().next_multiple_of(HEADER_BLOCK_BYTES), 0);
        bytes
    }
}

/// Writes a snapshot file, piece by piece, under a given name.
pub(crate) struct SnapshotWriter<D: Disk> {
    file: D::File,
    path: PathBuf,
    header: SnapshotHeader,
    header_bytes: u64,
    /// The chunk that fills.
    chunk: Vec<u8>,
    chunks: u64,
    bytes: u64,
    /// Bytes of body that a sync has covered.
    synced: u64,
    hasher: Box<Xxh3>,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Creates the file. The header's `bytes` and `hash` need not be known yet.
    pub(crate) fn create(disk: &D, path: PathBuf, header: SnapshotHeader) -> Result<Self, SnapshotError> {
        let file = disk.create(&path).map_err(SnapshotError::io("creating", &path))?;
        let header_bytes = header.encode().len() as u64;
        let chunk = Vec::with_capacity(CHUNK_BYTES + CHECKSUM_BYTES);
        Ok(Self {
            file,
            path,
            header,
            header_bytes,
            chunk,
            chunks: 0,
            bytes: 0,
            synced: 0,
            hasher: Box::new(Xxh3::new()),
        })
    }

    /// Bytes of body so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The description so far: `bytes` and `hash` as they were given.
    pub(crate) fn meta(&self) -> &SnapshotMeta {
        &self.header.meta
    }

    /// Where it is being written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Hash of the body so far.
    pub(crate) fn hash(&self) -> u128 {
        self.hasher.digest128()
    }

    /// Appends to the body.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
        let mut rest = piece;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            if self.chunk.len() == CHUNK_BYTES {
                self.flush()?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Syncs what was written if that is at least [`SYNC_EVERY_BYTES`]. Returns whether it did.
    pub(crate) fn sync_some(&mut self) -> Result<bool, SnapshotError> {
        let due = self.bytes - self.synced >= SYNC_EVERY_BYTES;
        if due {
            self.file.sync_data().map_err(SnapshotError::io("syncing", &self.path))?;
            self.synced = self.bytes;
        }
        Ok(due)
    }

    /// Writes the rest and the header, with the body's true length and hash, and syncs the file.
    pub(crate) fn finish(mut self) -> Result<(SnapshotMeta, PathBuf), SnapshotError> {
        if !self.chunk.is_empty() {
            self.flush()?;
        }
        self.header.meta.bytes = self.bytes;
        self.header.meta.hash = self.hash();
        let header = self.header.encode();
        assert_eq!(header.len() as u64, self.header_bytes, "integers have a fixed width");
        self.file.write_at(&header, 0).map_err(SnapshotError::io("writing", &self.path))?;
        self.file.sync_data().map_err(SnapshotError::io("syncing", &self.path))?;
        Ok((self.header.meta, self.path))
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        let sum = chunk_checksum(self.chunks, &self.chunk);
        self.chunk.put_u32(sum);
        let offset = chunk_offset(self.header_bytes, self.chunks);
        self.file.write_at(&self.chunk, offset).map_err(SnapshotError::io("writing", &self.path))?;
        self.chunk.clear();
        self.chunks += 1;
        Ok(())
    }
}

/// Reads a snapshot file.
pub(crate) struct SnapshotReader<D: Disk> {
    file: D::File,
    path: PathBuf,
    pub(crate) header: SnapshotHeader,
    header_bytes: u64,
}

impl<D: Disk> SnapshotReader<D> {
    /// Opens a file and reads its header.
    pub(crate) fn open(disk: &D, path: &Path) -> Result<Self, SnapshotError> {
        let file = disk.open_to_read(path).map_err(SnapshotError::io("opening", path))?;
        let mut fixed = vec![0; FIXED_BYTES];
        let count = file.read_at(&mut fixed, 0).map_err(SnapshotError::io("reading", path))?;
        fixed.truncate(count);
        let length = decode_fixed(&fixed).map_err(|error| damaged(path, &error))?;
        let mut body = vec![0; length];
        let count =
            file.read_at(&mut body, FIXED_BYTES as u64).map_err(SnapshotError::io("reading", path))?;
        body.truncate(count);
        let header = decode_header(&fixed, &body).map_err(|error| damaged(path, &error))?;
        let header_bytes = (FIXED_BYTES + length).next_multiple_of(HEADER_BLOCK_BYTES) as u64;
        Ok(Self { file, path: path.to_path_buf(), header, header_bytes })
    }

    /// As [`Self::open`]; what is read comes from the disk.
    pub(crate) fn open_uncached(disk: &D, path: &Path) -> Result<Self, SnapshotError> {
        let file = disk.open_to_read(path).map_err(SnapshotError::io("opening", path))?;
        file.forget_cached();
        drop(file);
        Self::open(disk, path)
    }

    /// Bytes `offset..offset + bytes_max` of the body, cut at its end; every chunk read is
    /// verified.
    pub(crate) fn read(&self, offset: u64, bytes_max: u64) -> Result<Vec<u8>, SnapshotError> {
        let end = offset.saturating_add(bytes_max).min(self.header.meta.bytes);
        let mut out = Vec::new();
        let mut at = offset;
        while at < end {
            let number = at / CHUNK_BYTES as u64;
            let chunk = self.chunk(number)?;
            let start = number * CHUNK_BYTES as u64;
            let within = |position: u64| usize::try_from(position - start).expect("within a chunk");
            let to = end.min(start + chunk.len() as u64);
            out.extend_from_slice(&chunk[within(at)..within(to)]);
            at = to;
        }
        Ok(out)
    }

    fn chunk(&self, number: u64) -> Result<Vec<u8>, SnapshotError> {
        let start = number * CHUNK_BYTES as u64;
        let length = self.header.meta.bytes.saturating_sub(start).min(CHUNK_BYTES as u64);
        let length = usize::try_from(length).expect("at most CHUNK_BYTES");
        let mut chunk = vec![0; length + CHECKSUM_BYTES];
        let offset = chunk_offset(self.header_bytes, number);
        let count =
            self.file.read_at(&mut chunk, offset).map_err(SnapshotError::io("reading", &self.path))?;
        if count < chunk.len() {
            let error = DecodeError::Short { what: "snapshot chunk", needs: chunk.len(), has: count };
            return Err(damaged(&self.path, &error));
        }
        let expected = u32::from_le_bytes(chunk[length..].try_into().expect("four bytes"));
        chunk.truncate(length);
        let found = chunk_checksum(number, &chunk);
        if found != expected {
            return Err(damaged(
                &self.path,
                &DecodeError::Checksum { what: "snapshot chunk", found, expected },
            ));
        }
        Ok(chunk)
    }
}

fn decode_fixed(fixed: &[u8]) -> Result<usize, DecodeError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(fixed));
    if reader.take("snapshot magic", MAGIC.len())?[..] != MAGIC[..] {
        return Err(DecodeError::Invalid { what: "snapshot magic", value: 0 });
    }
    let version = reader.u32("snapshot version")?;
    if version != FORMAT_VERSION {
        return Err(DecodeError::Invalid { what: "snapshot format version", value: u64::from(version) });
    }
    let length = reader.u32("snapshot header length")? as usize;
    if length > HEADER_BYTES_MAX {
        let (length, limit) = (length as u64, HEADER_BYTES_MAX as u64);
        return Err(DecodeError::TooLong { what: "snapshot header", length, limit });
    }
    let _checksum = reader.u32("snapshot header checksum")?;
    Ok(length)
}

fn decode_header(fixed: &[u8], body: &[u8]) -> Result<SnapshotHeader, DecodeError> {
    let (covered, sum) = fixed.split_at(FIXED_BYTES - CHECKSUM_BYTES);
    let expected = u32::from_le_bytes(sum.try_into().expect("four bytes are left"));
    let found = checksum_parts(&[covered, body]);
    if found != expected {
        return Err(DecodeError::Checksum { what: "snapshot header", found, expected });
    }
    let header: SnapshotHeader = from_bytes("snapshot header", body)?;
    if header.meta.bytes > COUNTER_MAX {
        return Err(DecodeError::Invalid { what: "snapshot length", value: header.meta.bytes });
    }
    Ok(header)
}

/// A chunk's number is part of its checksum, so that chunks cannot change places.
fn chunk_checksum(number: u64, chunk: &[u8]) -> u32 {
    checksum_parts(&[&number.to_le_bytes(), chunk])
}

fn chunk_offset(header_bytes: u64, number: u64) -> u64 {
    header_bytes + number * (CHUNK_BYTES + CHECKSUM_BYTES) as u64
}

fn damaged(path: &Path, error: &DecodeError) -> SnapshotError {
    SnapshotError::Damaged { file: path.to_path_buf(), why: error.to_string() }
}
