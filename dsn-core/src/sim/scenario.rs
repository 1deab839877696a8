//! A case: seed, length, knobs and faults, as a value and as TOML. What a failing run is shrunk to and kept as.
//!
//! ```toml
//! seed = 42
//! duration_ms = 20000
//!
//! [knobs]
//! "net.latency_percent" = 1000
//!
//! [[faults]]
//! at_ms = 2500
//! kind = "kill"
//! node = "replica1"
//! down_ms = 300
//! ```
//!
//! A knob that is not named has its default. Tests add knobs of their own to [`CORE_KNOBS`]: operations per second,
//! size of log segments, whatever makes rare paths common when it is extreme.

use super::fault::{PlanSpec, TimedFault};
use super::options::SimOptions;
use crate::rng::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Something to turn: its default, and the extremes that a seed may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knob {
    /// Dotted name.
    pub name: &'static str,
    /// Value when nobody turns it.
    pub default: u64,
    /// Values to choose from.
    pub extremes: &'static [u64],
}

/// Knobs of the simulator itself, see [`Scenario::options`].
pub const CORE_KNOBS: &[Knob] = &[
    Knob { name: "net.latency_percent", default: 100, extremes: &[10, 1_000, 20_000] },
    Knob { name: "net.window", default: 256 << 10, extremes: &[512, 8 << 10, 64 << 10] },
    Knob { name: "net.split_one_in", default: 8, extremes: &[0, 1] },
    Knob { name: "net.short_write_one_in", default: 64, extremes: &[0, 2] },
    Knob { name: "net.spurious_one_in", default: 64, extremes: &[0, 2] },
    Knob { name: "net.backlog", default: 1024, extremes: &[1, 8] },
    Knob { name: "net.send_timeout_ms", default: 900_000, extremes: &[2_000, 20_000] },
    Knob { name: "net.keepalive_ms", default: 120_000, extremes: &[1_000, 10_000] },
    Knob { name: "cpu.event_percent", default: 100, extremes: &[10, 1_000, 20_000] },
    Knob { name: "cpu.hop_percent", default: 100, extremes: &[1, 10_000] },
    Knob { name: "cpu.stall_one_in", default: 200_000, extremes: &[0, 2_000] },
    Knob { name: "disk.sync_percent", default: 100, extremes: &[5, 2_000] },
    Knob { name: "disk.write_percent", default: 100, extremes: &[10, 5_000] },
    Knob { name: "pool.job_percent", default: 100, extremes: &[10, 10_000] },
];

/// See the module's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Seed of everything that is not listed here.
    pub seed: u64,
    /// Virtual length of the part with faults and load, in ms.
    pub duration_ms: u64,
    /// Knobs that are not at their default.
    #[serde(default)]
    pub knobs: BTreeMap<String, u64>,
    /// Faults, by time.
    #[serde(default)]
    pub faults: Vec<TimedFault>,
}

/// A scenario's text is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scenario: {0}")]
pub struct BadScenario(String);

impl Scenario {
    /// The scenario of a seed: each knob is turned with odds of one half, faults as the plan has them.
    pub fn draw(seed: u64, duration: Duration, knobs: &[&[Knob]], plan: &PlanSpec) -> Self {
        let mut turned = BTreeMap::new();
        for knob in knobs.iter().copied().flatten() {
            let mut rng = Rng::stream(seed, "knob", knob.name, 0);
            if rng.ratio(1, 2)
                && let Some(&value) = rng.pick(knob.extremes)
            {
                turned.insert(knob.name.to_owned(), value);
            }
        }
        let duration_ms = duration.as_millis() as u64;
        Self { seed, duration_ms, knobs: turned, faults: plan.draw(seed) }
    }

    /// A quiet scenario: no knob turned, no fault.
    pub fn quiet(seed: u64, duration: Duration) -> Self {
        let duration_ms = duration.as_millis() as u64;
        Self { seed, duration_ms, knobs: BTreeMap::new(), faults: Vec::new() }
    }

