//! The counters of the RPC layer as metrics of the server.

use std::sync::{Arc, Weak};

use dsn_core::metrics::Counter;
use dsn_core::node::Node;

use crate::shared::RpcShared;
use crate::stats::Stats;

dsn_core::metrics! {
    /// Connections and messages of a server.
    pub struct RpcMetrics on "server" {
        /// Connections, in both directions.
        network_sessions: Gauge, Sessions;
        /// Connections that others opened.
        network_server_sessions: Gauge, Sessions;
        /// Connections that this server opened.
        network_client_sessions: Gauge, Sessions;
        /// Connections accepted.
        network_accepted: Counter, Sessions;
        /// Connections turned away because there were too many.
        network_turned_away: Counter, Sessions;
        /// Connections closed because of what their peer sent.
        network_bad_input: Counter, Sessions;
        /// Connections closed because their peer was too slow.
        network_too_slow: Counter, Sessions;
        /// Connections that could not be established.
        network_connect_failures: Counter, Sessions;
        /// Bytes received.
        network_bytes_in: Counter, Bytes;
        /// Bytes sent.
        network_bytes_out: Counter, Bytes;
        /// Reads of sockets: one system call each.
        network_reads: Counter, Times;
        /// Writes to sockets: one system call each.
        network_writes: Counter, Times;
        /// Turns of the workers: one system call each.
        worker_turns: Counter, Times;
        /// Memory that connections hold in buffers.
        network_buffer_bytes: Gauge, Bytes;
        /// Requests received.
        rpc_requests: Counter, Requests;
        /// Requests refused because of load.
        rpc_rejected_requests: Counter, Requests;
        /// Requests dropped because their deadline had passed.
        rpc_expired_requests: Counter, Requests;
        /// Requests of an unknown name.
        rpc_unknown_requests: Counter, Requests;
        /// Requests whose handler gave no answer.
        rpc_unanswered_requests: Counter, Requests;
        /// Calls made.
        rpc_calls: Counter, Requests;
        /// Calls that timed out.
        rpc_call_timeouts: Counter, Requests;
        /// Calls that failed with their connection.
        rpc_call_failures: Counter, Requests;
        /// HTTP requests received.
        http_requests: Counter, Requests;
    }
}

/// Shows the counters in the node's registry for as long as the RPC layer exists.
pub(crate) fn register(node: &Arc<Node>, shared: &Arc<RpcShared>) {
    let metrics = RpcMetrics::new(node.metrics(), "server", []);
    let shared: Weak<RpcShared> = Arc::downgrade(shared);
    let workers = Arc::downgrade(node);
    node.metrics().refresh_with(move || {
        let (Some(shared), Some(node)) = (shared.upgrade(), workers.upgrade()) else {
            return false;
        };
        refresh(&metrics, &Stats::gather(shared.counters.iter()), shared.accepted_now());
        raise(&metrics.worker_turns, node.turns());
        true
    });
}

fn raise(counter: &Counter, to: u64) {
    counter.add(to.saturating_sub(counter.value()));
}

fn refresh(metrics: &RpcMetrics, stats: &Stats, accepted: u64) {
    metrics.network_sessions.set_u64(stats.sessions);
    metrics.network_server_sessions.set_u64(accepted);
    metrics.network_client_sessions.set_u64(stats.sessions.saturating_sub(accepted));
    metrics.network_buffer_bytes.set_u64(stats.buffer_bytes);
    raise(&metrics.network_accepted, stats.accepted);
    raise(&metrics.network_turned_away, stats.turned_away);
    raise(&metrics.network_bad_input, stats.bad_input);
    raise(&metrics.network_too_slow, stats.too_slow);
    raise(&metrics.network_connect_failures, stats.connect_failures);
    raise(&metrics.network_bytes_in, stats.bytes_in);
    raise(&metrics.network_bytes_out, stats.bytes_out);
    raise(&metrics.network_reads, stats.reads);
    raise(&metrics.network_writes, stats.writes);
    raise(&metrics.rpc_requests, stats.requests);
    raise(&metrics.rpc_rejected_requests, stats.busy);
    raise(&metrics.rpc_expired_requests, stats.expired);
    raise(&metrics.rpc_unknown_requests, stats.unknown);
    raise(&metrics.rpc_unanswered_requests, stats.unanswered);
    raise(&metrics.rpc_calls, stats.calls);
    raise(&metrics.rpc_call_timeouts, stats.call_timeouts);
    raise(&metrics.rpc_call_failures, stats.call_failures);
    raise(&metrics.http_requests, stats.http_requests);
}
