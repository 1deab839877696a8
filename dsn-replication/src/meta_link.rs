//! A replica server's link to the meta servers: beacons and lease, config sync, reports of changed groups.
//!
//! One resident on worker 0. What to send when is decided by the failure detector's [`Worker`], which is pure; this
//! file sends it. A report of a changed group is repeated until the leader answers, or the lease is lost: then
//! nothing that this server does is valid any more, and whoever waits is told so.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dsn_core::exec::{Addr, Ctx, Resident, TimerId};
use dsn_core::stage::DEFAULT;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;
use dsn_rpc::host_port::HostPort;
use dsn_rpc::names::{self, NameError};
use dsn_rpc::thrift::List;
use dsn_rpc::{CallError, CallOptions, call};

use crate::codes::{
    RPC_CM_CONFIG_SYNC, RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX,
    RPC_CM_UPDATE_PARTITION_CONFIGURATION, RPC_FD_FAILURE_DETECTOR_PING,
};
use crate::failure_detector::Timing;
use crate::failure_detector::lease::Lease;
use crate::failure_detector::worker::{Ack, BeaconId, Link, Worker};
use crate::wire::config::{
    ConfigSyncRequest, ConfigSyncResponse, ConfigurationUpdateRequest, ConfigurationUpdateResponse,
    PartitionConfiguration, QueryCfgRequest, QueryCfgResponse, ReplicaInfo,
};
use crate::wire::replica::{BeaconAck, BeaconMsg};

dsn_core::task_codes! {
    /// Codes of the link's own events.
    pub CODES;
    /// Sending a beacon.
    pub LPC_META_LINK_BEACON: Compute, High, DEFAULT;
    /// Looking at the lease.
    pub LPC_META_LINK_CHECK: Compute, High, DEFAULT;
    /// Reporting everything that is held.
    pub LPC_META_LINK_SYNC: Compute, Common, DEFAULT;
    /// Repeating a report of a changed group.
    pub LPC_META_LINK_UPDATE: Compute, Common, DEFAULT;
}

/// Pause before a config sync that failed is tried again.
pub const SYNC_RETRY: Duration = Duration::from_millis(500);

/// Pause before a report that was not answered, or not yet accepted, is repeated.
pub const UPDATE_RETRY: Duration = Duration::from_millis(500);

/// How long one attempt of a report or a config sync may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Reports that may be under way; beyond, they are refused as busy.
pub const MAX_UPDATES: usize = 100_000;

