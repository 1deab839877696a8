//! The arithmetic of a comparison: medians of ratios, their range, the verdict, the table.

use serde_json::Value;
use std::fmt::Write;
use std::str::FromStr;

/// Ratios that range further than this share of their median allow no verdict.
pub const RANGE_MAX: f64 = 0.15;
/// The same for the control, whose cost should not change at all.
pub const CONTROL_RANGE_MAX: f64 = 0.10;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reads of one record.
    Get,
    /// Writes of one record.
    Set,
}

impl Work {
    /// Name in flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
        }
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "get" => Ok(Self::Get),
            "set" => Ok(Self::Set),
            other => Err(format!("{other:?} is neither get nor set")),
        }
    }
}

/// Connections and requests in flight on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Requests in flight per connection.
    pub in_flight: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not CONNECTIONSxIN_FLIGHT, such as 64x16");
        let (connections, in_flight) = text.split_once('x').ok_or_else(bad)?;
        let number = |text: &str| text.parse().ok().filter(|&n| n > 0).ok_or_else(bad);
        Ok(Self { connections: number(connections)?, in_flight: number(in_flight)? })
    }
}

/// One turn of one contender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// Server CPU microseconds per operation.
    pub cpu: f64,
    /// Operations per second.
    pub rate: f64,
    /// Median latency, microseconds.
    pub p50: f64,
    /// 99th percentile, microseconds.
    pub p99: f64,
    /// Errors, misses and wrong values.
    pub faults: u64,
}

impl Measure {
    /// Takes the figures out of a run's report.
    ///
    /// # Errors
    /// When one is missing.
    pub fn from_json(json: &Value) -> anyhow::Result<Self> {
        let number = |path: &str| {
            let value = json.pointer(path).and_then(Value::as_f64);
            value.ok_or_else(|| anyhow::anyhow!("it has no number at {path}"))
        };
        let kinds = json.get("kinds").and_then(Value::as_object);
        let kind = kinds.and_then(|kinds| kinds.keys().next()).map_or("", String::as_str);
        let sum = number("/errors_total")? + number("/misses")? + number("/wrong")?;
        Ok(Self {
            cpu: number("/server_cpu_us_per_op")?,
            rate: number("/ops_per_s")?,
            p50: number(&format!("/kinds/{kind}/latency_us/p50"))?,
            p99: number(&format!("/kinds/{kind}/latency_us/p99"))?,
            faults: sum as u64,
        })
    }
}

/// Middle, least and greatest of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one number.
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let (low, high) = (numbers[(numbers.len() - 1) / 2], numbers[numbers.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }

    /// How far they range, as a share of the median.
    pub fn range(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}

/// What is compared: how many copies each write makes, and where everything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Copies of every record.
    pub copies: usize,
    /// Servers and client share one CPU.
    pub one_core: bool,
}

/// What a goal is about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Goal {
    /// Most server CPU time per operation, as a multiple of Redis's.
    Cpu(f64),
    /// Fewest operations per second, as a multiple of Redis's.
    Rate(f64),
}

/// Product, peer and control in one workload.
#[derive(Debug, Clone)]
pub struct Cell {
    work: Work,
    size: usize,
    shape: Shape,
    goal: Option<Goal>,
    /// Per contender, the product first, then Redis, then the control: a measure per round.
    rounds: Vec<Vec<Measure>>,
}

/// The goal of a cell, for 100-byte values on 64 connections.
fn goal(work: Work, size: usize, shape: Shape, setting: Setting) -> Option<Goal> {
    if size != 100 || shape.connections != 64 {
        return None;
    }
    match (work, shape.in_flight, setting.copies, setting.one_core) {
        (Work::Get, 1, _, true) => Some(Goal::Cpu(1.8)),
        (Work::Get, 16, _, true) => Some(Goal::Cpu(2.5)),
        (Work::Set, 1, 1, true) => Some(Goal::Cpu(1.8)),
        (Work::Set, 16, 1, true) => Some(Goal::Cpu(2.2)),
        (Work::Set, 1, 3, true) => Some(Goal::Cpu(1.25)),
        (Work::Set, 16, 3, true) => Some(Goal::Cpu(1.0)),
        (Work::Set, 16, 3, false) => Some(Goal::Rate(1.5)),
        _ => None,
    }
}

impl Cell {
    /// An empty cell.
    pub fn new(work: Work, size: usize, shape: Shape, setting: Setting, contenders: usize) -> Self {
        let goal = goal(work, size, shape, setting);
        Self { work, size, shape, goal, rounds: vec![Vec::new(); contenders] }
    }

    /// Adds the next round's measure of a contender.
    pub fn add(&mut self, contender: usize, measure: Measure) {
        self.rounds[contender].push(measure);
    }

    fn median(&self, contender: usize, figure: impl Fn(&Measure) -> f64) -> f64 {
        let figures = self.rounds[contender].iter().map(figure).collect();
        Spread::of(figures).map_or(f64::NAN, |spread| spread.median)
    }

