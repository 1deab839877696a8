//! A replica server without replicas: it holds ballots, does what it is proposed, and serves while its lease holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::time::Mono;
use dsn_replication::codes::RPC_CONFIG_PROPOSAL;
use dsn_replication::failure_detector::Timing;
use dsn_replication::failure_detector::lease::Lease;
use dsn_replication::meta_link::{MetaLink, MetaLinkOptions, ReplicaServer};
use dsn_replication::options::ReplicationOptions;
use dsn_replication::wire::config::{
    ConfigType, ConfigurationUpdateRequest, PartitionStatus, ReplicaInfo,
};
use dsn_rpc::address::RpcAddress;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::{Replier, Request, Rpc, RpcOptions, ServiceTable};

dsn_core::task_codes! {
    pub CODES;
    LPC_FAKE: Compute, Common, "THREAD_POOL_DEFAULT";
}

/// One replica of the fake server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub ballot: i64,
    pub primary: bool,
    /// When it last became primary, in simulated time of its own node.
    pub since: Mono,
}

/// What the fake server holds; survives its process as a disk does.
#[derive(Debug, Default)]
pub struct Replicas {
    pub held: BTreeMap<Gpid, Held>,
    pub disconnects: u32,
    pub collected: Vec<Gpid>,
}

pub type Shared = Arc<Mutex<Replicas>>;

struct Server {
    replicas: Shared,
    host: Mutex<Option<Addr<Host>>>,
}

impl ReplicaServer for Server {
    fn stored(&self) -> Vec<ReplicaInfo> {
        let replicas = self.replicas.lock().unwrap();
        let info = |(pid, held): (&Gpid, &Held)| ReplicaInfo {
            pid: *pid,
            ballot: held.ballot,
            status: match held.primary {
                true => PartitionStatus::Primary,
                false => PartitionStatus::Inactive,
            },
            ..ReplicaInfo::default()
        };
        replicas.held.iter().map(info).collect()
    }

    fn on_config(&self, _: &mut Ctx<'_>, config: ConfigurationUpdateRequest) {
        assert!(config.config.ballot > 0, "members only");
    }

    fn on_gc(&self, _: &mut Ctx<'_>, gpid: Gpid) {
        self.replicas.lock().unwrap().collected.push(gpid);
    }

    fn on_disconnected(&self, _: &mut Ctx<'_>) {
        let mut replicas = self.replicas.lock().unwrap();
        replicas.disconnects += 1;
        replicas.held.values_mut().for_each(|held| held.primary = false);
        assert!(self.host.lock().unwrap().is_some());
    }
}

/// Receives proposals.
pub struct Host {
    me: SocketAddr,
    replicas: Shared,
    link: Addr<MetaLink>,
}

impl Resident for Host {}

impl Host {
    fn on_proposal(&mut self, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
        replier.forget(ctx);
        let mut request: ConfigurationUpdateRequest = request.decode().unwrap();
        let gpid = request.config.pid;
        let known = self.replicas.lock().unwrap().held.get(&gpid).map_or(0, |held| held.ballot);
        match request.config_type {
            ConfigType::AssignPrimary | ConfigType::UpgradeToPrimary => {}
            ConfigType::DropPartition => {
                self.replicas.lock().unwrap().held.remove(&gpid);
                return;
            }
            other => panic!("a group of one has no use for {other}"),
        }
        if request.config.ballot < known {
            return;
        }
        let SocketAddr::V4(me) = self.me else { panic!("IPv4") };
        request.config.ballot += 1;
        request.config.primary = RpcAddress::from(me);
        let replicas = self.replicas.clone();
        ctx.post(self.link, &LPC_FAKE, move |link, ctx| {
            let done = move |ctx: &mut Ctx<'_>, outcome: Result<_, _>| {
                let Ok(answer) = outcome else { return };
                let answer: dsn_replication::wire::config::ConfigurationUpdateResponse = answer;
                let ballot = answer.config.ballot;
                let mut replicas = replicas.lock().unwrap();
                let before = replicas.held.get(&gpid).map_or(0, |held| held.ballot);
                assert!(ballot >= before, "{gpid}: ballots never go back");
                let held = Held { ballot, primary: true, since: ctx.now() };
                replicas.held.insert(gpid, held);
            };
            link.update(ctx, request, Box::new(done));
        });
    }
}

/// The fake replica server as an app.
pub struct FakeServer {
    pub listen: SocketAddr,
    /// By its name, which every node of the simulation has.
    pub meta: HostPort,
    pub replicas: Shared,
}

impl ServiceApp for FakeServer {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        self.replicas.lock().unwrap().held.values_mut().for_each(|held| held.primary = false);
        let server = Arc::new(Server { replicas: self.replicas.clone(), host: Mutex::default() });
        let timing = Timing::new(&ReplicationOptions::default()).unwrap();
        let options = MetaLinkOptions {
            metas: vec![self.meta.clone()],
            me: self.listen,
            timing,
            sync_interval: Duration::from_secs(30),
        };
        // The link calls, so loops must run first; the table needs the host, which needs the link.
        let (me, replicas) = (self.listen, self.replicas.clone());
        let mut table = ServiceTable::new();
        let host = ctx.spawn_here(|ctx, _| Host {
            me,
            replicas,
            link: MetaLink::start(ctx, options, Lease::new(), server.clone()),
        });
        *server.host.lock().unwrap() = Some(host);
        table.on_resident(&RPC_CONFIG_PROPOSAL, host, Host::on_proposal);
        Rpc::start(ctx, RpcOptions::default(), table).listen(ctx, self.listen)?;
        Ok(())
    }
}
