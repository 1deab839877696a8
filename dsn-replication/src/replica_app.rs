//! The role `replica`: the stub over state machines of one kind, on one port.

use crate::failure_detector::Timing;
use crate::host::ReplicaHost;
use crate::log::{Durability, LogOptions};
use crate::meta_link::MetaLinkOptions;
use crate::options::{LogDurability, MetaServerOptions, NfsOptions, ReplicationOptions};
use crate::placement::Watch;
use crate::replica::{CoreOptions, GroupOptions};
use crate::state_machine::StateMachineFactory;
use crate::stub::copies::CopyOptions;
use crate::stub::garbage::GarbageOptions;
use crate::stub::space::SpaceOptions;
use crate::stub::{LPC_STUB_EVENT, ReplicaStub, StubOptions};
use dsn_core::app::{AppError, AppFactory, AppHost, ServiceApp};
use dsn_core::boot::AppInstance;
use dsn_core::exec::{Addr, Ctx};
use dsn_rpc::host_port::HostPort;
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Makes the factory of a server's state machines when the server starts; it is told where the server is
/// reached.
pub type MakeFactory = Box<
    dyn FnOnce(&mut Ctx<'_>, SocketAddr) -> Result<Arc<dyn StateMachineFactory>, AppError> + Send,
>;

/// Room in a frame beside the write it carries: headers, and what a mutation adds.
const FRAME_OVERHEAD: usize = 32 << 10;

/// What a replica server is made of.
#[derive(Clone, Debug)]
pub struct ReplicaAppOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Meta servers, by name or address.
    pub metas: Vec<HostPort>,
    /// One for each disk.
    pub data_dirs: Vec<PathBuf>,
    /// `[replication]`.
    pub replication: ReplicationOptions,
    /// `[nfs]`.
    pub copy: NfsOptions,
    /// `[network]`.
    pub rpc: RpcOptions,
}

impl ReplicaAppOptions {
    /// The options of an instance of the configuration.
    ///
    /// # Errors
    /// A missing port, or meta servers that are not of the form `host:port`.
    pub fn new(instance: &AppInstance) -> Result<Self, AppError> {
        let config = &instance.config;
        let text = |error: dsn_core::config::ConfigError| AppError(error.to_string());
        let name = &instance.name;
        let port = instance.ports.first().copied();
        let port = port.ok_or_else(|| AppError(format!("[apps.{name}] ports: none is given")))?;
        let meta: MetaServerOptions = config.section().map_err(text)?;
        let mut metas = Vec::new();
        for server in &meta.server_list {
            let name = HostPort::parse(server).ok_or_else(|| {
                AppError(format!("[meta_server] server_list: {server}: not of the form host:port"))
            })?;
            metas.push(name);
        }
        if metas.is_empty() {
            return Err(AppError("[meta_server] server_list: no meta server is given".to_owned()));
        }
        let rpc: RpcOptions = config.section().map_err(text)?;
        Ok(Self {
            listen: rpc.listen_at(port).map_err(AppError)?,
            metas,
            data_dirs: instance.data_dirs.clone(),
            replication: config.section().map_err(text)?,
            copy: config.section().map_err(text)?,
            rpc,
        })
    }

    /// A write travels to the other members in one frame: the largest must fit, with what is around it.
    fn check_sizes(&self) -> Result<(), AppError> {
        let (write, frame) = (self.replication.max_allowed_write_size, self.rpc.max_frame_bytes);
        if write.as_usize() + FRAME_OVERHEAD <= frame.as_usize() {
            return Ok(());
        }
        Err(AppError(format!(
            "[replication] max_allowed_write_size = {write} does not fit into a frame of [network] max_frame_bytes = \
             {frame}, with {FRAME_OVERHEAD} bytes around it"
        )))
    }

