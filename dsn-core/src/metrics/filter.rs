//! Which entities, metrics and fields a reader of `/metrics` wants.

use std::collections::BTreeMap;

use super::KNOWN_PERCENTILES;

/// Most entries of all lists of a request together.
pub const LIST_MAX: usize = 512;

/// A choice among metrics. The default chooses every metric with its brief fields.
///
/// Each list that is empty chooses everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Types of entities.
    pub types: Vec<String>,
    /// Ids of entities.
    pub ids: Vec<String>,
    /// Attributes; an entity that has one of them is chosen.
    pub attributes: Vec<(String, String)>,
    /// Names of metrics.
    pub metrics: Vec<String>,
    fields: Fields,
}

/// Which fields of a metric are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Fields {
    /// Name and value.
    #[default]
    Brief,
    /// Everything.
    Detail,
    /// Those listed.
    Listed(Vec<String>),
}

/// Why the arguments of a request for metrics were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// No argument has this name.
    #[error("unknown field {0}={1}")]
    UnknownArgument(String, String),
    /// Attributes come in pairs.
    #[error(
        "the number of arguments for attributes should be even, since each attribute name always \
         pairs with a value"
    )]
    OddAttributes,
    /// More in a list than is sensible.
    #[error("a list has at most {LIST_MAX} entries")]
    TooMany,
    /// `detail` is neither true nor false.
    #[error("the value of detail should be a boolean value, i.e. true or false")]
    NotBoolean,
}

impl FilterError {
    /// The body of the answer, status 400.
    pub fn to_json(&self) -> String {
        serde_json::json!({ "error_message": self.to_string() }).to_string()
    }
}

impl Filters {
    /// Reads the arguments of a request. Lists are separated by commas.
    ///
    /// # Errors
    /// [`FilterError`] for an argument or value that means nothing.
    pub fn parse<'a>(
        arguments: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, FilterError> {
        let mut filters = Self::default();
        let mut listed = None;
        let mut detail = false;
        let mut entries = 0;
        for (name, value) in arguments {
            entries += value.split(',').count();
            if entries > LIST_MAX {
                return Err(FilterError::TooMany);
            }
            match name {
                "with_metric_fields" => listed = Some(list(value)),
                "types" => filters.types = list(value),
                "ids" => filters.ids = list(value),
                "metrics" => filters.metrics = list(value),
                "attributes" => filters.attributes = pairs(value)?,
                "detail" => detail = boolean(value).ok_or(FilterError::NotBoolean)?,
                _ => return Err(FilterError::UnknownArgument(name.into(), value.into())),
            }
        }
        filters.fields = match listed {
            // An empty list restricts nothing.
            Some(fields) if fields.is_empty() => Fields::Detail,
            Some(fields) => Fields::Listed(fields),
            None if detail => Fields::Detail,
            None => Fields::Brief,
        };
        Ok(filters)
    }

    pub(super) fn chooses_entity(
        &self,
        kind: &str,
        id: &str,
        attributes: &BTreeMap<String, String>,
    ) -> bool {
        let has = |(name, value): &(String, String)| attributes.get(name) == Some(value);
        chooses(&self.types, kind)
            && chooses(&self.ids, id)
            && (self.attributes.is_empty() || self.attributes.iter().any(has))
    }

    pub(super) fn chooses_metric(&self, name: &str) -> bool {
        chooses(&self.metrics, name)
    }

    pub(super) fn chooses_field(&self, field: &str) -> bool {
        match &self.fields {
            Fields::Detail => true,
            Fields::Listed(fields) => fields.iter().any(|listed| listed == field),
            Fields::Brief => {
                field == "name"
                    || field == "value"
                    || KNOWN_PERCENTILES.iter().any(|(name, _)| *name == field)
            }
        }
    }
}

fn chooses(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|one| one == name)
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn pairs(value: &str) -> Result<Vec<(String, String)>, FilterError> {
    let parts = list(value);
    if !parts.len().is_multiple_of(2) {
        return Err(FilterError::OddAttributes);
    }
    Ok(parts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
