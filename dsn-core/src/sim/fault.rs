//! Faults as data: an explicit list, drawn from a seed before the run, that a failing run can be shrunk over.
//!
//! Each class of faults draws from a stream of its own, and each fault that draws while the run goes on has one named
//! after its moment: taking one away moves nothing else.

use super::disk::{DiskFault, DiskOp};
use super::node::NodeId;
use super::sim::Sim;
use super::world::NodeState;
use crate::rng::Rng;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far the rate of a clock is off at most, in millionths: those of two servers differ by 5 %.
const DRIFT_PPM: u64 = 25_000;

/// One thing that goes wrong. Nodes are named as in their [`NodeSpec`](super::NodeSpec); times are in ms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "fields are nodes, durations in ms and odds; the variants tell")]
pub enum Fault {
    /// SIGKILL, and a start after a while.
    Kill { node: String, down_ms: u64 },
    /// The power fails, and comes back after a while.
    PowerOff { node: String, down_ms: u64 },
    /// The system writes back what it holds of files in memory.
    WriteBack { node: String },
    /// Death right after a number of disk changes, in the middle of what the process does then.
    CrashAtStep { node: String, steps: u64, power: bool, down_ms: u64 },
    /// SIGSTOP and SIGCONT.
    Pause { node: String, ms: u64 },
    /// No packet passes between two groups.
    Partition { one: Vec<String>, other: Vec<String>, ms: u64 },
    /// No packet passes in one direction.
    PartitionOneWay { from: Vec<String>, to: Vec<String>, ms: u64 },
    /// Packets of one direction wait, and pass together.
    Clog { from: Vec<String>, to: Vec<String>, ms: u64 },
    /// Delay and transmission times grow.
    SlowLink { one: Vec<String>, other: Vec<String>, extra_ms: u64, factor: u64, ms: u64 },
    /// Connections are reset, each with these odds.
    Reset { one: String, other: String, percent: u64 },
    /// Connections carry nothing any more and look alive, each with these odds.
    Silence { one: String, other: String, percent: u64 },
    /// Disk operations fail, one in so many, on files whose path contains `path`.
    DiskFail { node: String, op: DiskOp, one_in: u64, path: String, ms: u64 },
    /// Syncs do nothing and report success.
    DiskLie { node: String, path: String, ms: u64 },
    /// The disk is slow, for files whose path contains `path`.
    DiskSlow {
        node: String,
        factor: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        path: String,
        ms: u64,
    },
    /// The disk answers nothing for a while about files whose path contains `path`.
    DiskStuck {
        node: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        path: String,
        ms: u64,
    },
    /// The disk is full for a while, for files whose path contains `path`.
    DiskFull {
        node: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        path: String,
        ms: u64,
    },
    /// A bit flips in some files whose path contains `path`, before their last `spare` bytes.
    BitFlip {
        node: String,
        path: String,
        files: usize,
        #[serde(default)]
        spare: u64,
    },
    /// The CPU is slow: `percent` of normal cost.
    SlowCpu { node: String, percent: u64, ms: u64 },
    /// Sockets run out.
    FdLimit { node: String, limit: usize, ms: u64 },
    /// The wall clock is set, forward or back.
    WallStep { node: String, by_ms: i64 },
    /// The monotonic clock runs fast or slow.
    Drift { node: String, ppm: i64, ms: u64 },
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedFault {
    /// From the start of the run.
    pub at_ms: u64,
    /// What happens then.
    #[serde(flatten)]
    pub fault: Fault,
}

/// Kinds of faults that a plan may draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultClass {
    /// [`Fault::Kill`].
    Kill,
    /// [`Fault::PowerOff`].
    PowerOff,
    /// [`Fault::CrashAtStep`] without loss of power.
    CrashAtStep,
    /// [`Fault::CrashAtStep`] with loss of power.
    PowerAtStep,
    /// [`Fault::Pause`].
    Pause,
    /// [`Fault::Partition`] and [`Fault::PartitionOneWay`].
    Partition,
    /// [`Fault::Clog`] and [`Fault::SlowLink`].
    Clog,
    /// [`Fault::Reset`].
    Reset,
    /// [`Fault::Silence`].
    Silence,
    /// [`Fault::DiskFail`] of reads and writes.
    DiskFail,
    /// [`Fault::DiskFail`] of syncs.
    SyncFail,
    /// [`Fault::DiskSlow`] and [`Fault::DiskStuck`].
    DiskSlow,
    /// [`Fault::DiskFull`].
    DiskFull,
    /// [`Fault::BitFlip`].
    BitFlip,
    /// [`Fault::SlowCpu`].
    SlowCpu,
    /// [`Fault::FdLimit`].
    FdLimit,
    /// [`Fault::WallStep`].
    WallStep,
    /// [`Fault::Drift`].
    Drift,
}

