//! Metrics as text that Prometheus scrapes (exposition format 0.0.4).
//!
//! Names are those of the JSON form. Labels are the server's, the entity's type and id, and its
//! attributes; a percentile is a gauge with a `quantile` label.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{EntitySnapshot, KNOWN_PERCENTILES, Kind, Labels, MetricDef, ValueSnapshot};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Quantiles in the order of [`KNOWN_PERCENTILES`], as Prometheus writes them.
const QUANTILES: [&str; KNOWN_PERCENTILES.len()] = ["0.5", "0.9", "0.95", "0.99", "0.999"];

/// All samples, those of one metric together as the format wants it.
pub fn prometheus(labels: &Labels, entities: &[EntitySnapshot]) -> String {
    let mut by_name: BTreeMap<&str, (&MetricDef, String)> = BTreeMap::new();
    for entity in entities {
        let entity_labels = label_text(labels, entity);
        for metric in &entity.metrics {
            let definition = metric.definition;
            let (_, samples) =
                by_name.entry(definition.name).or_insert_with(|| (definition, String::new()));
            write_samples(samples, definition.name, &entity_labels, &metric.value);
        }
    }
    let mut text = String::new();
    for (name, (definition, samples)) in by_name {
        let kind = match definition.kind {
            Kind::Counter | Kind::VolatileCounter => "counter",
            Kind::Gauge | Kind::Percentile => "gauge",
        };
        let help = definition.description().replace('\\', "\\\\");
        let _ =
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{}", samples.trim_end());
    }
    text
}

fn write_samples(text: &mut String, name: &str, labels: &str, value: &ValueSnapshot) {
    let _ = match value {
        ValueSnapshot::Counter(value) => writeln!(text, "{name}{{{labels}}} {value}"),
        ValueSnapshot::VolatileCounter(counter) => {
            writeln!(text, "{name}{{{labels}}} {}", counter.total())
        }
        ValueSnapshot::Gauge(value) => writeln!(text, "{name}{{{labels}}} {value}"),
        ValueSnapshot::Percentile(snapshot) => {
            for (quantile, value) in QUANTILES.iter().zip(snapshot.values) {
                let _ = writeln!(text, "{name}{{{labels},quantile=\"{quantile}\"}} {value}");
            }
            Ok(())
        }
    };
}

fn label_text(labels: &Labels, entity: &EntitySnapshot) -> String {
    let mut text = format!(
        "cluster=\"{}\",role=\"{}\",host=\"{}\",port=\"{}\",entity=\"{}\",id=\"{}\"",
        escape(&labels.cluster),
        escape(&labels.role),
        escape(&labels.host),
        labels.port,
        escape(entity.kind),
        escape(&entity.id),
    );
    for (key, value) in &entity.attributes {
        let _ = write!(text, ",{}=\"{}\"", label_name(key), escape(value));
    }
    text
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// An attribute's name with everything replaced that a label's name may not have.
fn label_name(name: &str) -> String {
    let replaced = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let name: String = replaced.collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}
