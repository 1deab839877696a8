//! What can be turned in a simulated world: how long things take and how big its buffers are.
//!
//! Everything has a default that resembles a small cluster in one building. Scenarios turn the knobs, see
//! [`super::scenario`].

use super::dist::Dist;
use std::time::Duration;

/// How connections behave.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// One-way delay between nodes.
    pub latency: Dist,
    /// One-way delay within a node.
    pub local_latency: Dist,
    /// Time a KiB takes on a link, in ns.
    pub ns_per_kib: u64,
    /// Bytes a connection holds per direction that the receiver has not read; more gives `WouldBlock`.
    pub window: usize,
    /// Connections that wait to be accepted; more are not answered.
    pub backlog: usize,
    /// One write in this many arrives in several pieces; 0 for never.
    pub split_one_in: u64,
    /// One write in this many takes less than there is room for; 0 for never.
    pub short_write_one_in: u64,
    /// One poll in this many reports a socket on which nothing has happened; 0 for never.
    pub spurious_one_in: u64,
    /// A sender that gets no acknowledgement gives up after this time.
    pub send_timeout: Duration,
    /// An idle connection notices after this time that its peer is gone.
    pub keepalive: Duration,
    /// A connect that gets no answer gives up after this time.
    pub connect_timeout: Duration,
    /// Retransmission after a healed link takes up to this long.
    pub retransmit: Duration,
    /// How long a lookup of a host name takes.
    pub lookup: Dist,
    /// Sockets a node may have open.
    pub fd_limit: usize,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            latency: Dist::heavy(Duration::from_micros(150)),
            local_latency: Dist::heavy(Duration::from_micros(15)),
            ns_per_kib: 1000,
            window: 256 << 10,
            backlog: 1024,
            split_one_in: 8,
            short_write_one_in: 64,
            spurious_one_in: 64,
            send_timeout: Duration::from_secs(900),
            keepalive: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(127),
            retransmit: Duration::from_millis(400),
            lookup: Dist::heavy(Duration::from_millis(2)),
            fd_limit: 10_000,
        }
    }
}

/// How disks behave.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// A write into the page cache.
    pub write: Dist,
    /// A read.
    pub read: Dist,
    /// A sync of a file or directory.
    pub sync: Dist,
    /// Opening, renaming and the like.
    pub meta: Dist,
    /// Time to move a KiB, in ns.
    pub ns_per_kib: u64,
    /// Size of the file system, in bytes.
    pub capacity: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            write: Dist::heavy(Duration::from_micros(3)),
            read: Dist::heavy(Duration::from_micros(20)),
            sync: Dist::heavy(Duration::from_micros(600)),
            meta: Dist::heavy(Duration::from_micros(8)),
            ns_per_kib: 700,
            capacity: 64 << 30,
        }
    }
}

/// Everything about a simulated world that is not a node.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// CPU time of an event: what one look at the clock costs its worker.
    pub event_cost: Dist,
    /// CPU time of a call into the system.
    pub syscall_cost: Dist,
    /// CPU time of a blocking job, beside its disk time.
    pub job_cost: Dist,
    /// From a post to the start of the other worker.
    pub hop: Dist,
    /// One event in this many makes its worker stall; 0 for never.
    pub stall_one_in: u64,
    /// How long a stall is.
    pub stall: Dist,
    /// Connections.
    pub net: NetOptions,
    /// Disks of nodes that bring none of their own.
    pub disk: DiskOptions,
    /// Wall clock at the start, in seconds since the Unix epoch.
    pub wall_start: u64,
    /// A run of more steps than this is called a livelock.
    pub max_steps: u64,
    /// Whether a poisoned resident is a violation.
    pub poison_is_violation: bool,
    /// A node whose app refuses to start is tried again after this time when a fault plan had ended it.
    pub start_retry: Duration,
    /// Whether every step is kept, to compare two runs.
    pub step_log: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            event_cost: Dist::heavy(Duration::from_nanos(700)),
            syscall_cost: Dist::heavy(Duration::from_nanos(500)),
            job_cost: Dist::heavy(Duration::from_micros(8)),
            hop: Dist::heavy(Duration::from_micros(3)),
            stall_one_in: 200_000,
            stall: Dist::uniform(Duration::from_millis(1), Duration::from_millis(50)),
            net: NetOptions::default(),
            disk: DiskOptions::default(),
            wall_start: 1_767_225_600,
            max_steps: u64::MAX,
            poison_is_violation: true,
            start_retry: Duration::from_secs(2),
            step_log: false,
        }
    }
}
