//! Starts nodes, and asks them things.

use crate::kv::{Op, Outcome};
use crate::node::{Node, NodeExit, NodeHandle, NodeOptions, StartError};
use crate::raft::RoleName;
use crate::replica::{ClientReply, ClientRequest, Level};
use crate::runtime::{Metrics, TokioEnv};
use crate::storage::MemoryDisk;
use bytes::Bytes;

/// A node on a disk in memory.
pub(super) struct TestNode {
    pub(super) node: Node,
    pub(super) disk: MemoryDisk,
    pub(super) name: String,
    pub(super) metrics: Metrics,
}

impl TestNode {
    pub(super) async fn start(name: &str) -> Self {
        Self::start_with(name, MemoryDisk::new(), |_| {}).await
    }

    pub(super) async fn start_with(
        name: &str,
        disk: MemoryDisk,
        change: impl FnOnce(&mut NodeOptions),
    ) -> Self {
        Self::try_start_with(name, disk, change).await.unwrap()
    }

    pub(super) async fn try_start_with(
        name: &str,
        disk: MemoryDisk,
        change: impl FnOnce(&mut NodeOptions),
    ) -> Result<Self, StartError> {
        // Shown for a test that fails, and with RUST_LOG=debug in more detail.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut options = NodeOptions::new(name);
        options.data_dir = "/data".into();
        options.raft_addr = "127.0.0.1:0".to_owned();
        options.segment_bytes = 1 << 20;
        change(&mut options);
        let metrics = Metrics::new();
        let node = Node::start(TokioEnv::new(disk.clone()), options, metrics.clone()).await?;
        Ok(Self { node, disk, name: name.to_owned(), metrics })
    }

    pub(super) fn handle(&self) -> NodeHandle {
        self.node.handle()
    }

    pub(super) fn addr(&self) -> String {
        self.node.raft_addr().to_owned()
    }

    pub(super) async fn join(&self, other: &Self) {
        let joined = self.handle().join(other.name.clone(), other.addr()).await;
        assert!(joined.is_ok(), "{joined:?}");
    }

    pub(super) async fn set(&self, key: &str, value: &str) -> ClientReply {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        self.handle().request(ClientRequest::write(Op::set(key, value))).await
    }

    pub(super) async fn get(&self, key: &str) -> Option<String> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let reply = self.handle().request(ClientRequest::read(key, Level::Linearizable)).await;
        let Some(found) = reply.key() else { panic!("{reply:?}") };
        found.as_ref().map(|found| String::from_utf8_lossy(&found.value).into_owned())
    }

    pub(super) async fn leads(&self) -> bool {
        self.handle().status().await.replica.role == RoleName::Leader
    }

    pub(super) async fn stop(self) -> NodeExit {
        self.node.stop();
        self.node.stopped().await
    }
}

pub(super) fn is_set(reply: &ClientReply) -> bool {
    matches!(reply, ClientReply::Written(Outcome::Put { .. }))
}
