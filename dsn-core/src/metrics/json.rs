//! Metrics as JSON, in the form of Pegasus's `/metrics`.
//!
//! `{"cluster","role","host","port","timestamp_ns","entities":[{"type","id","attributes","metrics":
//! [{"name","value"} or {"name","p50","p90","p95","p99","p999"}]}]}`; with `detail` each metric also has
//! `type`, `unit` and `desc`.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{EntitySnapshot, Filters, KNOWN_PERCENTILES, MetricSnapshot, ValueSnapshot};
use crate::time::Wall;

/// Which server the metrics are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The cluster's name.
    pub cluster: String,
    /// What the server is: `replica`, `meta`.
    pub role: String,
    /// Its host name.
    pub host: String,
    /// Its first port.
    pub port: u16,
}

/// The answer of `/metrics`. Volatile counters start again from zero.
pub fn json(labels: &Labels, at: Wall, entities: &[EntitySnapshot], filters: &Filters) -> String {
    let document = Document { labels, at, entities, filters };
    // Strings and numbers only: there is nothing that could fail to become JSON.
    serde_json::to_string(&document).unwrap_or_default()
}

struct Document<'a> {
    labels: &'a Labels,
    at: Wall,
    entities: &'a [EntitySnapshot],
    filters: &'a Filters,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("cluster", &self.labels.cluster)?;
        map.serialize_entry("role", &self.labels.role)?;
        map.serialize_entry("host", &self.labels.host)?;
        map.serialize_entry("port", &self.labels.port)?;
        map.serialize_entry("timestamp_ns", &self.at.unix_nanos())?;
        map.serialize_entry(
            "entities",
            &List(self.entities, |entity| EntityJson(entity, self.filters)),
        )?;
        map.end()
    }
}

struct List<'a, T, F>(&'a [T], F);

impl<'a, T, F: Fn(&'a T) -> J, J: Serialize> Serialize for List<'a, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|item| list.serialize_element(&self.1(item)))?;
        list.end()
    }
}

struct EntityJson<'a>(&'a EntitySnapshot, &'a Filters);

impl Serialize for EntityJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(entity, filters) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", entity.kind)?;
        map.serialize_entry("id", &entity.id)?;
        map.serialize_entry("attributes", &entity.attributes)?;
        map.serialize_entry(
            "metrics",
            &List(&entity.metrics, |metric| MetricJson(metric, filters)),
        )?;
        map.end()
    }
}

struct MetricJson<'a>(&'a MetricSnapshot, &'a Filters);

impl Serialize for MetricJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(metric, filters) = self;
        let definition = metric.definition;
        let mut map = serializer.serialize_map(None)?;
        if filters.chooses_field("type") {
            map.serialize_entry("type", definition.kind.name())?;
        }
        if filters.chooses_field("name") {
            map.serialize_entry("name", definition.name)?;
        }
        if filters.chooses_field("unit") {
            map.serialize_entry("unit", definition.unit)?;
        }
        if filters.chooses_field("desc") {
            map.serialize_entry("desc", &definition.description())?;
        }
        match &metric.value {
            ValueSnapshot::Percentile(snapshot) => {
                for ((name, _), value) in KNOWN_PERCENTILES.iter().zip(snapshot.values) {
                    if filters.chooses_field(name) {
                        map.serialize_entry(name, &value)?;
                    }
                }
            }
            _ if !filters.chooses_field("value") => {}
            ValueSnapshot::Counter(value) => map.serialize_entry("value", value)?,
            ValueSnapshot::Gauge(value) => map.serialize_entry("value", value)?,
            ValueSnapshot::VolatileCounter(counter) => {
                map.serialize_entry("value", &counter.take())?
            }
        }
        map.end()
    }
}