impl FaultClass {
    /// Every class.
    pub const ALL: [Self; 18] = [
        Self::Kill,
        Self::PowerOff,
        Self::CrashAtStep,
        Self::PowerAtStep,
        Self::Pause,
        Self::Partition,
        Self::Clog,
        Self::Reset,
        Self::Silence,
        Self::DiskFail,
        Self::SyncFail,
        Self::DiskSlow,
        Self::DiskFull,
        Self::BitFlip,
        Self::SlowCpu,
        Self::FdLimit,
        Self::WallStep,
        Self::Drift,
    ];

    /// Faults that damage what is on a disk for good.
    fn damages(self) -> bool {
        matches!(self, Self::BitFlip | Self::SyncFail | Self::DiskFail)
    }
}

/// What plans to draw.
#[derive(Clone, Debug)]
pub struct PlanSpec {
    /// Nodes that faults may hit.
    pub nodes: Vec<String>,
    /// Nodes whose connections may be hit too, clients for instance.
    pub peers: Vec<String>,
    /// Nodes whose disks may be damaged: as many as the rest can make up for.
    pub damageable: Vec<String>,
    /// Classes to choose from, each with the mean time between two of its faults.
    pub classes: Vec<(FaultClass, Duration)>,
    /// Parts of paths that disk errors aim at; empty for all files.
    pub paths: Vec<String>,
    /// Parts of paths that bit flips aim at, and how many bytes at the end of such a file stay whole: the newest record
    /// of a log that is its only copy cannot be told from a torn write. Empty for all files.
    pub flips: Vec<(String, u64)>,
    /// No fault before.
    pub from: Duration,
    /// No fault after.
    pub to: Duration,
    /// Nodes that may be down at once.
    pub max_down: usize,
    /// Longest time that a lasting fault lasts, and a node is down.
    pub longest: Duration,
}

impl PlanSpec {
    /// Draws a plan, ordered by time. Each class takes part with odds of one half.
    pub fn draw(&self, seed: u64) -> Vec<TimedFault> {
        let mut plan = Vec::new();
        for &(class, mean) in &self.classes {
            let mut rng = Rng::stream(seed, "plan", &format!("{class:?}"), 0);
            if !rng.ratio(1, 2) || self.nodes.is_empty() {
                continue;
            }
            let mean = mean.as_millis().max(1) as u64;
            let mut at_ms = self.from.as_millis() as u64 + rng.range(0, 2 * mean);
            while at_ms < self.to.as_millis() as u64 {
                if let Some(fault) = self.draw_one(class, &mut rng) {
                    plan.push(TimedFault { at_ms, fault });
                }
                at_ms += rng.range(1, 2 * mean);
            }
        }
        plan.sort_by_key(|fault| fault.at_ms);
        self.limit_down(plan)
    }

