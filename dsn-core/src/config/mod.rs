//! Configuration: TOML files with Pegasus's section and key names, checked before anything starts.
//!
//! ```toml
//! [replication]
//! staleness_for_commit = 20
//! [task.default]                  # inherited by every [task.X]
//! rpc_timeout_milliseconds = 5000
//! [task.RPC_PREPARE]
//! priority = "high"
//! [core]
//! log_dir = "${HOME:-/var}/log"   # variables, in string values
//! ```
//!
//! Each crate declares its options once with [`options!`](crate::options); the program joins the
//! sections into a [`ConfigSchema`], a [`Loader`] reads files and overrides against it, and everybody
//! takes a typed section from the [`Config`]: `let options: ReplicationOptions = config.section()?`.
//! An unknown key, a wrong type and a value out of range are errors that name the file and line, and all
//! of them are reported at once. [`dump`] writes the effective configuration with the origin of each
//! value, [`reference`] the page that documents every key.
//!
//! A section whose path ends in `*` exists once per name (`[apps.replica]`, `[task.RPC_PREPARE]`) and
//! inherits key by key from the one called `default`.
//!
//! Options marked mutable change at run time through [`Config::set`]; readers hold a [`Tunable`].

mod core;
mod dump;
mod error;
mod kinds;
mod load;
mod option;
mod reader;
mod schema;
mod substitute;
mod units;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::core::*;
pub use dump::{OptionView, dump, reference};
pub use error::{ConfigError, Problem};
pub use kinds::{IntoDefault, OptionValue, Scalar};
pub use load::Loader;
pub use option::{
    Checked, OptionSchema, Section, SectionSchema, Tunable, default_value, key_name, range_text,
};
pub use reader::SectionReader;
pub use schema::ConfigSchema;
pub use substitute::Variables;
pub use units::{Size, duration_text, parse_duration};
pub use value::{Origin, Value};

use schema::nearest;
use value::{Node, Table};

/// The name of the section from which its siblings inherit.
pub const DEFAULT_NAME: &str = "default";

/// The names of the tables around an option, from the outside in.
type Path = Vec<String>;

/// A loaded and checked configuration. Clones share the state of mutable options.
#[derive(Clone)]
pub struct Config {
    inner: Arc<Inner>,
}

struct Inner {
    schema: ConfigSchema,
    table: Table,
    /// Mutable options that somebody reads or has set, by full name.
    cells: Mutex<BTreeMap<String, Cell>>,
    /// Who wants to know when an option changes.
    watchers: Mutex<Vec<Watcher>>,
}

/// Is given the full name of the option that has changed.
type Watcher = Arc<dyn Fn(&str) + Send + Sync>;

struct Cell {
    bits: Arc<AtomicU64>,
    /// The value set at run time, as TOML; `None` while it is the one the option started with.
    set: Option<String>,
}

