//! What the loops of one node share: limits, handlers, counts.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use dsn_core::exec::{Addr, WorkerId};
use dsn_core::hash::DetHashMap;
use dsn_core::time::Wall;

use crate::address::RpcAddress;
use crate::options::Limits;
use crate::rpc_loop::RpcLoop;
use crate::service::ServiceTable;
use crate::stats::Counters;

/// Shared by the loops of one node.
pub(crate) struct RpcShared {
    pub(crate) limits: Limits,
    pub(crate) table: ServiceTable,
    pub(crate) counters: Vec<Counters>,
    /// The loop of each worker.
    pub(crate) loops: OnceLock<Vec<Addr<RpcLoop>>>,
    /// Workers that own accepted connections.
    pub(crate) network: Vec<WorkerId>,
    /// Accepted connections of each worker, and on their way to it.
    pub(crate) load: Vec<AtomicUsize>,
    /// The address that this node is known by: the first one it listened on.
    pub(crate) address: OnceLock<RpcAddress>,
    pub(crate) started: Wall,
    per_ip: Mutex<DetHashMap<IpAddr, u32>>,
}

impl std::fmt::Debug for RpcShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcShared").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RpcShared {
    pub(crate) fn new(
        limits: Limits,
        table: ServiceTable,
        workers: usize,
        network: Vec<WorkerId>,
        started: Wall,
    ) -> Self {
        Self {
            limits,
            table,
            counters: (0..workers).map(|_| Counters::default()).collect(),
            loops: OnceLock::new(),
            network,
            load: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            address: OnceLock::new(),
            started,
            per_ip: Mutex::default(),
        }
    }

    /// The address to put into frames.
    pub(crate) fn responder(&self) -> RpcAddress {
        self.address.get().copied().unwrap_or(RpcAddress::INVALID)
    }

    /// Accepted connections of all workers.
    pub(crate) fn accepted_now(&self) -> u64 {
        self.load.iter().map(|load| load.load(Ordering::Relaxed) as u64).sum()
    }

    /// Counts a new connection in and says which worker takes it; `None` when there are too many.
    pub(crate) fn admit(&self, ip: IpAddr) -> Option<WorkerId> {
        let load = |worker: &WorkerId| self.load[worker.index()].load(Ordering::Relaxed);
        let total: usize = self.network.iter().map(load).sum();
        if total >= self.limits.connections {
            return None;
        }
        if self.limits.per_ip > 0 {
            let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let count = per_ip.entry(ip).or_insert(0);
            if *count >= self.limits.per_ip {
                return None;
            }
            *count += 1;
        }
        let worker = self.network.iter().copied().min_by_key(load)?;
        self.load[worker.index()].fetch_add(1, Ordering::Relaxed);
        Some(worker)
    }

    /// Counts an accepted connection out.
    pub(crate) fn leave(&self, ip: IpAddr, worker: WorkerId) {
        self.load[worker.index()].fetch_sub(1, Ordering::Relaxed);
        if self.limits.per_ip > 0 {
            let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = per_ip.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    per_ip.remove(&ip);
                }
            }
        }
    }
}
