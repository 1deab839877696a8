//! Who belongs to a group as the meta server has it, which may know more than its members.

use super::shape::Servers;
use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx};
use dsn_core::sim::{NodeId, Sim};
use dsn_replication::meta::MetaApp;
use dsn_replication::meta::server::MetaServer;
use dsn_replication::meta::state::app::{Partition, members};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// Where the meta server of a node is, since it was last started.
#[derive(Clone, Debug, Default)]
pub struct MetaWatch {
    server: Arc<Mutex<Option<Addr<MetaServer>>>>,
}

/// A meta server that lets itself be watched.
#[derive(Debug)]
pub struct WatchedMeta {
    /// The meta server.
    pub app: MetaApp,
    /// Who watches it.
    pub watch: MetaWatch,
}

impl ServiceApp for WatchedMeta {
    fn start(&mut self, ctx: &mut Ctx<'_>, me: Addr<AppHost>) -> Result<(), AppError> {
        self.app.start(ctx, me)?;
        *self.watch.server.lock().expect("one thread") = self.app.server();
        Ok(())
    }

    fn stop(&mut self, ctx: &mut Ctx<'_>) {
        self.app.stop(ctx);
    }
}

/// The servers that are members of a partition of the first table and remain so when what is being written about it is
/// durable. `None` when no meta server knows at present.
pub fn members_of(sim: &Sim, servers: &Servers, index: i32) -> Option<Vec<NodeId>> {
    let known = |partition: &Partition| {
        let next = partition.pending.as_ref().map_or(&partition.config, |pending| &pending.config);
        let remain = |member: &_| members(next).any(|other| other == *member);
        let all = members(&partition.config).filter(remain);
        all.filter_map(|member| server_at(servers, member.socket_addr()?.into())).collect()
    };
    servers.metas.iter().zip(&servers.meta_watches).find_map(|(node, watch)| {
        let at = (*watch.server.lock().expect("one thread"))?;
        sim.peek(*node, at, |server| {
            let table = server.cluster()?.tables().find(|table| table.info.app_id == 1)?;
            Some(known(table.partitions.get(usize::try_from(index).ok()?)?))
        })?
    })
}

fn server_at(servers: &Servers, address: SocketAddr) -> Option<NodeId> {
    let at = servers.addresses.iter().position(|other| *other == address)?;
    servers.replicas.get(at).copied()
}