    fn stub_options(&self) -> Result<StubOptions, AppError> {
        let replication = &self.replication;
        let timing = Timing::new(replication).map_err(|error| AppError(error.to_string()))?;
        self.check_sizes()?;
        let millis = |value: u32| Duration::from_millis(u64::from(value));
        Ok(StubOptions {
            data_dirs: self.data_dirs.clone(),
            log: LogOptions {
                segment_bytes: u64::from(replication.log_private_file_size_mb) << 20,
                durability: match replication.log_durability {
                    LogDurability::Os => Durability::Os,
                    LogDurability::GroupSync => Durability::GroupSync,
                    LogDurability::IntervalSync => Durability::IntervalSync,
                },
                sync_interval: millis(replication.log_sync_interval_ms),
                reserve_age: Duration::from_secs(
                    replication.log_private_reserve_max_time_seconds.into(),
                ),
                reserve_bytes: u64::from(replication.log_private_reserve_max_size_mb) << 20,
                sync_timeout: Duration::from_secs(replication.log_sync_timeout_seconds.into()),
                count_limit: replication.log_shared_file_count_limit as usize,
                ..LogOptions::default()
            },
            core: CoreOptions {
                window: replication.staleness_for_commit as usize,
                queue_bytes: replication.max_queued_write_bytes.as_usize(),
                batching: !replication.batch_write_disabled,
                group: GroupOptions {
                    resend_after: millis(replication.prepare_resend_ms),
                    evict_after: millis(replication.prepare_timeout_ms_for_secondaries),
                    evict_after_min: millis(replication.prepare_timeout_min_ms_for_secondaries),
                    learner_timeout: millis(replication.learn_timeout_ms),
                    check_interval: millis(replication.member_check_interval_ms),
                    ..GroupOptions::default()
                },
            },
            deny_clients: replication.deny_client_on_start,
            max_write_bytes: replication.max_allowed_write_size.as_usize(),
            min_members: replication.mutation_2pc_min_replica_count,
            checkpoint_interval: Duration::from_secs(u64::from(
                replication.checkpoint_interval_seconds,
            )),
            checkpoint_max_interval: Duration::from_secs(
                3600 * u64::from(replication.checkpoint_max_interval_hours),
            ),
            heartbeat: (!replication.empty_write_disabled)
                .then(|| millis(replication.group_check_interval_ms)),
            garbage: GarbageOptions {
                damaged: Duration::from_secs(replication.gc_disk_error_replica_interval_seconds),
                unwanted: Duration::from_secs(replication.gc_disk_garbage_replica_interval_seconds),
            },
            space: SpaceOptions {
                interval: Duration::from_secs(replication.disk_stat_interval_seconds.into()),
                min_free_percent: replication.disk_min_available_space_ratio,
                reject_writes: replication.reject_write_when_disk_insufficient,
            },
            copy: CopyOptions {
                concurrent: replication.learn_app_max_concurrent_count as usize,
                receive_mib: self.copy.max_copy_rate_megabytes_per_disk,
                send_mib: self.copy.max_send_rate_megabytes_per_disk,
            },
            link: MetaLinkOptions {
                metas: self.metas.clone(),
                me: self.rpc.reached_at(self.listen).map_err(AppError)?,
                timing,
                sync_interval: millis(replication.config_sync_interval_ms),
            },
        })
    }
}

/// A replica server.
pub struct ReplicaApp {
    options: ReplicaAppOptions,
    make: Option<MakeFactory>,
    stub: Option<Addr<ReplicaStub>>,
    rpc: Option<Rpc>,
    watch: Watch<ReplicaHost>,
}

impl fmt::Debug for ReplicaApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaApp").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The factory of a replica server for an instance of the configuration.
///
/// # Errors
/// See [`ReplicaAppOptions::new`].
pub fn replica_app(instance: &AppInstance, make: MakeFactory) -> Result<AppFactory, AppError> {
    let options = ReplicaAppOptions::new(instance)?;
    Ok(Box::new(move || Box::new(ReplicaApp::new(options, make))))
}

impl ReplicaApp {
    /// A replica server that has not been started.
    pub fn new(options: ReplicaAppOptions, make: MakeFactory) -> Self {
        Self { options, make: Some(make), stub: None, rpc: None, watch: Watch::default() }
    }

    /// Lets `watch` see its replicas.
    #[must_use]
    pub fn watched_by(self, watch: Watch<ReplicaHost>) -> Self {
        Self { watch, ..self }
    }
}

impl ServiceApp for ReplicaApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _me: Addr<AppHost>) -> Result<(), AppError> {
        let Some(make) = self.make.take() else {
            return Err(AppError("the replica server was started before".to_owned()));
        };
        let listen = self.options.listen;
        let mut table = ServiceTable::new();
        let options = self.options.stub_options()?;
        let factory = make(ctx, options.link.me)?;
        let stub = ReplicaStub::new(ctx, factory, options, &mut table);
        let rpc = Rpc::start(ctx, self.options.rpc.clone(), table);
        let watch = self.watch.clone();
        let _ = ctx.with(stub, move |stub, _| watch.show(stub.placement()));
        self.stub = Some(stub);
        self.rpc = Some(rpc.clone());
        // The port opens when everything can be served.
        let opened = move |ctx: &mut Ctx<'_>, outcome: Result<(), String>| {
            let outcome = outcome.and_then(|()| {
                rpc.listen(ctx, listen).map_err(|error| format!("listen on {listen}: {error}"))
            });
            match outcome {
                Ok(_) => {
                    tracing::info!(%listen, "replica server ready");
                    ctx.post(stub, &LPC_STUB_EVENT, ReplicaStub::join);
                }
                Err(reason) => {
                    tracing::error!(reason, "the replica server cannot run");
                    let done = Box::new(|ctx: &mut Ctx<'_>| ctx.node().stop());
                    ctx.post(stub, &LPC_STUB_EVENT, |stub, ctx| stub.close_all(ctx, done));
                }
            }
        };
        let _ = ctx.with(stub, move |stub, ctx| stub.open(ctx, Box::new(opened)));
        Ok(())
    }

    fn stop(&mut self, ctx: &mut Ctx<'_>) {
        let done = Box::new(|ctx: &mut Ctx<'_>| ctx.node().stop());
        match self.stub {
            Some(stub) => drop(ctx.with(stub, move |stub, ctx| stub.close_all(ctx, done))),
            None => ctx.node().stop(),
        }
        // Only now: a port that is closed says that the lease is over.
        if let Some(rpc) = &self.rpc {
            rpc.stop_listening(ctx);
        }
    }
}