    fn draw_one(&self, class: FaultClass, rng: &mut Rng) -> Option<Fault> {
        let longest = (self.longest.as_millis() as u64).max(2);
        // Short ones are common, long ones happen.
        let spread = [longest / 100, longest / 10, longest];
        let most = spread[rng.index(spread.len())].max(2);
        let ms = rng.range(1, most);
        let damaged = if class.damages() { &self.damageable } else { &self.nodes };
        let node = rng.pick(damaged)?.clone();
        let path = rng.pick(&self.paths).cloned().unwrap_or_default();
        let half = rng.ratio(1, 2);
        Some(match class {
            FaultClass::Kill => Fault::Kill { node, down_ms: ms },
            FaultClass::PowerOff => Fault::PowerOff { node, down_ms: ms },
            FaultClass::CrashAtStep | FaultClass::PowerAtStep => Fault::CrashAtStep {
                node,
                steps: rng.range(1, 60),
                power: class == FaultClass::PowerAtStep,
                down_ms: ms,
            },
            FaultClass::Pause => Fault::Pause { node, ms },
            FaultClass::Partition => {
                let (one, other) = self.two_groups(rng)?;
                if half {
                    Fault::Partition { one, other, ms }
                } else {
                    Fault::PartitionOneWay { from: one, to: other, ms }
                }
            }
            FaultClass::Clog => {
                let (one, other) = self.two_groups(rng)?;
                if half {
                    Fault::Clog { from: one, to: other, ms }
                } else {
                    let (extra_ms, factor) = (rng.range(1, 200), rng.range(1, 100));
                    Fault::SlowLink { one, other, extra_ms, factor, ms }
                }
            }
            FaultClass::Reset | FaultClass::Silence => {
                let other = self.other_than(&node, rng)?;
                let percent = if half { 100 } else { 50 };
                match class {
                    FaultClass::Reset => Fault::Reset { one: node, other, percent },
                    _ => Fault::Silence { one: node, other, percent },
                }
            }
            FaultClass::DiskFail => {
                let op = if half { DiskOp::Read } else { DiskOp::Write };
                Fault::DiskFail { node, op, one_in: rng.range(1, 20), path, ms }
            }
            FaultClass::SyncFail => {
                Fault::DiskFail { node, op: DiskOp::Sync, one_in: rng.range(1, 20), path, ms }
            }
            FaultClass::DiskSlow if half => Fault::DiskStuck { node, path: String::new(), ms },
            FaultClass::DiskSlow => {
                Fault::DiskSlow { node, factor: rng.range(2, 100), path: String::new(), ms }
            }
            FaultClass::DiskFull => Fault::DiskFull { node, path: String::new(), ms },
            FaultClass::BitFlip => {
                let (path, spare) = rng.pick(&self.flips).cloned().unwrap_or_default();
                Fault::BitFlip { node, path, files: rng.range(1, 2) as usize, spare }
            }
            FaultClass::SlowCpu => Fault::SlowCpu { node, percent: rng.range(200, 10_000), ms },
            FaultClass::FdLimit => Fault::FdLimit { node, limit: rng.range(0, 8) as usize, ms },
            FaultClass::WallStep => {
                let reach: u64 = *rng.pick(&[1_000, 3_600_000, 365 * 86_400_000])?;
                let by_ms = rng.range(0, 2 * reach) as i64 - reach as i64;
                Fault::WallStep { node, by_ms }
            }
            FaultClass::Drift => Fault::Drift {
                node,
                ppm: rng.range(0, 2 * DRIFT_PPM) as i64 - DRIFT_PPM as i64,
                ms,
            },
        })
    }

    /// A random split of some of the nodes and their peers.
    fn two_groups(&self, rng: &mut Rng) -> Option<(Vec<String>, Vec<String>)> {
        let mut all: Vec<String> = self.nodes.iter().chain(&self.peers).cloned().collect();
        rng.shuffle(&mut all);
        let keep = rng.range(2, all.len() as u64) as usize;
        all.truncate(keep);
        if all.len() < 2 {
            return None;
        }
        let cut = rng.range(1, all.len() as u64 - 1) as usize;
        let other = all.split_off(cut);
        Some((all, other))
    }

    fn other_than(&self, node: &str, rng: &mut Rng) -> Option<String> {
        let all = self.nodes.iter().chain(&self.peers);
        let others: Vec<&String> = all.filter(|other| *other != node).collect();
        rng.pick(&others).map(|other| (*other).clone())
    }

