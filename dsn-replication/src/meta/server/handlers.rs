//! The RPCs of the meta server.

use dsn_core::exec::{Addr, Ctx};
use dsn_core::time::Mono;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{Decode, Encode};
use dsn_rpc::{Replier, Request, ServiceTable};

use super::MetaServer;
use crate::codes as rpc;
use crate::meta::state::{Cluster, Ticket};
use crate::wire::admin::{
    ClusterInfoRequest, ClusterInfoResponse, CreateAppRequest, CreateAppResponse,
    DddDiagnoseRequest, DddDiagnoseResponse, DropAppRequest, DropAppResponse, ListAppsRequest,
    ListAppsResponse, ListNodesRequest, ListNodesResponse, MetaControlRequest, MetaControlResponse,
    RecallAppRequest, RecallAppResponse, RenameAppRequest, RenameAppResponse, UpdateAppEnvRequest,
    UpdateAppEnvResponse,
};
use crate::wire::config::{
    ConfigSyncRequest, ConfigSyncResponse, ConfigurationUpdateRequest, ConfigurationUpdateResponse,
    QueryCfgRequest, QueryCfgResponse,
};
use crate::wire::replica::{BeaconAck, BeaconMsg};

/// A response whose error says that this server does not serve yet.
trait NotActive: Encode + Default {
    fn not_active() -> Self;
}

macro_rules! not_active {
    ($($name:ident)*) => {$(
        impl NotActive for $name {
            fn not_active() -> Self {
                #[allow(clippy::needless_update, reason = "some have no other field")]
                Self { err: ErrorCode::ServiceNotActive, ..Self::default() }
            }
        }
    )*};
}

not_active! {
    QueryCfgResponse CreateAppResponse DropAppResponse RecallAppResponse RenameAppResponse
    ListAppsResponse ListNodesResponse ClusterInfoResponse UpdateAppEnvResponse MetaControlResponse
    DddDiagnoseResponse ConfigSyncResponse ConfigurationUpdateResponse
}

pub(super) fn register(table: &mut ServiceTable, to: Addr<MetaServer>) {
    table.on_resident(&rpc::RPC_FD_FAILURE_DETECTOR_PING, to, on_beacon);
    table.on_resident(&rpc::RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX, to, |s, ctx, request, r| {
        s.now(ctx, request, r, |c, q: &QueryCfgRequest, _| c.query_config(q));
    });
    table.on_resident(&rpc::RPC_CM_LIST_APPS, to, |s, ctx, request, r| {
        s.now(ctx, request, r, |c, q: &ListAppsRequest, _| c.list_apps(q));
    });
    table.on_resident(&rpc::RPC_CM_LIST_NODES, to, |s, ctx, request, r| {
        s.now(ctx, request, r, |c, q: &ListNodesRequest, _| c.list_nodes(q));
    });
    table.on_resident(&rpc::RPC_CM_CLUSTER_INFO, to, |s, ctx, request, r| {
        s.now(ctx, request, r, |c, _: &ClusterInfoRequest, _| c.cluster_info());
    });
    table.on_resident(&rpc::RPC_CM_CONTROL_META, to, |s, ctx, request, r| {
        s.now(ctx, request, r, |c, q: &MetaControlRequest, now| c.control(q, now));
    });
    table.on_resident(&rpc::RPC_CM_DDD_DIAGNOSE, to, |s, ctx, request, r| {
        s.now(ctx, request, r, |c, q: &DddDiagnoseRequest, _| c.ddd_diagnose(q));
    });
    table.on_resident(&rpc::RPC_CM_CONFIG_SYNC, to, |s, ctx, request, r| {
        let wall = ctx.wall();
        s.now(ctx, request, r, |c, q: &ConfigSyncRequest, now| c.config_sync(q, now, wall));
    });
    table.on_resident(&rpc::RPC_CM_CREATE_APP, to, |s, ctx, request, r| {
        let wall = ctx.wall();
        s.later::<_, CreateAppResponse>(ctx, request, r, |c, t, q: &CreateAppRequest| {
            c.create_app(t, q, wall);
        });
    });
    table.on_resident(&rpc::RPC_CM_DROP_APP, to, |s, ctx, request, r| {
        let wall = ctx.wall();
        s.later::<_, DropAppResponse>(ctx, request, r, |c, t, q: &DropAppRequest| {
            c.drop_app(t, q, wall);
        });
    });
    table.on_resident(&rpc::RPC_CM_RECALL_APP, to, |s, ctx, request, r| {
        let wall = ctx.wall();
        s.later::<_, RecallAppResponse>(ctx, request, r, |c, t, q: &RecallAppRequest| {
            c.recall_app(t, q, wall);
        });
    });
    table.on_resident(&rpc::RPC_CM_RENAME_APP, to, |s, ctx, request, r| {
        s.later::<_, RenameAppResponse>(ctx, request, r, |c, t, q: &RenameAppRequest| {
            c.rename_app(t, q);
        });
    });
    table.on_resident(&rpc::RPC_CM_UPDATE_APP_ENV, to, |s, ctx, request, r| {
        s.later::<_, UpdateAppEnvResponse>(ctx, request, r, |c, t, q: &UpdateAppEnvRequest| {
            c.update_app_env(t, q);
        });
    });
    table.on_resident(&rpc::RPC_CM_UPDATE_PARTITION_CONFIGURATION, to, |s, ctx, request, r| {
        s.later::<_, ConfigurationUpdateResponse>(
            ctx,
            request,
            r,
            |c, t, q: &ConfigurationUpdateRequest| c.update_configuration(t, q),
        );
    });
}

