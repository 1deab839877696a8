//! Commands to look into a running node: stages, codes, and the toollets.

use super::{FaultRule, Toollet};
use crate::code::{self, Code};
use crate::command::CommandReply;
use crate::config::{Config, CoreOptions, FaultOptions};
use crate::node::Node;
use std::fmt::Write;
use std::sync::Arc;

/// Rows that `tracer.find` shows when no number is given.
const FIND_DEFAULT: usize = 100;

/// Registers the commands of `node` and switches on what the configuration asks for.
///
/// # Errors
/// `[core] toollets` names one that does not exist.
pub fn install(node: &Arc<Node>) -> Result<(), String> {
    if let Some(config) = node.config() {
        switch_on(node, config)?;
        node.commands().add_config(config);
    }
    add(node, "toollet", "[name on|off]", "Shows or switches the toollets.", |node, arguments| {
        toollet(node, arguments)
    });
    add(node, "profiler", "[code part]", "Counts and times of events, by code.", |node, args| {
        profile(node, args.first().map_or("", String::as_str))
    });
    let purpose = "The last events of codes that contain a text.";
    add(node, "tracer.find", "<code part> [count]", purpose, |node, arguments| {
        let pattern = arguments.first().map_or("", String::as_str);
        let limit = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(FIND_DEFAULT);
        let mut text = String::new();
        for row in node.hooks().tracer.find(pattern, limit) {
            let _ = writeln!(
                text,
                "{:>16} ns  {:<40} {} after {} us",
                row.at.nanos(),
                row.code,
                row.what,
                row.waited.as_micros()
            );
        }
        text
    });
    add(node, "system.queue", "", "Stages, and what waits in them.", |node, _| queues(node));
    add(node, "engine", "", "Workers and what they own.", |node, _| engine(node));
    add(node, "task-code", "[part...]", "Codes with their effective policy.", |node, arguments| {
        codes(node, arguments)
    });
    Ok(())
}

fn add(
    node: &Arc<Node>,
    name: &str,
    arguments: &str,
    help: &str,
    f: impl Fn(&Node, &[String]) -> String + Send + Sync + 'static,
) {
    let weak = Arc::downgrade(node);
    node.commands().add(name, arguments, help, move |call| {
        let Some(node) = weak.upgrade() else { return CommandReply::done("") };
        CommandReply::done(f(&node, &call.arguments))
    });
}

fn switch_on(node: &Arc<Node>, config: &Config) -> Result<(), String> {
    let core: CoreOptions = config.section().map_err(|error| error.to_string())?;
    for name in &core.toollets {
        let toollet = Toollet::from_name(name)
            .ok_or_else(|| format!("[core] toollets: there is no toollet {name}"))?;
        node.hooks().switch(toollet, true);
    }
    set_faults(node, config);
    let (node, faults) = (Arc::downgrade(node), config.clone());
    config.on_any_change(move |option| {
        if let Some(node) = node.upgrade()
            && option.contains(".fault.")
        {
            set_faults(&node, &faults);
        }
    });
    Ok(())
}

/// Has the fault injector follow `[task.*.fault]` as it is now.
fn set_faults(node: &Node, config: &Config) {
    let mut rules = Vec::new();
    for code in code::registered() {
        let Ok(faults) = config.named::<FaultOptions>(code.name()) else { continue };
        let rule = rule(code, &faults);
        if rule.drop_ppm + rule.fail_ppm + rule.delay_ppm > 0 {
            rules.push(rule);
        }
    }
    node.hooks().injector.set(rules);
}

fn rule(code: Code, faults: &FaultOptions) -> FaultRule {
    let ppm = |p: f64| (p * 1_000_000.0) as u32;
    FaultRule {
        code: code.name().to_owned(),
        drop_ppm: ppm(faults.drop.get()),
        fail_ppm: ppm(faults.fail.get()),
        delay_ppm: ppm(faults.delay.get()),
        delay: (faults.delay_min.get(), faults.delay_max.get()),
    }
}

fn toollet(node: &Node, arguments: &[String]) -> String {
    if let [name, state] = arguments {
        let Some(toollet) = Toollet::from_name(name) else {
            return format!("there is no toollet {name}");
        };
        match state.as_str() {
            "on" => node.hooks().switch(toollet, true),
            "off" => node.hooks().switch(toollet, false),
            other => return format!("on or off, not {other}"),
        }
    }
    Toollet::ALL
        .iter()
        .map(|toollet| {
            let state = if node.hooks().has(*toollet) { "on" } else { "off" };
            format!("{}: {state}\n", toollet.name())
        })
        .collect()
}

fn profile(node: &Node, part: &str) -> String {
    let mut text = format!(
        "{:<44} {:>12} {:>12} {:>12} {:>12}\n",
        "code", "count", "wait us", "run us", "longest us"
    );
    for row in node.hooks().profiler.rows().iter().filter(|row| row.code.contains(part)) {
        let _ = writeln!(
            text,
            "{:<44} {:>12} {:>12.1} {:>12.1} {:>12.1}",
            row.code,
            row.count,
            row.queue_ns_mean as f64 / 1e3,
            row.exec_ns_mean as f64 / 1e3,
            row.exec_ns_max as f64 / 1e3
        );
    }
    text
}

fn queues(node: &Node) -> String {
    let mut text = format!("{:<32} {:>8} {:>10}  {}\n", "stage", "waiting", "admits", "executor");
    for stage in node.stages() {
        let _ = writeln!(
            text,
            "{:<32} {:>8} {:>10}  {:?}",
            stage.name(),
            stage.waiting(),
            stage.admits(),
            stage.executor()
        );
    }
    text
}

fn engine(node: &Node) -> String {
    let mut text = format!("{} ({})\n", node.name(), node.role());
    for index in 0..node.worker_count() {
        let worker = node.worker(crate::exec::WorkerId(index as u16));
        let running = worker.running().map_or("-", |(code, _)| code.name());
        let _ = writeln!(
            text,
            "worker {index}: {} residents, {} events in the mailbox, runs {running}",
            worker.residents(),
            worker.mailbox.len()
        );
    }
    let _ = writeln!(
        text,
        "events for residents that were gone {}, expired {}, slow {}, residents lost to panics {}",
        node.vanished(),
        node.expired(),
        node.slow(),
        node.poisoned()
    );
    text
}

fn codes(node: &Node, parts: &[String]) -> String {
    let mut text = String::new();
    let mut all = code::registered();
    all.sort_by_key(|code| code.name());
    for code in all {
        if !parts.is_empty() && !parts.iter().any(|part| code.name().contains(part.as_str())) {
            continue;
        }
        let spec = node.spec(code);
        let _ = writeln!(
            text,
            "{:<44} {:?} {:?} {} timeout {:?}",
            code.name(),
            code.kind(),
            spec.priority,
            node.stage(spec.stage).name(),
            spec.timeout
        );
    }
    text
}
