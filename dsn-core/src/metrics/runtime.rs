//! Metrics of the runtime itself: what became of events, and what waits in the stages.

use std::sync::Arc;

use super::Counter;
use crate::node::Node;

crate::metrics! {
    /// What became of the events of a server.
    pub struct RuntimeMetrics on "server" {
        /// Events dropped because their deadline had passed before they began.
        runtime_expired_tasks: Counter, Tasks;
        /// Events dropped because the resident they were for was gone.
        runtime_vanished_tasks: Counter, Tasks;
        /// Events that ran longer than `[runtime] slow_task`.
        runtime_slow_tasks: Counter, Tasks;
        /// Residents lost to panics.
        runtime_poisoned_residents: Counter, Residents;
        /// Residents of all workers.
        runtime_residents: Gauge, Residents;
    }
}

crate::metrics! {
    /// A stage.
    pub struct QueueMetrics on "queue" {
        /// Jobs waiting or running, of a stage whose events may block.
        queue_length: Gauge, Tasks;
        /// Whether client requests are refused because of what waits: 1 or 0.
        queue_overloaded: Gauge, State;
    }
}

/// Shows the runtime's metrics in the node's registry for as long as the node exists.
pub fn watch_runtime(node: &Arc<Node>) {
    let server = RuntimeMetrics::new(node.metrics(), "server", []);
    let queues: Vec<QueueMetrics> = node
        .stages()
        .iter()
        .map(|stage| {
            QueueMetrics::new(node.metrics(), stage.name(), [("queue_name", stage.name())])
        })
        .collect();
    let weak = Arc::downgrade(node);
    node.metrics().refresh_with(move || {
        let Some(node) = weak.upgrade() else { return false };
        let raise = |counter: &Counter, to: u64| counter.add(to.saturating_sub(counter.value()));
        raise(&server.runtime_expired_tasks, node.expired());
        raise(&server.runtime_vanished_tasks, node.vanished());
        raise(&server.runtime_slow_tasks, node.slow());
        raise(&server.runtime_poisoned_residents, node.poisoned());
        server.runtime_residents.set_u64(node.residents() as u64);
        for (stage, queue) in node.stages().iter().zip(&queues) {
            queue.queue_length.set_u64(stage.waiting() as u64);
            queue.queue_overloaded.set_u64(u64::from(!stage.admits()));
        }
        true
    });
}
