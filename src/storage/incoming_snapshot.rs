//! A snapshot on its way in from the leader.

use crate::codec::FeatureLevel;
use crate::kv::{Store, StoreReader};
use crate::raft::{LogId, SnapshotChunk, SnapshotMeta};
use crate::storage::disk::Disk;
use crate::storage::error::SnapshotError;
use crate::storage::snapshot_file::SnapshotWriter;
use crate::storage::snapshots::SnapshotFiles;

/// Puts chunks into a temporary file and, at the same time, into a store.
///
/// Nothing that goes wrong here is fatal: a file under a temporary name is no part of the state.
/// The first chunk that fails refuses the snapshot, and the leader may send it again.
pub(crate) struct IncomingSnapshot<D: Disk> {
    files: SnapshotFiles<D>,
    /// The highest level that this node speaks.
    highest: FeatureLevel,
    receiving: Option<Receiving<D>>,
}

struct Receiving<D: Disk> {
    writer: SnapshotWriter<D>,
    state: StoreReader,
}

impl<D: Disk> IncomingSnapshot<D> {
    pub(crate) fn new(files: SnapshotFiles<D>, highest: FeatureLevel) -> Self {
        Self { files, highest, receiving: None }
    }

    /// Takes the next chunk. The last one brings the result: the snapshot in place and synced, with
    /// its content.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing of the snapshot is kept then.
    pub(crate) fn take(
        &mut self,
        chunk: &SnapshotChunk,
    ) -> Result<Option<(SnapshotMeta, Store)>, SnapshotError> {
        let result =
            self.write(chunk).and_then(|()| if chunk.done { self.finish(chunk).map(Some) } else { Ok(None) });
        if result.is_err() {
            self.abandon();
        }
        result
    }

    /// Drops what has arrived so far.
    pub(crate) fn abandon(&mut self) {
        if let Some(receiving) = self.receiving.take() {
            self.files.discard(receiving.writer.path());
        }
    }

    fn write(&mut self, chunk: &SnapshotChunk) -> Result<(), SnapshotError> {
        let last = chunk.snapshot.last;
        if chunk.offset == 0 {
            self.abandon();
            let writer = self.files.writer("incoming", (*chunk.snapshot).clone())?;
            self.receiving = Some(Receiving { writer, state: StoreReader::new() });
        }
        let Some(receiving) = &mut self.receiving else {
            return Err(content(last, "an earlier chunk is missing or could not be written".into()));
        };
        if *receiving.writer.meta() != *chunk.snapshot || receiving.writer.bytes() != chunk.offset {
            return Err(content(last, format!("the chunk at {} does not follow", chunk.offset)));
        }
        receiving.writer.push(&chunk.data)?;
        receiving.writer.sync_some()?;
        receiving.state.push(&chunk.data).map_err(|error| content(last, error.to_string()))
    }

    fn finish(&mut self, chunk: &SnapshotChunk) -> Result<(SnapshotMeta, Store), SnapshotError> {
        let SnapshotMeta { last, bytes, hash, .. } = *chunk.snapshot;
        let receiving = self.receiving.as_ref().ok_or_else(|| content(last, "it never began".into()))?;
        if receiving.writer.bytes() != bytes {
            return Err(content(
                last,
                format!("{} bytes came, {bytes} were announced", receiving.writer.bytes()),
            ));
        }
        if receiving.writer.hash() != hash {
            return Err(content(last, "its content does not match its hash".into()));
        }
        let Receiving { writer, state } = self.receiving.take().expect("it was just there");
        let temporary = writer.path().to_path_buf();
        let installed = match state.finish() {
            Ok(store) if store.level() > self.highest => {
                let (level, highest) = (store.level(), self.highest);
                Err(content(last, format!("it is of feature level {level}, and this node speaks {highest}")))
            }
            Ok(store) => self.files.put_in_place(writer).map(|meta| (meta, store)),
            Err(error) => Err(content(last, error.to_string())),
        };
        if installed.is_err() {
            self.files.discard(&temporary);
        }
        installed
    }
}

fn content(last: LogId, why: String) -> SnapshotError {
    SnapshotError::Content { last, why }
}
