//! What the main thread of a server does while its nodes work: it waits for a signal, and looks after the workers.
//!
//! The first SIGTERM or SIGINT asks for an orderly end; a second one of either kind ends the process at once, by the
//! signal's own default action, whatever the orderly end is waiting for.

use crate::app::NativeNode;
use crate::driver::native::NativeClock;
use crate::exec::WorkerId;
use crate::node::Node;
use crate::time::Mono;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How often the waiting thread looks whether its nodes still run, and whether a worker is stuck.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// A worker that runs one event for longer than this is reported while it does. The worker itself reports slow events
/// ([`WorkerConfig::slow_task`](crate::exec::WorkerConfig)) only once they have ended.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Signals that ask the process to end.
pub(super) struct Signals {
    stream: UnixStream,
}

impl Signals {
    /// Takes the signals over. From here on the first one is only noted.
    pub(super) fn install() -> io::Result<Self> {
        let (stream, end) = UnixStream::pair()?;
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // Actions of a signal run in this order: the first signal finds the flag down, and raises it.
            signal_hook::flag::register_conditional_default(signal, asked.clone())?;
            signal_hook::flag::register(signal, asked.clone())?;
            signal_hook::low_level::pipe::register(signal, end.try_clone()?)?;
        }
        stream.set_read_timeout(Some(LOOK_PERIOD))?;
        Ok(Self { stream })
    }

    /// Waits for a signal: `true`; or for a node that ended by itself: `false`.
    pub(super) fn wait(&mut self, running: &[NativeNode], clock: NativeClock) -> bool {
        let mut byte = [0; 1];
        loop {
            if self.stream.read(&mut byte).is_ok() {
                tracing::info!("a signal asks the process to end");
                return true;
            }
            for node in running {
                if node.node().is_stopped() {
                    tracing::error!(node = node.node().name(), "a node has ended by itself");
                    return false;
                }
                report_stuck(node.node(), clock.now());
            }
        }
    }
}

/// Names the event of each worker that has been running it for too long.
fn report_stuck(node: &Node, now: Mono) {
    for index in 0..node.worker_count() {
        let worker = node.worker(WorkerId(index as u16));
        if let Some((code, since)) = worker.running()
            && now.saturating_since(since) > STUCK_AFTER
        {
            let seconds = now.saturating_since(since).as_secs();
            tracing::error!(
                node = node.name(),
                worker = index,
                code = code.name(),
                seconds,
                "worker stuck"
            );
        }
    }
}
