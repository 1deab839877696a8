//! Metrics: numbers about the server, by entity.
//!
//! The model is Pegasus's. An *entity* is something that has metrics: the server, a replica, a table, a
//! disk, a queue. It has a type, an id and attributes. A *metric* of it is a [`Counter`], a
//! [`VolatileCounter`], a [`Gauge`] or a [`Percentile`]. Each node has a [`Registry`] of its own.
//!
//! [`metrics!`](crate::metrics!) declares the metrics of a kind of entity as a struct with a field for
//! each; the field is a handle, and updating it costs one relaxed atomic operation:
//!
//! ```
//! use dsn_core::metrics::{Filters, Labels, Registry, json};
//! use dsn_core::time::{Mono, Wall};
//!
//! dsn_core::metrics! {
//!     /// What a kettle tells.
//!     pub struct KettleMetrics on "kettle" {
//!         /// How often water boiled.
//!         boils: Counter, Times;
//!         /// How hot it is.
//!         temperature: Gauge, Degrees;
//!     }
//! }
//!
//! let registry = Registry::default();
//! let kettle = KettleMetrics::new(&registry, "kettle@1", [("room", "kitchen")]);
//! kettle.boils.increment();
//! kettle.temperature.set(99);
//!
//! let entities = registry.snapshot(Mono::ZERO, &Filters::default());
//! let text = json(&Labels::default(), Wall::UNIX_EPOCH, &entities, &Filters::default());
//! assert!(text.contains(r#"{"name":"boils","value":1}"#));
//! ```
//!
//! An entity that nobody holds any more is still shown for a while, so that the last values of a closed
//! replica reach whoever polls, and then retires.

mod filter;
mod json;
mod percentile;
mod prometheus;
mod registry;
mod runtime;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub use filter::{FilterError, Filters};
pub use json::{Labels, json};
pub use percentile::{KNOWN_PERCENTILES, Percentile, PercentileSnapshot};
pub use prometheus::{CONTENT_TYPE as PROMETHEUS_CONTENT_TYPE, prometheus};
pub use registry::{ENTITIES_MAX, Entity, EntitySnapshot, MetricSnapshot, Registry, ValueSnapshot};
pub use runtime::{QueueMetrics, RuntimeMetrics, watch_runtime};

crate::options! {
    /// Metrics and how long they are kept.
    pub section MetricsOptions at "metrics" {
        /// How long the metrics of something that no longer exists are still shown.
        entity_retirement_delay_ms: u64 = 600_000, [mutable];
    }
}

/// What a metric's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Grows, and starts again from zero when it has been read.
    VolatileCounter,
    /// Goes up and down.
    Gauge,
    /// The distribution of recent values.
    Percentile,
}

impl Kind {
    /// The kind's name in answers of `/metrics`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "Counter",
            Self::VolatileCounter => "VolatileCounter",
            Self::Gauge => "Gauge",
            Self::Percentile => "Percentile",
        }
    }
}

/// The declaration of a metric. Made by [`metrics!`](crate::metrics!).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricDef {
    /// Its name, unique within the entity.
    pub name: &'static str,
    /// The type of entity that has it.
    pub entity: &'static str,
    /// What kind of values it has.
    pub kind: Kind,
    /// What is counted or measured, `Requests` or `NanoSeconds`.
    pub unit: &'static str,
    /// What it tells, in a sentence.
    pub doc: &'static str,
}

impl MetricDef {
    /// [`MetricDef::doc`] as one line.
    pub fn description(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// A number that only grows. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A count of what happened since the count was last read as JSON. Clones count together.
///
/// Prometheus sees the total instead, because it must not take away what another reader waits for.
#[derive(Clone, Debug, Default)]
pub struct VolatileCounter(Arc<Volatile>);

#[derive(Debug, Default)]
struct Volatile {
    total: AtomicU64,
    read: AtomicU64,
}

impl VolatileCounter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0.total.fetch_add(n, Ordering::Relaxed);
    }

    /// The count since the last call of this method.
    pub fn take(&self) -> u64 {
        let total = self.total();
        total.saturating_sub(self.0.read.swap(total, Ordering::Relaxed))
    }

    /// The count since the start.
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. Clones share the value.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets the value, `i64::MAX` if it does not fit.
    pub fn set_u64(&self, value: u64) {
        self.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Raises the value to at least `value`.
    pub fn set_max(&self, value: i64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// Adds to the value; `delta` may be negative.
    pub fn add(&self, delta: i64) {
        self.0.fetch_add(delta, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.add(-1);
    }

    /// The present value.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A metric of any kind, as an entity holds it.
#[derive(Clone, Debug)]
pub enum Cell {
    /// See [`Counter`].
    Counter(Counter),
    /// See [`VolatileCounter`].
    VolatileCounter(VolatileCounter),
    /// See [`Gauge`].
    Gauge(Gauge),
    /// See [`Percentile`].
    Percentile(Percentile),
}

/// One of the four kinds of metric.
pub trait Metric: Clone + Default {
    /// Which one.
    const KIND: Kind;

    /// The metric as an entity holds it.
    fn into_cell(self) -> Cell;

    /// The metric, if `cell` is of this kind.
    fn from_cell(cell: &Cell) -> Option<Self>;
}

macro_rules! metric_kinds {
    ($($Kind:ident)*) => {$(
        impl Metric for $Kind {
            const KIND: Kind = Kind::$Kind;

            fn into_cell(self) -> Cell {
                Cell::$Kind(self)
            }

            fn from_cell(cell: &Cell) -> Option<Self> {
                match cell {
                    Cell::$Kind(metric) => Some(metric.clone()),
                    _ => None,
                }
            }
        }
    )*};
}

metric_kinds!(Counter VolatileCounter Gauge Percentile);

/// Declares the metrics of a kind of entity: a struct with a handle for each. See
/// [the module](crate::metrics) for an example. The doc comment of a field is the metric's description.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        $vis:vis struct $Name:ident on $entity:literal {
            $( $(#[doc = $doc:literal])+ $metric:ident : $Kind:ident, $unit:ident ; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $Name {
            /// The entity, which is shown as long as somebody holds this.
            #[allow(dead_code)] // not every user needs every part of what is generated
            pub entity: ::std::sync::Arc<$crate::metrics::Entity>,
            $( $(#[doc = $doc])+ pub $metric: $crate::metrics::$Kind, )*
        }

        #[allow(dead_code)]
        impl $Name {
            /// The declarations of all these metrics.
            pub const DEFINITIONS: &'static [$crate::metrics::MetricDef] = &[$(
                $crate::metrics::MetricDef {
                    name: stringify!($metric),
                    entity: $entity,
                    kind: $crate::metrics::Kind::$Kind,
                    unit: stringify!($unit),
                    doc: concat!($($doc, "\n"),+),
                },
            )*];

            /// The metrics of the entity `id`, which is made if it does not exist yet.
            pub fn new<'a>(
                registry: &$crate::metrics::Registry,
                id: &str,
                attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
            ) -> Self {
                Self::of(registry.entity($entity, id, attributes))
            }

            /// These metrics of an entity that has others already.
            pub fn of(entity: ::std::sync::Arc<$crate::metrics::Entity>) -> Self {
                let mut definitions = Self::DEFINITIONS.iter();
                let mut next = || definitions.next().expect("one definition for each field");
                let _ = &mut next; // a struct may have no metrics
                $( let $metric = entity.metric(next()); )*
                Self { entity, $($metric),* }
            }
        }
    };
}

#[cfg(test)]
mod tests;