    /// Leaves out what would take too many nodes down at once.
    fn limit_down(&self, plan: Vec<TimedFault>) -> Vec<TimedFault> {
        let mut down: Vec<(u64, String)> = Vec::new();
        let mut kept = Vec::new();
        for timed in plan {
            let (node, until) = match &timed.fault {
                Fault::Kill { node, down_ms } | Fault::PowerOff { node, down_ms } => {
                    (node.clone(), timed.at_ms + down_ms)
                }
                // It dies some time after it was told to.
                Fault::CrashAtStep { node, down_ms, .. } => {
                    (node.clone(), timed.at_ms + down_ms + self.longest.as_millis() as u64)
                }
                _ => {
                    kept.push(timed);
                    continue;
                }
            };
            down.retain(|(end, _)| *end > timed.at_ms);
            if down.len() < self.max_down && down.iter().all(|(_, other)| *other != node) {
                down.push((until, node));
                kept.push(timed);
            }
        }
        kept
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Sim {
    /// Schedules every fault of a plan.
    ///
    /// # Errors
    /// The name of a node that does not exist; nothing is scheduled then.
    pub fn schedule_faults(&mut self, plan: &[TimedFault]) -> Result<(), String> {
        for timed in plan {
            for name in timed.fault.nodes() {
                self.find_node(name).ok_or_else(|| name.to_owned())?;
            }
        }
        for timed in plan {
            let fault = timed.fault.clone();
            self.at(ms(timed.at_ms), move |sim| sim.inject(&fault));
        }
        Ok(())
    }

    fn ids(&self, names: &[String]) -> Vec<NodeId> {
        names.iter().filter_map(|name| self.find_node(name)).collect()
    }

    /// Lets a fault happen now, and end when it should. A node that is down is left alone.
    pub fn inject(&mut self, fault: &Fault) {
        match fault {
            Fault::Partition { one, other, ms: length } => {
                let cut = self.partition(&self.ids(one), &self.ids(other));
                self.after(ms(*length), move |sim| sim.mend(cut));
            }
            Fault::PartitionOneWay { from, to, ms: length } => {
                let cut = self.partition_one_way(&self.ids(from), &self.ids(to));
                self.after(ms(*length), move |sim| sim.mend(cut));
            }
            Fault::Clog { from, to, ms: length } => {
                let cut = self.clog(&self.ids(from), &self.ids(to));
                self.after(ms(*length), move |sim| sim.mend(cut));
            }
            Fault::SlowLink { one, other, extra_ms, factor, ms: length } => {
                let (one, other) = (self.ids(one), self.ids(other));
                let cut = self.slow_link(&one, &other, ms(*extra_ms), *factor);
                self.after(ms(*length), move |sim| sim.mend(cut));
            }
            Fault::Reset { one, other, percent } => {
                if let (Some(one), Some(other)) = (self.find_node(one), self.find_node(other)) {
                    self.reset_connections(one, other, *percent);
                }
            }
            Fault::Silence { one, other, percent } => {
                if let (Some(one), Some(other)) = (self.find_node(one), self.find_node(other)) {
                    self.silence_connections(one, other, *percent);
                }
            }
            of_one => {
                if let Some(id) = of_one.nodes().first().and_then(|name| self.find_node(name)) {
                    self.inject_into(id, of_one);
                }
            }
        }
    }

    fn inject_into(&mut self, id: NodeId, fault: &Fault) {
        match fault {
            Fault::Kill { down_ms, .. } if self.is_up(id) => {
                self.kill(id);
                self.restart_after(id, ms(*down_ms));
            }
            Fault::PowerOff { down_ms, .. } if self.state(id) != NodeState::Off => {
                self.power_off(id);
                self.restart_after(id, ms(*down_ms));
            }
            Fault::CrashAtStep { steps, power, down_ms, .. } if self.is_up(id) => {
                self.crash_after(id, *steps, *power, Some(ms(*down_ms)));
            }
            Fault::Pause { ms: length, .. } => {
                self.pause(id);
                self.after(ms(*length), move |sim| sim.resume(id));
            }
            Fault::DiskFail { op, one_in, path, ms, .. } => {
                let fault = DiskFault::Fail { op: *op, one_in: *one_in, path: path.clone() };
                self.disk_fault(id, fault, *ms);
            }
            Fault::DiskLie { path, ms, .. } => {
                self.disk_fault(id, DiskFault::Lie { path: path.clone() }, *ms);
            }
            Fault::DiskSlow { factor, path, ms, .. } => {
                let fault = DiskFault::Slow { factor: *factor, path: path.clone() };
                self.disk_fault(id, fault, *ms);
            }
            Fault::DiskStuck { path, ms: length, .. } => {
                let fault = DiskFault::Stuck { limit: ms(*length), path: path.clone() };
                self.disk_fault(id, fault, *length);
            }
            Fault::DiskFull { path, ms, .. } => {
                self.disk_fault(id, DiskFault::Full { path: path.clone() }, *ms);
            }
            Fault::WriteBack { .. } => self.disk(id).write_back(),
            Fault::BitFlip { path, files, spare, .. } => {
                let now = self.now().as_nanos() as u64;
                let mut rng = Rng::stream(self.seed(), self.name(id), "bit flip", now);
                let hit = self.disk(id).flip_bits(path, *files, *spare, &mut rng);
                tracing::info!(node = self.name(id), ?hit, "bits flipped");
            }
            Fault::SlowCpu { percent, ms: length, .. } => {
                self.slow_cpu(id, *percent);
                self.after(ms(*length), move |sim| sim.slow_cpu(id, 100));
            }
            Fault::FdLimit { limit, ms: length, .. } => {
                self.limit_fds(id, Some(*limit));
                self.after(ms(*length), move |sim| sim.limit_fds(id, None));
            }
            Fault::WallStep { by_ms, .. } => {
                self.step_wall(id, ms(by_ms.unsigned_abs()), *by_ms < 0);
            }
            Fault::Drift { ppm, ms: length, .. } => {
                self.drift(id, *ppm);
                self.after(ms(*length), move |sim| sim.drift(id, 0));
            }
            _ => {}
        }
    }

    fn disk_fault(&mut self, id: NodeId, fault: DiskFault, length: u64) {
        let fault = self.disk(id).add_fault(fault);
        self.after(ms(length), move |sim| sim.disk(id).remove_fault(fault));
    }

    /// Ends everything that goes wrong: links, disks, clocks, CPUs and limits are good again, paused nodes go on, and
    /// nodes that are down start within a second. What is lost or damaged stays so. The liveness phase of a run
    /// begins with this.
    pub fn heal(&mut self) {
        self.heal_network();
        self.crash_modes.clear();
        for id in self.node_ids() {
            let disk = self.disk(id);
            disk.heal();
            disk.never_crash();
            self.slow_cpu(id, 100);
            self.limit_fds(id, None);
            self.drift(id, 0);
            self.resume(id);
            if !self.is_up(id) && self.wanted(id) {
                let delay = self.stream(self.name(id), "heal", 0).range(0, 1000);
                self.restart_after(id, ms(delay));
            }
        }
    }
}

impl Fault {
    /// How long it lasts, in ms, where it does.
    pub(super) fn length_mut(&mut self) -> Option<&mut u64> {
        match self {
            Self::Kill { down_ms: ms, .. }
            | Self::PowerOff { down_ms: ms, .. }
            | Self::CrashAtStep { down_ms: ms, .. }
            | Self::Pause { ms, .. }
            | Self::Partition { ms, .. }
            | Self::PartitionOneWay { ms, .. }
            | Self::Clog { ms, .. }
            | Self::SlowLink { ms, .. }
            | Self::DiskFail { ms, .. }
            | Self::DiskLie { ms, .. }
            | Self::DiskSlow { ms, .. }
            | Self::DiskStuck { ms, .. }
            | Self::DiskFull { ms, .. }
            | Self::SlowCpu { ms, .. }
            | Self::FdLimit { ms, .. }
            | Self::Drift { ms, .. } => Some(ms),
            Self::Reset { .. }
            | Self::Silence { .. }
            | Self::BitFlip { .. }
            | Self::WriteBack { .. }
            | Self::WallStep { .. } => None,
        }
    }

    /// The part of paths that it is about, where it is about files of a node.
    pub fn path_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::DiskFail { path, .. }
            | Self::DiskLie { path, .. }
            | Self::DiskSlow { path, .. }
            | Self::DiskStuck { path, .. }
            | Self::DiskFull { path, .. }
            | Self::BitFlip { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Names of the nodes concerned.
    pub fn nodes(&self) -> Vec<&str> {
        match self {
            Self::Partition { one, other, .. } | Self::SlowLink { one, other, .. } => {
                one.iter().chain(other).map(String::as_str).collect()
            }
            Self::PartitionOneWay { from, to, .. } | Self::Clog { from, to, .. } => {
                from.iter().chain(to).map(String::as_str).collect()
            }
            Self::Reset { one, other, .. } | Self::Silence { one, other, .. } => vec![one, other],
            Self::Kill { node, .. }
            | Self::PowerOff { node, .. }
            | Self::WriteBack { node }
            | Self::CrashAtStep { node, .. }
            | Self::Pause { node, .. }
            | Self::DiskFail { node, .. }
            | Self::DiskLie { node, .. }
            | Self::DiskSlow { node, .. }
            | Self::DiskStuck { node, .. }
            | Self::DiskFull { node, .. }
            | Self::BitFlip { node, .. }
            | Self::SlowCpu { node, .. }
            | Self::FdLimit { node, .. }
            | Self::WallStep { node, .. }
            | Self::Drift { node, .. } => vec![node],
        }
    }
}