impl Config {
    fn new(schema: ConfigSchema, table: Table) -> Self {
        let (cells, watchers) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { schema, table, cells, watchers }) }
    }

    /// The section that `T` declares.
    ///
    /// # Errors
    /// [`ConfigError::NotRegistered`] when the schema lacks the section, or when its path has a `*` and
    /// [`Config::named`] is the way to it.
    pub fn section<T: Section>(&self) -> Result<T, ConfigError> {
        let schema = T::schema();
        if schema.is_pattern() || !self.inner.schema.knows(schema) {
            return Err(ConfigError::NotRegistered { section: schema.path });
        }
        Ok(T::read(&SectionReader::new(self, concrete(schema.path, ""))))
    }

    /// The section of this name among those that `T` declares: for `[task.RPC_PREPARE]`, `RPC_PREPARE`.
    /// A name that no file mentions has what `default` says.
    ///
    /// # Errors
    /// [`ConfigError::NotRegistered`] when the schema lacks the section.
    pub fn named<T: Section>(&self, name: &str) -> Result<T, ConfigError> {
        let schema = T::schema();
        if !self.inner.schema.knows(schema) {
            return Err(ConfigError::NotRegistered { section: schema.path });
        }
        Ok(T::read(&SectionReader::new(self, concrete(schema.path, name))))
    }

    /// Every named section that `T` declares and a file mentions, without `default`.
    ///
    /// # Errors
    /// [`ConfigError::NotRegistered`] when the schema lacks the section.
    pub fn all<T: Section>(&self) -> Result<BTreeMap<String, T>, ConfigError> {
        let names = self.names(T::schema().path);
        names.into_iter().map(|(name, _)| Ok((name.clone(), self.named(&name)?))).collect()
    }

    /// The names a file gives to the sections of a path with a `*` in it, `default` left out, each with
    /// the place that first mentions it.
    pub fn names(&self, pattern: &str) -> Vec<(String, Origin)> {
        let before: Vec<&str> = pattern.split('.').take_while(|name| *name != "*").collect();
        let Some(table) = self.table_at(before) else { return Vec::new() };
        let tables = table.entries.iter().filter(|(_, entry)| matches!(entry.node, Node::Table(_)));
        tables
            .filter(|(name, _)| *name != DEFAULT_NAME)
            .map(|(name, entry)| (name.clone(), entry.origin.clone()))
            .collect()
    }

    /// The schema the configuration was checked against.
    pub fn schema(&self) -> &ConfigSchema {
        &self.inner.schema
    }

    /// One option as it is now. `name` is `section.key`, or the key alone if only one section has it.
    ///
    /// # Errors
    /// [`ConfigError::UnknownOption`].
    pub fn get(&self, name: &str) -> Result<OptionView, ConfigError> {
        let (path, schema) = self.resolve(name)?;
        Ok(self.view(&path, schema))
    }

    /// Changes a mutable option; every [`Tunable`] of it shows the new value at once.
    ///
    /// # Errors
    /// [`ConfigError::UnknownOption`], [`ConfigError::Immutable`], [`ConfigError::BadValue`].
    pub fn set(&self, name: &str, text: &str) -> Result<(), ConfigError> {
        let (path, schema) = self.resolve(name)?;
        let full = full_name(&path, schema.key);
        // What siblings inherited was fixed when they were read; changing the parent now would show a
        // value that nobody uses.
        let is_parent = path.last().is_some_and(|name| name == DEFAULT_NAME);
        if !schema.mutable || is_parent {
            return Err(ConfigError::Immutable { name: full });
        }
        let checked = (schema.check)(&Value::Loose(text.to_owned()));
        let Some(Checked { text, bits: Some(bits) }) = checked else {
            let (value, expected) = (text.to_owned(), schema.expected());
            return Err(ConfigError::BadValue { name: full, value, expected });
        };
        let mut cells = self.inner.cells.lock();
        let fresh = || Cell { bits: Arc::default(), set: None };
        let cell = cells.entry(full.clone()).or_insert_with(fresh);
        cell.bits.store(bits, Ordering::Relaxed);
        cell.set = Some(text);
        drop(cells);
        let watchers = self.inner.watchers.lock().clone();
        watchers.iter().for_each(|watcher| watcher(&full));
        Ok(())
    }

    /// Has `watcher` called after each change of a mutable option: for what cannot just look at a
    /// [`Tunable`] when it needs it. Lasts as long as the configuration.
    ///
    /// # Errors
    /// [`ConfigError::UnknownOption`], [`ConfigError::Immutable`].
    pub fn on_change(
        &self,
        name: &str,
        watcher: impl Fn() + Send + Sync + 'static,
    ) -> Result<(), ConfigError> {
        let (path, schema) = self.resolve(name)?;
        let name = full_name(&path, schema.key);
        if !schema.mutable {
            return Err(ConfigError::Immutable { name });
        }
        self.on_any_change(move |changed| {
            if changed == name {
                watcher();
            }
        });
        Ok(())
    }

    /// Has `watcher` called after each change of any option, with the option's full name. Lasts as long
    /// as the configuration.
    pub fn on_any_change(&self, watcher: impl Fn(&str) + Send + Sync + 'static) {
        self.inner.watchers.lock().push(Arc::new(watcher));
    }

    /// Every option as it is now, section by section.
    pub fn options(&self) -> Vec<OptionView> {
        let mut views = Vec::new();
        for section in self.inner.schema.sections() {
            for path in self.instances(section) {
                if section.has_free_keys() {
                    let schema = &section.options[0];
                    let keys: Vec<&str> = self.free_keys(&path).collect();
                    views.extend(keys.iter().map(|key| self.view_key(&path, key, schema)));
                } else {
                    views.extend(section.options.iter().map(|option| self.view(&path, option)));
                }
            }
        }
        views
    }

    /// The paths at which a section exists: one for a plain section, one per name for a pattern.
    fn instances(&self, section: &SectionSchema) -> Vec<Path> {
        if !section.is_pattern() {
            return vec![concrete(section.path, "")];
        }
        let mut paths = vec![concrete(section.path, DEFAULT_NAME)];
        let names = self.names(section.path);
        paths.extend(names.iter().map(|(name, _)| concrete(section.path, name)));
        paths.retain(|path| self.table_at(path.iter().map(String::as_str)).is_some());
        paths
    }

    fn view(&self, path: &Path, schema: &'static OptionSchema) -> OptionView {
        self.view_key(path, schema.key, schema)
    }

    fn view_key(&self, path: &Path, key: &str, schema: &'static OptionSchema) -> OptionView {
        let full = full_name(path, key);
        let set = self.inner.cells.lock().get(&full).and_then(|cell| cell.set.clone());
        let (value, origin) = match (set, self.effective(path, key)) {
            (Some(text), _) => (text, Origin::RunTime),
            (None, Some((value, origin))) => {
                let checked = (schema.check)(value);
                (checked.map_or_else(|| value.to_string(), |checked| checked.text), origin.clone())
            }
            (None, None) => ((schema.default)(), Origin::Default),
        };
        OptionView { section: path.join("."), key: key.to_owned(), schema, value, origin }
    }

    /// The option called `name`: `section.key`, or a key that only one section has.
    fn resolve(&self, name: &str) -> Result<(Path, &'static OptionSchema), ConfigError> {
        let schema = &self.inner.schema;
        if let Some((section, key)) = name.rsplit_once('.') {
            let path: Vec<&str> = section.split('.').collect();
            if let Some(option) = schema.at(&path).and_then(|section| section.option(key))
                && !path.contains(&"*")
            {
                return Ok((path.into_iter().map(str::to_owned).collect(), option));
            }
        } else {
            let plain = schema.named(name).filter(|(section, _)| !section.is_pattern());
            let mut found = plain.fuse();
            if let (Some((section, option)), None) = (found.next(), found.next()) {
                return Ok((concrete(section.path, ""), option));
            }
        }
        let known = schema.sections().flat_map(|section| {
            section.options.iter().map(|option| format!("{}.{}", section.path, option.key))
        });
        let known: Vec<String> = known.collect();
        let hint = nearest(name, known.iter().map(String::as_str)).or_else(|| {
            known.iter().map(String::as_str).find(|full| full.ends_with(&format!(".{name}")))
        });
        Err(ConfigError::UnknownOption { name: name.to_owned(), hint: hint.map(str::to_owned) })
    }

    /// What the files and overrides say about an option of this section, or of the one it inherits from.
    fn effective(&self, path: &Path, key: &str) -> Option<(&Value, &Origin)> {
        let own = self.inner.table.value(path.iter().map(String::as_str), key);
        own.or_else(|| {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let pattern = self.inner.schema.at(&names)?.path;
            let parent = concrete(pattern, DEFAULT_NAME);
            self.inner.table.value(parent.iter().map(String::as_str), key)
        })
    }

    /// The shared state of a mutable option, made with `initial` if nobody has read or set it yet.
    fn cell(&self, path: &Path, key: &str, initial: u64) -> Arc<AtomicU64> {
        let mut cells = self.inner.cells.lock();
        let fresh = || Cell { bits: Arc::new(AtomicU64::new(initial)), set: None };
        cells.entry(full_name(path, key)).or_insert_with(fresh).bits.clone()
    }

    fn free_keys<'a>(&'a self, path: &Path) -> impl Iterator<Item = &'a str> + use<'a> {
        let table = self.table_at(path.iter().map(String::as_str));
        table.into_iter().flat_map(|table| table.entries.keys().map(String::as_str))
    }

    fn table_at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Table> {
        let mut table = &self.inner.table;
        for name in path {
            match &table.entries.get(name)?.node {
                Node::Table(inner) => table = inner,
                Node::Value(_) => return None,
            }
        }
        Some(table)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

/// `pattern` with `name` for its `*`.
fn concrete(pattern: &str, name: &str) -> Path {
    pattern.split('.').map(|part| if part == "*" { name } else { part }.to_owned()).collect()
}

fn full_name(path: &Path, key: &str) -> String {
    format!("{}.{key}", path.join("."))
}

#[cfg(test)]
mod tests;
