//! The entities of a node and their metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::{Cell, Filters, Metric, MetricDef, MetricsOptions, PercentileSnapshot};
use crate::config::Tunable;
use crate::time::Mono;

/// Entities shown at a time. Entities made beyond work, but nobody sees them.
pub const ENTITIES_MAX: usize = 65_536;

/// All entities of a node. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    entities: Mutex<BTreeMap<(&'static str, String), Registered>>,
    refreshers: Mutex<Vec<Refresher>>,
    retirement_delay_ms: Tunable<u64>,
}

/// Brings gauges up to date before they are read; `false` when it has nothing more to do.
type Refresher = Arc<dyn Fn() -> bool + Send + Sync>;

struct Registered {
    entity: Arc<Entity>,
    /// Since when nobody but the registry holds it, as far as noticed.
    stale_since: Option<Mono>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            entities: Mutex::default(),
            refreshers: Mutex::default(),
            retirement_delay_ms: MetricsOptions::default().entity_retirement_delay_ms,
        }
    }
}

impl Registry {
    /// A registry without entities.
    pub fn new(options: &MetricsOptions) -> Self {
        let retirement_delay_ms = options.entity_retirement_delay_ms.clone();
        Self { inner: Arc::new(Inner { retirement_delay_ms, ..Inner::default() }) }
    }

    /// The entity of this type and id, made if it does not exist. Its attributes become `attributes`.
    pub fn entity<'a>(
        &self,
        kind: &'static str,
        id: &str,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Arc<Entity> {
        let attributes: BTreeMap<String, String> =
            attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let mut entities = self.inner.entities.lock();
        let key = (kind, id.to_owned());
        if let Some(registered) = entities.get_mut(&key) {
            registered.stale_since = None;
            *registered.entity.attributes.write() = attributes;
            return registered.entity.clone();
        }
        let entity = Arc::new(Entity {
            kind,
            id: key.1.clone(),
            attributes: RwLock::new(attributes),
            metrics: Mutex::default(),
        });
        if entities.len() < ENTITIES_MAX {
            entities.insert(key, Registered { entity: entity.clone(), stale_since: None });
        }
        entity
    }

    /// Has `refresh` called before every snapshot, until it returns `false`. It must be quick and must
    /// not use the registry.
    pub fn refresh_with(&self, refresh: impl Fn() -> bool + Send + Sync + 'static) {
        self.inner.refreshers.lock().push(Arc::new(refresh));
    }

    /// The chosen entities and metrics at one moment, ordered by type, id and name. Retires entities.
    pub fn snapshot(&self, now: Mono, filters: &Filters) -> Vec<EntitySnapshot> {
        self.refresh();
        self.retire(now);
        let entities: Vec<Arc<Entity>> = self
            .inner
            .entities
            .lock()
            .values()
            .map(|registered| registered.entity.clone())
            .collect();
        entities.iter().filter_map(|entity| entity.snapshot(now, filters)).collect()
    }

    fn refresh(&self) {
        let refreshers = self.inner.refreshers.lock().clone();
        let finished: Vec<&Refresher> = refreshers.iter().filter(|refresh| !refresh()).collect();
        if !finished.is_empty() {
            let is_finished =
                |one: &Refresher| finished.iter().any(|other| Arc::ptr_eq(one, other));
            self.inner.refreshers.lock().retain(|refresher| !is_finished(refresher));
        }
    }

    /// Forgets entities that nobody has held for the retirement delay.
    fn retire(&self, now: Mono) {
        let delay = Duration::from_millis(self.inner.retirement_delay_ms.get());
        self.inner.entities.lock().retain(|_, registered| {
            if Arc::strong_count(&registered.entity) > 1 {
                registered.stale_since = None;
                return true;
            }
            let since = *registered.stale_since.get_or_insert(now);
            now.saturating_since(since) < delay
        });
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("entities", &self.inner.entities.lock().len()).finish()
    }
}

/// Something that has metrics.
#[derive(Debug)]
pub struct Entity {
    kind: &'static str,
    id: String,
    attributes: RwLock<BTreeMap<String, String>>,
    metrics: Mutex<BTreeMap<&'static str, (&'static MetricDef, Cell)>>,
}

impl Entity {
    /// Its type, `replica` for instance.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its id, `replica@2.0` for instance.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The metric that `definition` declares, made if the entity lacks it.
    ///
    /// # Panics
    /// If `M` is of another kind than the definition, or an earlier definition gave the name to another
    /// kind of metric: a mistake in the program.
    pub fn metric<M: Metric>(&self, definition: &'static MetricDef) -> M {
        assert_eq!(M::KIND, definition.kind, "metric {}", definition.name);
        let mut metrics = self.metrics.lock();
        let fresh = || (definition, M::default().into_cell());
        let (_, cell) = metrics.entry(definition.name).or_insert_with(fresh);
        M::from_cell(cell).unwrap_or_else(|| {
            panic!("metric {} of {} is declared twice, differently", definition.name, self.id)
        })
    }

    /// `None` when the filters choose nothing of this entity.
    fn snapshot(&self, now: Mono, filters: &Filters) -> Option<EntitySnapshot> {
        if !filters.chooses_entity(self.kind, &self.id, &self.attributes.read()) {
            return None;
        }
        let metrics: Vec<MetricSnapshot> = self
            .metrics
            .lock()
            .iter()
            .filter(|(name, _)| filters.chooses_metric(name))
            .map(|(_, (definition, cell))| MetricSnapshot { definition, value: read(cell, now) })
            .collect();
        (!metrics.is_empty()).then(|| EntitySnapshot {
            kind: self.kind,
            id: self.id.clone(),
            attributes: self.attributes.read().clone(),
            metrics,
        })
    }
}

fn read(cell: &Cell, now: Mono) -> ValueSnapshot {
    match cell {
        Cell::Counter(counter) => ValueSnapshot::Counter(counter.value()),
        Cell::VolatileCounter(counter) => ValueSnapshot::VolatileCounter(counter.clone()),
        Cell::Gauge(gauge) => ValueSnapshot::Gauge(gauge.value()),
        Cell::Percentile(percentile) => ValueSnapshot::Percentile(percentile.snapshot(now)),
    }
}

/// An entity at one moment.
#[derive(Clone, Debug)]
pub struct EntitySnapshot {
    /// Its type.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// The chosen metrics in the order of their names.
    pub metrics: Vec<MetricSnapshot>,
}

/// A metric at one moment.
#[derive(Clone, Debug)]
pub struct MetricSnapshot {
    /// Its declaration.
    pub definition: &'static MetricDef,
    /// Its value.
    pub value: ValueSnapshot,
}

/// The value of a metric at one moment.
#[derive(Clone, Debug)]
pub enum ValueSnapshot {
    /// Of a counter.
    Counter(u64),
    /// Of a volatile counter: the counter itself, because only the JSON form takes its value away.
    VolatileCounter(super::VolatileCounter),
    /// Of a gauge.
    Gauge(i64),
    /// Of a percentile.
    Percentile(PercentileSnapshot),
}