/// A beacon is answered from memory, whatever else is going on. Before the store was read, this server leads nobody.
fn on_beacon(server: &mut MetaServer, ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
    let Ok(beacon) = request.decode::<BeaconMsg>() else {
        return replier.error(ctx, ErrorCode::InvalidData);
    };
    let allowed = server.with_cluster(ctx, |cluster, ctx| cluster.on_beacon(&beacon, ctx.clock()));
    let serving = allowed.is_some();
    if allowed == Some(true) {
        server.watch(ctx, &beacon, &request, &replier);
    }
    let leader = if serving { beacon.to_node } else { RpcAddress::INVALID };
    let ack = BeaconAck {
        time: beacon.time,
        this_node: beacon.to_node,
        primary_node: leader,
        is_master: serving,
        allowed: allowed.unwrap_or(true),
        hp_this_node: beacon.hp_to_node.clone(),
        hp_primary_node: beacon.hp_to_node.filter(|_| serving),
    };
    replier.reply(ctx, &ack);
}

impl MetaServer {
    /// Answers a request at once.
    fn now<Q: Decode, A: NotActive>(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: Request,
        replier: Replier,
        f: impl FnOnce(&mut Cluster, &Q, Mono) -> A,
    ) {
        let Ok(query) = request.decode::<Q>() else {
            return replier.error(ctx, ErrorCode::InvalidData);
        };
        let answer = self.with_cluster(ctx, |cluster, ctx| f(cluster, &query, ctx.clock()));
        replier.reply(ctx, &answer.unwrap_or_else(A::not_active));
    }

    /// Begins to serve a request that is answered when its change is durable.
    fn later<Q: Decode, A: NotActive>(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: Request,
        replier: Replier,
        f: impl FnOnce(&mut Cluster, Ticket, &Q),
    ) {
        let Ok(query) = request.decode::<Q>() else {
            return replier.error(ctx, ErrorCode::InvalidData);
        };
        if !self.is_serving() {
            return replier.reply(ctx, &A::not_active());
        }
        let Some(ticket) = self.admit(ctx, replier) else { return };
        self.with_cluster(ctx, |cluster, _| f(cluster, ticket, &query));
    }
}