    /// Ratios of the product to Redis, round by round.
    pub fn ratios(&self, figure: impl Fn(&Measure) -> f64) -> Option<Spread> {
        let (ours, theirs) = (self.rounds.first()?, self.rounds.get(1)?);
        let ratio = |(a, b): (&Measure, &Measure)| figure(a) / figure(b);
        Spread::of(ours.iter().zip(theirs).map(ratio).collect())
    }

    /// What the rounds allow to say.
    pub fn verdict(&self) -> String {
        let faults: u64 = self.rounds.iter().flatten().map(|measure| measure.faults).sum();
        if faults > 0 {
            return format!("**invalid**: {faults} errors or misses");
        }
        let control = self.rounds.get(2).map(|c| c.iter().map(|measure| measure.cpu).collect());
        if let Some(control) = control.and_then(Spread::of)
            && control.range() > CONTROL_RANGE_MAX
        {
            return format!("no verdict: control ranges {:.0} %", control.range() * 100.0);
        }
        let figure = match self.goal {
            Some(Goal::Rate(_)) => |measure: &Measure| measure.rate,
            _ => |measure: &Measure| measure.cpu,
        };
        let Some(ratio) = self.ratios(figure) else { return "no rounds".into() };
        // Wherever the rounds range, all of them are on one side.
        let sure = |beyond: bool| if beyond { "met" } else { "**missed**" }.to_owned();
        match self.goal {
            Some(Goal::Cpu(most)) if ratio.max <= most || ratio.min > most => {
                return sure(ratio.max <= most);
            }
            Some(Goal::Rate(least)) if ratio.min >= least || ratio.max < least => {
                return sure(ratio.min >= least);
            }
            _ => {}
        }
        if ratio.range() > RANGE_MAX {
            return format!("no verdict: range {:.0} %", ratio.range() * 100.0);
        }
        match self.goal {
            None => String::new(),
            Some(Goal::Cpu(most)) => sure(ratio.median <= most),
            Some(Goal::Rate(least)) => sure(ratio.median >= least),
        }
    }

    fn name(&self) -> String {
        let Shape { connections, in_flight } = self.shape;
        format!("{} {} B {connections} x {in_flight}", self.work.name(), self.size)
    }

    /// One line for who waits.
    pub fn line(&self) -> String {
        let ratio = self.ratios(|m| m.cpu).map_or(f64::NAN, |spread| spread.median);
        format!(
            "{:<18} {:>7.2} us/op, redis {:>6.2}, ratio {ratio:.2} {}",
            self.name(),
            self.median(0, |m| m.cpu),
            self.median(1, |m| m.cpu),
            self.verdict()
        )
    }

    fn row(&self) -> String {
        let spread = |s: Option<Spread>| {
            s.map_or(String::new(), |s| format!("{:.2} ({:.2}-{:.2})", s.median, s.min, s.max))
        };
        let latency = |contender| {
            let (p50, p99) = (self.median(contender, |m| m.p50), self.median(contender, |m| m.p99));
            format!("{p50:.0} / {p99:.0}")
        };
        let mut row = format!(
            "| {} | {} | {} x {} | {:.2} | {:.2} | {} | {} | {} | {:.0} | {:.0} | {} | {} | {} |",
            self.work.name(),
            self.size,
            self.shape.connections,
            self.shape.in_flight,
            self.median(0, |m| m.cpu),
            self.median(1, |m| m.cpu),
            spread(self.ratios(|m| m.cpu)),
            match self.goal {
                None => String::new(),
                Some(Goal::Cpu(most)) => format!("<= {most}"),
                Some(Goal::Rate(least)) => format!(">= {least} ops/s"),
            },
            self.verdict(),
            self.median(0, |m| m.rate),
            self.median(1, |m| m.rate),
            spread(self.ratios(|m| m.rate)),
            latency(0),
            latency(1),
        );
        if self.rounds.len() > 2 {
            let cpu = self.median(2, |m| m.cpu);
            let _ = match cpu.is_nan() {
                true => write!(row, "  |"),
                false => write!(row, " {cpu:.2} |"),
            };
        }
        row
    }
}