/// What the link needs of the replica server.
pub trait ReplicaServer: Send + Sync + 'static {
    /// Every replica that is open, for config sync.
    fn stored(&self) -> Vec<ReplicaInfo>;
    /// Replicas that are on a disk which refuses them at present.
    fn refused(&self) -> Vec<Gpid> {
        Vec::new()
    }
    /// Whether there may be more in a data directory that cannot be used at present.
    fn is_incomplete(&self) -> bool {
        false
    }
    /// A group that this server belongs to, from the answer of a config sync.
    fn on_config(&self, ctx: &mut Ctx<'_>, config: ConfigurationUpdateRequest);
    /// A replica that this server need not keep.
    fn on_gc(&self, ctx: &mut Ctx<'_>, gpid: Gpid);
    /// The lease is lost: nothing may be served.
    fn on_disconnected(&self, ctx: &mut Ctx<'_>);

    /// Whether every replica has taken notice of the last [`on_disconnected`](Self::on_disconnected). No new lease
    /// begins before: it must not let a primary of the old one serve on.
    fn is_settled(&self) -> bool {
        true
    }
}

/// Where the meta servers are, and how often to speak to them.
#[derive(Clone, Debug)]
pub struct MetaLinkOptions {
    /// The meta servers, by name or address; at least one.
    pub metas: Vec<HostPort>,
    /// This server.
    pub me: SocketAddr,
    /// Beacons and lease.
    pub timing: Timing,
    /// Between two config syncs.
    pub sync_interval: Duration,
}

/// Receives the outcome of a report: the group as the meta server has it now, or why it was refused.
pub type UpdateDone =
    Box<dyn FnOnce(&mut Ctx<'_>, Result<ConfigurationUpdateResponse, ErrorCode>) + Send>;

/// Receives a group as the meta server has it, or why it did not say.
pub type GroupDone =
    Box<dyn FnOnce(&mut Ctx<'_>, Result<PartitionConfiguration, ErrorCode>) + Send>;

/// A report under way.
struct Update {
    request: ConfigurationUpdateRequest,
    done: UpdateDone,
}

/// The link; see the module's header.
pub struct MetaLink {
    me: Addr<Self>,
    options: MetaLinkOptions,
    server: Arc<dyn ReplicaServer>,
    fd: Worker<HostPort>,
    start_time: i64,
    beacon_timer: Option<TimerId>,
    sync_timer: Option<TimerId>,
    syncing: bool,
    sync_again: bool,
    updates: BTreeMap<u64, Update>,
    next_update: u64,
}

impl fmt::Debug for MetaLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaLink")
            .field("target", self.fd.target())
            .field("connected", &self.fd.is_connected())
            .field("updates", &self.updates.len())
            .finish_non_exhaustive()
    }
}

impl Resident for MetaLink {
    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        self.fail_updates(ctx);
    }

    fn on_lost(&mut self, ctx: &mut Ctx<'_>, text: &str) {
        ctx.node().fail(text);
    }
}

fn wire(addr: SocketAddr) -> RpcAddress {
    match addr {
        SocketAddr::V4(addr) => RpcAddress::from(addr),
        SocketAddr::V6(_) => RpcAddress::INVALID,
    }
}

/// Whether a report is to be repeated after this answer.
fn is_transient(err: ErrorCode) -> bool {
    matches!(
        err,
        ErrorCode::Busy
            | ErrorCode::IoPending
            | ErrorCode::ServiceNotActive
            | ErrorCode::StateFreezed
            | ErrorCode::ForwardToOthers
            | ErrorCode::UnderRecovery
    )
}

/// The group that was asked for, in an answer.
fn group_in(answer: &QueryCfgResponse, gpid: Gpid) -> Result<PartitionConfiguration, ErrorCode> {
    if !answer.err.is_ok() {
        return Err(answer.err);
    }
    let group = answer.partitions.iter().find(|group| group.pid == gpid);
    group.ok_or(ErrorCode::ObjectNotFound)
}

impl MetaLink {
    /// Starts the link on this worker, whose RPC loop must run. `lease` begins with the first acknowledged beacon.
    ///
    /// # Panics
    /// When `options.metas` is empty.
    pub fn start(
        ctx: &mut Ctx<'_>,
        options: MetaLinkOptions,
        lease: Lease,
        server: Arc<dyn ReplicaServer>,
    ) -> Addr<Self> {
        let check = options.timing.check;
        let link = ctx.spawn_here(|ctx, me| Self {
            me,
            fd: Worker::new(options.timing, options.metas.clone(), lease, ctx.clock()),
            options,
            server,
            start_time: i64::try_from(ctx.wall().unix_millis()).unwrap_or(i64::MAX),
            beacon_timer: None,
            sync_timer: None,
            syncing: false,
            sync_again: false,
            updates: BTreeMap::new(),
            next_update: 0,
        });
        ctx.every(link, &LPC_META_LINK_CHECK, check, Self::check);
        ctx.post(link, &LPC_META_LINK_BEACON, Self::pulse);
        link
    }

    /// Whether the leader knows this server and the lease was last seen to hold.
    pub fn is_connected(&self) -> bool {
        self.fd.is_connected()
    }

    /// The lease of this server.
    pub fn lease(&self) -> &Lease {
        self.fd.lease()
    }

    /// Goes on with the address of a meta server: now when it is known, else when its name has been looked up.
    fn with_address(
        &mut self,
        ctx: &mut Ctx<'_>,
        name: &HostPort,
        patience: Duration,
        f: impl FnOnce(&mut Self, &mut Ctx<'_>, Result<SocketAddr, NameError>) + Send + 'static,
    ) {
        match names::known(ctx, name) {
            Some(addr) => f(self, ctx, Ok(addr)),
            None => names::find(ctx, name, patience, self.me, f),
        }
    }

    /// Sends a beacon if it is time, and arms the timer for the next.
    fn pulse(&mut self, ctx: &mut Ctx<'_>) {
        if let Some((id, name)) = self.fd.beacon(ctx.clock()) {
            let patience = self.options.timing.beacon_timeout;
            self.with_address(ctx, &name.clone(), patience, move |link, ctx, found| match found {
                Ok(to) => link.send_beacon(ctx, id, name, to),
                Err(error) => link.no_ack(ctx, id, &error),
            });
        }
        self.arm_beacon(ctx);
    }

    fn send_beacon(&mut self, ctx: &mut Ctx<'_>, id: BeaconId, name: HostPort, to: SocketAddr) {
        let me = self.options.me;
        let beacon = BeaconMsg {
            time: i64::try_from(ctx.wall().unix_millis()).unwrap_or(i64::MAX),
            from_node: wire(me),
            to_node: wire(to),
            start_time: Some(self.start_time),
            hp_from_node: Some(HostPort::from(me)),
            hp_to_node: Some(name),
        };
        let options = CallOptions::within(self.options.timing.beacon_timeout);
        let code = &RPC_FD_FAILURE_DETECTOR_PING;
        call(ctx, to, code, &beacon, options, self.me, move |link: &mut Self, ctx, outcome| {
            match outcome {
                Ok(ack) => link.on_ack(ctx, id, &ack),
                Err(error) => link.no_ack(ctx, id, &error),
            }
        });
    }

    fn arm_beacon(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(timer) = self.beacon_timer.take() {
            ctx.cancel(timer);
        }
        let delay = ctx.clock().until(self.fd.due());
        self.beacon_timer = Some(ctx.after(self.me, &LPC_META_LINK_BEACON, delay, |link, ctx| {
            link.beacon_timer = None;
            link.pulse(ctx);
        }));
    }

    fn no_ack(&mut self, ctx: &mut Ctx<'_>, id: BeaconId, error: &dyn fmt::Display) {
        tracing::debug!(%error, "a beacon was not answered");
        let now = ctx.clock();
        self.fd.on_failure(now, id);
        self.arm_beacon(ctx);
    }

    fn on_ack(&mut self, ctx: &mut Ctx<'_>, id: BeaconId, ack: &BeaconAck) {
        let now = ctx.clock();
        if !self.fd.is_connected() && !self.server.is_settled() {
            self.fd.on_failure(now, id);
            return self.arm_beacon(ctx);
        }
        let leader = ack.primary_node.socket_addr();
        let leader = leader.map(|leader| HostPort::from(SocketAddr::from(leader)));
        let (is_master, allowed) = (ack.is_master, ack.allowed);
        let link = self.fd.on_ack(now, id, Ack { is_master, allowed, leader });
        self.arm_beacon(ctx);
        if link == Link::Connected {
            tracing::info!(meta = %self.fd.target(), "connected to the meta server");
            self.sync_now(ctx);
        }
    }

    fn check(&mut self, ctx: &mut Ctx<'_>) {
        if self.fd.check(ctx.clock()) == Link::Disconnected {
            tracing::warn!("the lease is lost: the meta server was not reached in time");
            if let Some(timer) = self.sync_timer.take() {
                ctx.cancel(timer);
            }
            self.fail_updates(ctx);
            self.server.clone().on_disconnected(ctx);
        }
    }

    fn fail_updates(&mut self, ctx: &mut Ctx<'_>) {
        for (_, update) in std::mem::take(&mut self.updates) {
            (update.done)(ctx, Err(ErrorCode::InactiveState));
        }
    }
}

/// Config sync.
impl MetaLink {
    /// Reports everything that is held now, and takes what the answer says.
    pub fn sync_now(&mut self, ctx: &mut Ctx<'_>) {
        if !self.fd.is_connected() {
            return;
        }
        if self.syncing {
            self.sync_again = true;
            return;
        }
        self.syncing = true;
        self.sync_again = false;
        let stored: List<ReplicaInfo> = self.server.stored().into_iter().collect();
        let refused: List<Gpid> = self.server.refused().into_iter().collect();
        let me = self.options.me;
        let request = ConfigSyncRequest {
            node: wire(me),
            stored_replicas: Some(stored),
            info: None,
            hp_node: Some(HostPort::from(me)),
            refused_replicas: (!refused.is_empty()).then_some(refused),
            is_incomplete: self.server.is_incomplete().then_some(true),
        };
        let name = self.fd.target().clone();
        self.with_address(ctx, &name, CALL_TIMEOUT, move |link, ctx, found| match found {
            Ok(to) => {
                let options = CallOptions::within(CALL_TIMEOUT);
                let (code, me) = (&RPC_CM_CONFIG_SYNC, link.me);
                call(ctx, to, code, &request, options, me, |link: &mut Self, ctx, outcome| {
                    link.on_synced(ctx, outcome.map_err(|error: CallError| error.to_string()));
                });
            }
            Err(error) => link.on_synced(ctx, Err(error.to_string())),
        });
    }

    fn on_synced(&mut self, ctx: &mut Ctx<'_>, outcome: Result<ConfigSyncResponse, String>) {
        self.syncing = false;
        if !self.fd.is_connected() {
            return;
        }
        let pause = match outcome {
            Ok(answer) if answer.err.is_ok() => {
                self.take(ctx, &answer);
                if self.sync_again { Duration::ZERO } else { self.options.sync_interval }
            }
            Ok(answer) => {
                tracing::info!(error = %answer.err, "config sync was refused");
                SYNC_RETRY
            }
            Err(error) => {
                tracing::info!(%error, "config sync failed");
                SYNC_RETRY
            }
        };
        self.arm_sync(ctx, pause);
    }

    fn take(&mut self, ctx: &mut Ctx<'_>, answer: &ConfigSyncResponse) {
        let server = self.server.clone();
        for config in &answer.partitions {
            server.on_config(ctx, config);
        }
        for garbage in answer.gc_replicas.iter().flatten() {
            server.on_gc(ctx, garbage.pid);
        }
    }

    fn arm_sync(&mut self, ctx: &mut Ctx<'_>, pause: Duration) {
        if let Some(timer) = self.sync_timer.take() {
            ctx.cancel(timer);
        }
        self.sync_timer = Some(ctx.after(self.me, &LPC_META_LINK_SYNC, pause, |link, ctx| {
            link.sync_timer = None;
            link.sync_now(ctx);
        }));
    }
}

/// Reports of changed groups.
impl MetaLink {
    /// Asks the leader, once, for the durable record of a group. `done` gets `ERR_INACTIVE_STATE` without a lease,
    /// `ERR_TIMEOUT` when there was no answer, `ERR_OBJECT_NOT_FOUND` for a table that has no such partition or another
    /// id, and whatever else the leader answers.
    pub fn find_group(&mut self, ctx: &mut Ctx<'_>, table: &str, gpid: Gpid, done: GroupDone) {
        if !self.fd.is_connected() {
            return done(ctx, Err(ErrorCode::InactiveState));
        }
        let indices = vec![gpid.partition_index];
        let request = QueryCfgRequest { app_name: table.to_owned(), partition_indices: indices };
        let name = self.fd.target().clone();
        self.with_address(ctx, &name, CALL_TIMEOUT, move |link, ctx, found| {
            let Ok(to) = found else { return done(ctx, Err(ErrorCode::Timeout)) };
            let options = CallOptions::within(CALL_TIMEOUT);
            let (code, me) = (&RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX, link.me);
            call(ctx, to, code, &request, options, me, move |_, ctx, outcome| {
                done(
                    ctx,
                    outcome.map_or(Err(ErrorCode::Timeout), |answer| group_in(&answer, gpid)),
                );
            });
        });
    }

    /// Asks the leader to make a change of a group durable, again and again until it answers. `done` gets the group
    /// when the change was made, and the error when it was refused: `ERR_INVALID_VERSION` when the group is another
    /// already (a config sync is under way then), `ERR_INACTIVE_STATE` when the lease was lost.
    pub fn update(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: ConfigurationUpdateRequest,
        done: UpdateDone,
    ) {
        if !self.fd.is_connected() {
            return done(ctx, Err(ErrorCode::InactiveState));
        }
        if self.updates.len() >= MAX_UPDATES {
            return done(ctx, Err(ErrorCode::Busy));
        }
        self.next_update += 1;
        let id = self.next_update;
        self.updates.insert(id, Update { request, done });
        self.send_update(ctx, id);
    }

    fn send_update(&mut self, ctx: &mut Ctx<'_>, id: u64) {
        if !self.updates.contains_key(&id) {
            return;
        }
        let name = self.fd.target().clone();
        self.with_address(ctx, &name, CALL_TIMEOUT, move |link, ctx, found| match found {
            Ok(to) => link.send_update_to(ctx, id, to),
            Err(error) => {
                tracing::info!(%error, "a changed group is not reported yet");
                link.update_later(ctx, id);
            }
        });
    }

    fn send_update_to(&mut self, ctx: &mut Ctx<'_>, id: u64, to: SocketAddr) {
        let Some(update) = self.updates.get(&id) else { return };
        let options = CallOptions::within(CALL_TIMEOUT);
        let code = &RPC_CM_UPDATE_PARTITION_CONFIGURATION;
        call(
            ctx,
            to,
            code,
            &update.request,
            options,
            self.me,
            move |link: &mut Self, ctx, outcome| {
                link.on_updated(ctx, id, outcome);
            },
        );
    }

    fn on_updated(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: u64,
        outcome: Result<ConfigurationUpdateResponse, CallError>,
    ) {
        let answer = match outcome {
            Ok(answer) if !is_transient(answer.err) => answer,
            Ok(answer) => {
                tracing::info!(error = %answer.err, "a change of a group is not accepted yet");
                return self.update_later(ctx, id);
            }
            Err(error) => {
                tracing::info!(%error, "a report of a changed group was not answered");
                return self.update_later(ctx, id);
            }
        };
        let Some(update) = self.updates.remove(&id) else { return };
        let outcome = match answer.err {
            ErrorCode::Ok => Ok(answer),
            err => Err(err),
        };
        let outdated = outcome.as_ref().err() == Some(&ErrorCode::InvalidVersion);
        (update.done)(ctx, outcome);
        if outdated {
            self.sync_now(ctx);
        }
    }

    fn update_later(&mut self, ctx: &mut Ctx<'_>, id: u64) {
        if self.updates.contains_key(&id) {
            ctx.after(self.me, &LPC_META_LINK_UPDATE, UPDATE_RETRY, move |link, ctx| {
                link.send_update(ctx, id);
            });
        }
    }
}
