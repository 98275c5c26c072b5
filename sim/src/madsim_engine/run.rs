//! The task that carries a run out, and what it has in hand.

use crate::hardware::disk::SimDisk;
use crate::madsim_engine::world::Shared;
use infinitystore::raft::{NodeId as MemberId, StoreId};
use madsim::runtime::Handle;
use madsim::task::NodeId;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The task that carries a run out.
pub(super) struct Run {
    pub shared: Shared,
    pub handle: Handle,
    /// madsim's node of each machine.
    pub nodes: Vec<NodeId>,
    /// Machines that are to become voters.
    pub operator: RefCell<BTreeMap<usize, Newcomer>>,
    /// A copy of a data directory that is to be put back, or was.
    pub revert: RefCell<Option<Revert>>,
}

/// A machine that is to become a voter.
#[derive(Clone, Debug)]
pub(super) struct Newcomer {
    /// The member that it was.
    pub was: Option<MemberId>,
    /// Whether it lost its disk: then no other may.
    pub damaged: bool,
}

impl Newcomer {
    /// One that was no member before.
    pub(super) const fn fresh() -> Self {
        Self { was: None, damaged: false }
    }
}

/// A copy of a data directory.
#[derive(Debug)]
pub(super) struct Revert {
    pub slot: usize,
    pub member: MemberId,
    pub store: StoreId,
    /// `None`: it was put back.
    pub copy: Option<SimDisk>,
    /// When it may be put back, or has to be noticed.
    pub at: u64,
    /// Until when the member is left as it is, once it was noticed.
    pub noticed_until: Option<u64>,
}