/// The table, with a paragraph above it.
pub fn markdown(cells: &[Cell], header: &str) -> String {
    let control = cells.iter().any(|cell| cell.rounds.len() > 2);
    let mut out = format!("{header}\n\n");
    let columns = [
        "op",
        "bytes",
        "conns x in flight",
        "CPU us/op",
        "redis",
        "ratio (min-max)",
        "goal",
        "verdict",
        "ops/s",
        "redis",
        "ratio (min-max)",
        "p50 / p99 us",
        "redis",
    ];
    let mut line = format!("| {} |", columns.join(" | "));
    let mut rule = "|---".repeat(columns.len()) + "|";
    if control {
        line += " control CPU us/op |";
        rule += "---|";
    }
    let _ = writeln!(out, "{line}\n{rule}");
    for cell in cells {
        let _ = writeln!(out, "{}", cell.row());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn measure(cpu: f64) -> Measure {
        Measure { cpu, rate: 1e6 / cpu, p50: 10.0, p99: 20.0, faults: 0 }
    }

    const SINGLE: Setting = Setting { copies: 1, one_core: true };

    fn cell(work: Work, rounds: &[(f64, f64)]) -> Cell {
        let mut cell = Cell::new(work, 100, "64x16".parse().unwrap(), SINGLE, 2);
        for (ours, theirs) in rounds {
            cell.add(0, measure(*ours));
            cell.add(1, measure(*theirs));
        }
        cell
    }

    #[test]
    fn shapes_and_works() {
        assert_eq!("64x16".parse(), Ok(Shape { connections: 64, in_flight: 16 }));
        for bad in ["64", "x", "0x1", "1x0", "64x16x2", "-1x1"] {
            assert!(bad.parse::<Shape>().is_err(), "{bad}");
        }
        assert_eq!("set".parse(), Ok(Work::Set));
        assert!("put".parse::<Work>().is_err());
    }

    #[test]
    fn medians() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(spread.range(), 1.0);
        assert_eq!(Spread::of(vec![]), None);
    }

    #[test]
    fn only_ratios_of_one_round_count() {
        // The machine is three times slower in the second round; the ratio does not move.
        let cell = cell(Work::Get, &[(4.0, 2.0), (12.0, 6.0), (4.1, 2.0)]);
        let ratio = cell.ratios(|m| m.cpu).unwrap();
        assert_eq!((ratio.median, ratio.min), (2.0, 2.0));
        assert_eq!(cell.verdict(), "met");
    }

    #[test]
    fn verdicts() {
        assert_eq!(cell(Work::Set, &[(4.6, 2.0), (4.7, 2.0), (4.5, 2.0)]).verdict(), "**missed**");
        let wide = cell(Work::Get, &[(4.0, 2.0), (5.2, 2.0), (4.8, 2.0)]);
        assert_eq!(wide.verdict(), "no verdict: range 25 %");
        let sure = cell(Work::Get, &[(3.0, 2.0), (4.0, 2.0), (4.0, 2.0)]);
        assert_eq!(sure.verdict(), "met", "in every round");
        let mut fast = Cell::new(
            Work::Set,
            100,
            "64x16".parse().unwrap(),
            Setting { copies: 3, one_core: false },
            2,
        );
        fast.add(0, measure(2.0));
        fast.add(1, measure(3.1));
        assert_eq!(fast.verdict(), "met", "1.55 times the operations per second");
        fast.add(0, measure(3.0));
        fast.add(1, measure(3.0));
        assert_eq!(fast.verdict(), "no verdict: range 43 %");
        let mut faulty = cell(Work::Get, &[(4.0, 2.0)]);
        faulty.add(1, Measure { faults: 3, ..measure(2.0) });
        assert_eq!(faulty.verdict(), "**invalid**: 3 errors or misses");
        let mut moody = Cell::new(Work::Get, 100, "64x1".parse().unwrap(), SINGLE, 3);
        for control in [1.0, 1.2, 1.0] {
            moody.add(0, measure(4.0));
            moody.add(1, measure(3.0));
            moody.add(2, measure(control));
        }
        assert_eq!(moody.verdict(), "no verdict: control ranges 20 %");
    }

    #[test]
    fn the_table_has_as_many_fields_in_every_line() {
        let mut with_control = Cell::new(Work::Set, 1000, "1x1".parse().unwrap(), SINGLE, 3);
        with_control.add(0, measure(4.0));
        with_control.add(1, measure(3.0));
        let text = markdown(&[with_control], "Machine.");
        let fields: Vec<usize> =
            text.lines().skip(2).map(|line| line.matches('|').count()).collect();
        assert_eq!(fields, [15, 15, 15], "{text}");
        let text = markdown(&[cell(Work::Get, &[(4.0, 2.0)])], "Machine.");
        let fields: Vec<usize> =
            text.lines().skip(2).map(|line| line.matches('|').count()).collect();
        assert_eq!(fields, [14, 14, 14], "{text}");
        assert!(text.contains("| 2.00 (2.00-2.00) | <= 2.5 | met |"), "{text}");
    }

    #[test]
    fn figures_come_from_the_report_of_a_run() {
        let mut report = json!({
            "server_cpu_us_per_op": 3.5, "ops_per_s": 1000.0, "errors_total": 1, "misses": 2,
            "wrong": 0, "kinds": { "get": { "latency_us": { "p50": 7.0, "p99": 9.0 } } },
        });
        let wanted = Measure { cpu: 3.5, rate: 1000.0, p50: 7.0, p99: 9.0, faults: 3 };
        assert_eq!(Measure::from_json(&report).unwrap(), wanted);
        report["server_cpu_us_per_op"] = Value::Null;
        let error = Measure::from_json(&report).unwrap_err().to_string();
        assert!(error.contains("/server_cpu_us_per_op"), "{error}");
    }
}
