//! What a person or a program gets to see of a run.

use crate::args::{Plan, Stop, Target};
use crate::engine::Outcome;
use crate::meter::Series;
use crate::procfs::Usage;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;

/// Percentiles that are reported, by name.
const PERCENTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999)];

/// A run and its counts.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// What was asked for.
    pub plan: &'a Plan,
    /// What came out.
    pub outcome: &'a Outcome,
}

/// Nanoseconds as microseconds, with a decimal where it says something.
pub fn micros(nanos: u64) -> String {
    let value = nanos as f64 / 1000.0;
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

impl Report<'_> {
    /// Operations that ended well within the window.
    pub fn ops(&self) -> u64 {
        self.outcome.meter.series().map(|(_, series)| series.ops).sum()
    }

    /// Operations that did not end well.
    pub fn errors(&self) -> u64 {
        self.outcome.meter.errors().values().sum()
    }

    /// Records that were missing and records that were not what was written.
    pub fn faults(&self) -> (u64, u64) {
        let add = |(missing, wrong), (_, series): (_, &Series)| {
            (missing + series.tally.missing, wrong + series.tally.wrong)
        };
        self.outcome.meter.series().fold((0, 0), add)
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.outcome.elapsed.as_secs_f64().max(1e-9)
    }

    fn cpu_per_op(&self, usage: &Usage) -> f64 {
        usage.cpu.as_secs_f64() * 1e6 / self.ops().max(1) as f64
    }

    /// CPU microseconds per operation of all watched processes together.
    fn servers_per_op(&self) -> Option<f64> {
        let servers = &self.outcome.servers;
        (!servers.is_empty()).then(|| servers.iter().map(|usage| self.cpu_per_op(usage)).sum())
    }

    fn name(&self) -> String {
        let plan = self.plan;
        let sizes: Vec<String> = plan.value_sizes.iter().map(ToString::to_string).collect();
        let kind = clap::ValueEnum::to_possible_value(&plan.operation);
        let kind = kind.as_ref().map_or("", |kind| kind.get_name());
        format!(
            "{kind} {} B, {} connections x {} in flight",
            sizes.join("/"),
            plan.connections,
            plan.in_flight
        )
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        if let Some(loaded) = self.outcome.loaded {
            let seconds = loaded.elapsed.as_secs_f64();
            let rate = loaded.records as f64 / seconds.max(1e-9);
            let _ = writeln!(
                out,
                "loaded {} records in {seconds:.2} s, {rate:.0} records/s",
                loaded.records
            );
        }
        if self.outcome.elapsed.is_zero() {
            return out;
        }
        let _ =
            writeln!(out, "{}, {}, {}", target_name(&self.plan.target), self.name(), self.mode());
        self.latency_table(&mut out);
        self.process_table(&mut out);
        for (name, count) in self.outcome.meter.errors() {
            let _ = writeln!(out, "error: {name}: {count}");
        }
        let outcome = self.outcome;
        if let Some(open_loop) = self.plan.open_loop {
            let _ = writeln!(
                out,
                "open loop: {} of {} intended sends missed (backlog limit {}), {} not sent in time, \
                 largest backlog {}",
                outcome.missed,
                (open_loop.rate * outcome.elapsed.as_secs_f64()).round(),
                open_loop.backlog,
                outcome.unsent,
                outcome.backlog_most
            );
        }
        if let Some(lag) = &outcome.meter.lag {
            let at = |quantile| micros(lag.value_at_quantile(quantile));
            let _ = writeln!(
                out,
                "open loop: sent after the intended time by p50 {} us, p99 {} us, at most {} us",
                at(0.5),
                at(0.99),
                micros(lag.max())
            );
        }
        let _ = writeln!(out, "{}", self.summary());
        out
    }

    fn mode(&self) -> String {
        match (self.plan.open_loop, self.plan.stop) {
            (Some(open_loop), _) => {
                format!("open loop at {}/s, latency from the intended send time", open_loop.rate)
            }
            (None, Stop::After(_)) => "closed loop".into(),
            (None, Stop::Operations(count)) => format!("closed loop, {count} operations"),
        }
    }

    fn latency_table(&self, out: &mut String) {
        let _ = write!(out, "{:<10}{:>11}{:>12}{:>9}", "", "ops", "ops/s", "errors");
        for title in ["mean", "P50", "P90", "P95", "P99", "P999", "P9999", "max us"] {
            let _ = write!(out, "{title:>10}");
        }
        out.push('\n');
        for (kind, series) in self.outcome.meter.series() {
            let rate = self.per_second(series.ops);
            let _ = write!(
                out,
                "{:<10}{:>11}{rate:>12.0}{:>9}{:>10}",
                kind.name(),
                series.ops,
                series.errors,
                micros(series.latency.mean() as u64)
            );
            for (_, quantile) in PERCENTILES {
                let _ = write!(out, "{:>10}", micros(series.latency.value_at_quantile(quantile)));
            }
            let _ = writeln!(out, "{:>10}", micros(series.latency.max()));
        }
    }

    fn process_table(&self, out: &mut String) {
        let own = self.outcome.own.iter().map(|usage| ("this client", usage));
        let servers = self.outcome.servers.iter().map(|usage| (usage.name.as_str(), usage));
        let ops = self.ops().max(1) as f64;
        let _ = writeln!(
            out,
            "{:<18}{:>8}{:>14}{:>9}{:>14}{:>14}{:>10}{:>9}",
            "process", "pid", "cpu us/op", "cpu %", "waits/op", "preempts/op", "MiB", "threads"
        );
        for (name, usage) in servers.chain(own) {
            let share = usage.cpu.as_secs_f64() / self.outcome.elapsed.as_secs_f64() * 100.0;
            let _ = writeln!(
                out,
                "{name:<18}{:>8}{:>14}{share:>9.1}{:>14.4}{:>14.4}{:>10.1}{:>9}",
                usage.pid,
                format!("{}{:.2}", if usage.exact { "" } else { "~" }, self.cpu_per_op(usage)),
                usage.voluntary as f64 / ops,
                usage.involuntary as f64 / ops,
                usage.rss as f64 / f64::from(1 << 20),
                usage.threads
            );
        }
    }

    /// Everything that matters in one line.
    pub fn summary(&self) -> String {
        let (missing, wrong) = self.faults();
        let mut all = crate::meter::latencies();
        for (_, series) in self.outcome.meter.series() {
            // Equal bounds: adding cannot fail.
            let _ = all.add(&series.latency);
        }
        let at = |quantile| micros(all.value_at_quantile(quantile));
        let mut line = format!(
            "{}: {:.0} ops/s, p50 {} us, p99 {} us, p999 {} us, errors {}, misses {missing}, \
             wrong {wrong}",
            self.name(),
            self.per_second(self.ops()),
            at(0.5),
            at(0.99),
            at(0.999),
            self.errors(),
        );
        if let Some(cpu) = self.servers_per_op() {
            let _ = write!(line, ", server {cpu:.2} us/op");
        }
        if let Some(own) = &self.outcome.own {
            let _ = write!(line, ", client {:.2} us/op", self.cpu_per_op(own));
        }
        line
    }

    /// The same for programs. Times are in the unit that the name ends with.
    pub fn json(&self) -> Value {
        let (missing, wrong) = self.faults();
        let outcome = self.outcome;
        let mut kinds = serde_json::Map::new();
        for (kind, series) in outcome.meter.series() {
            kinds.insert(kind.name().into(), self.series_json(series));
        }
        let usage_json = |usage: &Usage| {
            json!({
                "pid": usage.pid,
                "name": usage.name,
                "cpu_s": usage.cpu.as_secs_f64(),
                "cpu_exact": usage.exact,
                "cpu_us_per_op": self.cpu_per_op(usage),
                "voluntary_switches": usage.voluntary,
                "involuntary_switches": usage.involuntary,
                "rss_bytes": usage.rss,
                "threads": usage.threads,
            })
        };
        json!({
            "target": target_name(&self.plan.target),
            "name": self.name(),
            "connections": self.plan.connections,
            "in_flight": self.plan.in_flight,
            "value_sizes": self.plan.value_sizes,
            "records": self.plan.records,
            "seed": self.plan.seed,
            "rate": self.plan.open_loop.map(|open_loop| open_loop.rate),
            "loaded": outcome.loaded.map(|loaded| json!({
                "records": loaded.records,
                "elapsed_s": loaded.elapsed.as_secs_f64(),
            })),
            "elapsed_s": outcome.elapsed.as_secs_f64(),
            "ops": self.ops(),
            "ops_per_s": self.per_second(self.ops()),
            "errors": outcome.meter.errors(),
            "errors_total": self.errors(),
            "misses": missing,
            "wrong": wrong,
            "missed_sends": outcome.missed,
            "unsent": outcome.unsent,
            "send_lag_us": outcome.meter.lag.as_ref().map(latency_json),
            "backlog_most": outcome.backlog_most,
            "unanswered": outcome.unanswered,
            "kinds": kinds,
            "servers": outcome.servers.iter().map(usage_json).collect::<Vec<_>>(),
            "server_cpu_us_per_op": self.servers_per_op(),
            "client": outcome.own.as_ref().map(usage_json),
        })
    }

    fn series_json(&self, series: &Series) -> Value {
        json!({
            "ops": series.ops,
            "ops_per_s": self.per_second(series.ops),
            "errors": series.errors,
            "records": series.tally.found,
            "misses": series.tally.missing,
            "wrong": series.tally.wrong,
            "latency_us": latency_json(&series.latency),
        })
    }
}

fn latency_json(latency: &Histogram<u64>) -> Value {
    let us = |nanos: f64| (nanos / 10.0).round() / 100.0;
    let mut map = serde_json::Map::new();
    map.insert("count".into(), latency.len().into());
    map.insert("min".into(), us(latency.min() as f64).into());
    map.insert("mean".into(), us(latency.mean()).into());
    for (name, quantile) in PERCENTILES {
        map.insert(name.into(), us(latency.value_at_quantile(quantile) as f64).into());
    }
    map.insert("max".into(), us(latency.max() as f64).into());
    map.into()
}

fn target_name(target: &Target) -> String {
    match target {
        Target::Redis { server, wait: 0 } => format!("redis {server}"),
        Target::Redis { server, wait } => format!("redis {server}, writes on {wait} replicas"),
        Target::Pegasus { table, .. } => format!("pegasus table {table}"),
    }
}