    /// Length of the part with faults and load.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.duration_ms)
    }

    /// The value of a knob.
    pub fn knob(&self, knob: &Knob) -> u64 {
        self.knobs.get(knob.name).copied().unwrap_or(knob.default)
    }

    fn core(&self, name: &str) -> u64 {
        let knob = CORE_KNOBS.iter().find(|knob| knob.name == name);
        knob.map_or(0, |knob| self.knob(knob))
    }

    /// The world that the simulator's own knobs describe.
    pub fn options(&self) -> SimOptions {
        let mut options = SimOptions::default();
        let net = &mut options.net;
        net.latency = net.latency.scaled(self.core("net.latency_percent"));
        net.window = self.core("net.window") as usize;
        net.split_one_in = self.core("net.split_one_in");
        net.short_write_one_in = self.core("net.short_write_one_in");
        net.spurious_one_in = self.core("net.spurious_one_in");
        net.backlog = self.core("net.backlog") as usize;
        net.send_timeout = Duration::from_millis(self.core("net.send_timeout_ms"));
        net.keepalive = Duration::from_millis(self.core("net.keepalive_ms"));
        options.event_cost = options.event_cost.scaled(self.core("cpu.event_percent"));
        options.hop = options.hop.scaled(self.core("cpu.hop_percent"));
        options.stall_one_in = self.core("cpu.stall_one_in");
        options.job_cost = options.job_cost.scaled(self.core("pool.job_percent"));
        options.disk.sync = options.disk.sync.scaled(self.core("disk.sync_percent"));
        options.disk.write = options.disk.write.scaled(self.core("disk.write_percent"));
        options
    }

    /// From its TOML form.
    ///
    /// # Errors
    /// What does not fit, with its line.
    pub fn from_toml(text: &str) -> Result<Self, BadScenario> {
        let mut scenario: Self =
            toml::from_str(text).map_err(|error| BadScenario(error.to_string()))?;
        scenario.faults.sort_by_key(|fault| fault.at_ms);
        Ok(scenario)
    }

    /// Its TOML form.
    pub fn to_toml(&self) -> String {
        // All its types have a TOML form; numbers fit because times and sizes are far below 2^63.
        toml::to_string(self).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_toml())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Fault, FaultClass};

    pub(crate) fn plan() -> PlanSpec {
        let second = Duration::from_secs(1);
        PlanSpec {
            nodes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            peers: vec!["client".to_owned()],
            damageable: vec!["c".to_owned()],
            classes: FaultClass::ALL.map(|class| (class, second * 3)).to_vec(),
            paths: vec!["log".to_owned(), String::new()],
            flips: vec![("log".to_owned(), 4096)],
            from: second,
            to: second * 60,
            max_down: 1,
            longest: second * 5,
        }
    }

    #[test]
    fn every_fault_survives_its_text() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..40 {
            println!("seed {seed}");
            let scenario = Scenario::draw(seed, Duration::from_secs(60), &[CORE_KNOBS], &plan());
            let text = scenario.to_toml();
            assert_eq!(Scenario::from_toml(&text).unwrap(), scenario, "{text}");
            kinds.extend(
                scenario
                    .faults
                    .iter()
                    .map(|f| std::mem::discriminant(&f.fault))
                    .map(|kind| format!("{kind:?}")),
            );
        }
        assert_eq!(kinds.len(), 18 + 1, "every kind that a plan draws was drawn: {kinds:?}");
        let error = Scenario::from_toml("seed = 1\nduration_ms = 2\nfoo = 3").unwrap_err();
        assert!(error.to_string().contains("foo"), "{error}");
    }

    #[test]
    fn classes_do_not_disturb_each_other() {
        let all = plan().draw(7);
        let mut fewer = plan();
        fewer.classes.retain(|(class, _)| *class != FaultClass::Clog);
        let without: Vec<TimedFault> = all
            .into_iter()
            .filter(|f| !matches!(f.fault, Fault::Clog { .. } | Fault::SlowLink { .. }))
            .collect();
        assert_eq!(fewer.draw(7), without);
    }

    #[test]
    fn not_more_nodes_are_down_than_allowed() {
        for seed in 0..50 {
            println!("seed {seed}");
            let mut until: Vec<u64> = Vec::new();
            for timed in plan().draw(seed) {
                if let Fault::Kill { down_ms, .. } | Fault::PowerOff { down_ms, .. } = timed.fault {
                    until.retain(|end| *end > timed.at_ms);
                    until.push(timed.at_ms + down_ms);
                    assert_eq!(until.len(), 1);
                }
            }
        }
    }

    #[test]
    fn knobs_turn_options() {
        let mut scenario = Scenario::quiet(1, Duration::from_secs(1));
        assert_eq!(scenario.options().net.window, SimOptions::default().net.window);
        for knob in CORE_KNOBS {
            assert_eq!(scenario.core(knob.name), knob.default);
        }
        scenario.knobs.insert("net.window".to_owned(), 512);
        assert_eq!(scenario.options().net.window, 512);
    }
}
