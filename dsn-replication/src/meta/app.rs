//! The meta server as an app of a node.

use std::net::SocketAddr;
use std::path::PathBuf;

use dsn_core::app::{AppError, AppFactory, AppHost, ServiceApp};
use dsn_core::boot::AppInstance;
use dsn_core::exec::{Addr, Ctx, Place};
use dsn_core::stage::META_SERVER;
use dsn_rpc::{Rpc, RpcOptions, ServiceTable};

use super::envs::EnvRules;
use super::server::{LPC_META_TICK, MetaServer};
use super::state::ClusterOptions;
use super::store::MetaStore;
use super::store::local::LocalStore;
use crate::failure_detector::Timing;
use crate::options::{MetaServerOptions, ReplicationOptions};

/// Where below its data directory the embedded store keeps its files.
pub const STORE_DIR: &str = "meta_state";

/// Adds an app's own services to those of the meta server.
pub type Extend = Box<dyn FnOnce(&mut ServiceTable) + Send>;

/// What a meta server is made of.
pub struct MetaAppOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the embedded store is.
    pub data_dir: PathBuf,
    /// `[replication]`.
    pub replication: ReplicationOptions,
    /// `[meta_server]`.
    pub meta: MetaServerOptions,
    /// `[network]`.
    pub rpc: RpcOptions,
    /// Envs that tables may have.
    pub envs: EnvRules,
    /// Further services on the same port.
    pub extend: Extend,
}

impl std::fmt::Debug for MetaAppOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaAppOptions").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// A meta server; make it with [`meta_app`] or from options.
#[derive(Debug)]
pub struct MetaApp {
    options: Option<MetaAppOptions>,
    server: Option<Addr<MetaServer>>,
    rpc: Option<Rpc>,
}

impl MetaApp {
    /// A meta server that has not been started.
    pub fn new(options: MetaAppOptions) -> Self {
        Self { options: Some(options), server: None, rpc: None }
    }

    /// The resident, once started.
    pub fn server(&self) -> Option<Addr<MetaServer>> {
        self.server
    }

    /// The options of an instance of the configuration.
    ///
    /// # Errors
    /// A section that is missing from the schema, no port, or a store that there is not or that cannot be shared.
    pub fn options(instance: &AppInstance, envs: EnvRules) -> Result<MetaAppOptions, AppError> {
        let config = &instance.config;
        let text = |error: dsn_core::config::ConfigError| AppError(error.to_string());
        let name = &instance.name;
        let port = instance.ports.first().copied();
        let port = port.ok_or_else(|| AppError(format!("[apps.{name}] ports: none is given")))?;
        let data_dir = instance.data_dirs.first().cloned();
        let data_dir =
            data_dir.ok_or_else(|| AppError("[core] data_dirs: none is given".to_owned()))?;
        let rpc: RpcOptions = config.section().map_err(text)?;
        let meta: MetaServerOptions = config.section().map_err(text)?;
        check_store(&meta)?;
        Ok(MetaAppOptions {
            listen: rpc.listen_at(port).map_err(AppError)?,
            data_dir,
            replication: config.section().map_err(text)?,
            meta,
            rpc,
            envs,
            extend: Box::new(|_| {}),
        })
    }
}

/// What keeps the state must exist, and know all that write to it.
fn check_store(meta: &MetaServerOptions) -> Result<(), AppError> {
    let kind = &meta.meta_state_service_type;
    if kind != "local" {
        return Err(AppError(format!(
            "[meta_server] meta_state_service_type: there is no {kind}, only local"
        )));
    }
    // Each would lead a cluster of its own, with the same replica servers.
    let servers = meta.server_list.len();
    if servers > 1 {
        return Err(AppError(format!(
            "[meta_server] server_list names {servers} meta servers: with meta_state_service_type = \"local\" there \
             can be only one"
        )));
    }
    Ok(())
}

/// The factory of a meta server for an instance of the configuration.
///
/// # Errors
/// See [`MetaApp::options`].
pub fn meta_app(instance: &AppInstance, envs: EnvRules) -> Result<AppFactory, AppError> {
    let options = MetaApp::options(instance, envs)?;
    Ok(Box::new(move || Box::new(MetaApp::new(options))))
}

impl ServiceApp for MetaApp {
    fn start(&mut self, ctx: &mut Ctx<'_>, _me: Addr<AppHost>) -> Result<(), AppError> {
        let Some(options) = self.options.take() else {
            return Err(AppError("the meta server was started before".to_owned()));
        };
        let timing =
            Timing::new(&options.replication).map_err(|error| AppError(error.to_string()))?;
        let dir = options.data_dir.join(STORE_DIR);
        let store: Box<dyn MetaStore> = Box::new(LocalStore::new(ctx.disk().clone(), dir));
        let cluster = ClusterOptions {
            replication: options.replication,
            meta: options.meta,
            timing,
            envs: options.envs,
            this_server: options.rpc.reached_at(options.listen).map_err(AppError)?.to_string(),
        };
        let place = ctx.node().find_stage(META_SERVER).map_or(Place::Here, Place::Stage);
        let server = ctx
            .spawn(place, &LPC_META_TICK, move |ctx, me| MetaServer::new(ctx, me, cluster, store));
        let mut table = ServiceTable::new();
        MetaServer::register(&mut table, server);
        (options.extend)(&mut table);
        let rpc = Rpc::start(ctx, options.rpc, table);
        rpc.listen(ctx, options.listen)
            .map_err(|error| AppError(format!("listen on {}: {error}", options.listen)))?;
        self.server = Some(server);
        self.rpc = Some(rpc);
        Ok(())
    }

    fn stop(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(rpc) = &self.rpc {
            rpc.stop_listening(ctx);
        }
        if let Some(server) = self.server.take() {
            ctx.close(server);
        }
        ctx.node().stop();
    }
}
