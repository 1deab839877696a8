//! Hands the values of one section to the struct that declares it.

use std::collections::BTreeMap;

use super::kinds::{OptionValue, Scalar};
use super::option::Tunable;
use super::{Config, Path};

/// One section, opened for reading by [`Section::read`](super::Section::read).
pub struct SectionReader<'a> {
    source: Option<(&'a Config, Path)>,
}

impl<'a> SectionReader<'a> {
    /// A reader of nothing: every option has its default.
    pub fn defaults() -> Self {
        Self { source: None }
    }

    pub(super) fn new(config: &'a Config, path: Path) -> Self {
        Self { source: Some((config, path)) }
    }

    /// The option `key`, or its default. Values were checked when the configuration was loaded.
    pub fn value<T: OptionValue>(&self, key: &str, default: impl FnOnce() -> T) -> T {
        self.source
            .as_ref()
            .and_then(|(config, path)| T::parse(config.effective(path, key)?.0))
            .unwrap_or_else(default)
    }

    /// A handle to the mutable option `key`, which begins with its value or default.
    pub fn tunable<T: Scalar>(&self, key: &str, default: impl FnOnce() -> T) -> Tunable<T> {
        let initial = self.value(key, default);
        match &self.source {
            None => Tunable::fixed(initial),
            Some((config, path)) => Tunable::on(config.cell(path, key, initial.to_bits())),
        }
    }

    /// All keys of a section whose keys are free.
    pub fn entries<T: OptionValue>(&self) -> BTreeMap<String, T> {
        let Some((config, path)) = &self.source else { return BTreeMap::new() };
        let keys = config.free_keys(path);
        keys.filter_map(|key| Some((key.to_owned(), T::parse(config.effective(path, key)?.0)?)))
            .collect()
    }
}
