//! Reads files and overrides, replaces variables, and checks every key and value against the schema.

use std::path::PathBuf;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem};
use super::option::SectionSchema;
use super::schema::{ConfigSchema, nearest};
use super::substitute::{Variables, substitute};
use super::value::{Node, Origin, Table, Value};
use super::{Config, DEFAULT_NAME};

/// Collects the sources of a configuration; [`Loader::load`] makes it one.
///
/// Files are laid over each other in the order given; overrides win over all files.
#[derive(Debug)]
pub struct Loader {
    schema: ConfigSchema,
    sources: Vec<Source>,
    overrides: Vec<String>,
    variables: Variables,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Text(Arc<str>, String),
}

impl Loader {
    /// A loader without sources: every option has its default.
    pub fn new(schema: ConfigSchema) -> Self {
        Self { schema, sources: Vec::new(), overrides: Vec::new(), variables: Variables::new() }
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::File(path.into()));
        self
    }

    /// Adds the text of a file; `name` is what errors call it.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.sources.push(Source::Text(Arc::from(name), text.to_owned()));
        self
    }

    /// Adds an override `section.key=value`, as given with `--set`. The value is read as TOML if the
    /// option is no string, and may be left unquoted if it is one.
    #[must_use]
    pub fn set(mut self, assignment: &str) -> Self {
        self.overrides.push(assignment.to_owned());
        self
    }

    /// The variables that `${NAME}` stands for; a program passes its environment.
    #[must_use]
    pub fn variables(mut self, variables: Variables) -> Self {
        self.variables = variables;
        self
    }

    /// Reads, merges and checks everything.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Invalid`] with every mistake found.
    pub fn load(self) -> Result<Config, ConfigError> {
        let mut problems = Vec::new();
        let mut merged = Table::default();
        for source in &self.sources {
            let (name, text) = read(source)?;
            match Table::parse(&name, &text) {
                Ok(table) => merged.merge(table),
                Err((origin, text)) => problems.push(Problem { origin, text }),
            }
        }
        for assignment in &self.overrides {
            match parse_override(assignment) {
                Ok((path, value)) => merged.set(&path, value, &Origin::Set),
                Err(text) => problems.push(Problem { origin: Origin::Set, text }),
            }
        }
        replace_variables(&mut merged, &self.variables, &mut problems);
        Checker { schema: &self.schema, problems: &mut problems }.table(&merged, &mut Vec::new());
        if problems.is_empty() {
            Ok(Config::new(self.schema, merged))
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }
}

fn read(source: &Source) -> Result<(Arc<str>, String), ConfigError> {
    match source {
        Source::Text(name, text) => Ok((name.clone(), text.clone())),
        Source::File(path) => {
            let name = path.display().to_string();
            // Read before any driver exists: the configuration says which driver to make.
            match std::fs::read_to_string(path) {
                Ok(text) => Ok((Arc::from(name), text)),
                Err(cause) => Err(ConfigError::Unreadable { path: name, cause }),
            }
        }
    }
}

/// Splits `a.b.c=value`. Names may be quoted as in TOML.
fn parse_override(assignment: &str) -> Result<(Vec<String>, Value), String> {
    let malformed = || format!("{assignment:?}: expected section.key=value");
    let (name, value) = assignment.split_once('=').ok_or_else(malformed)?;
    let document = format!("{} = 0", name.trim());
    let table = DeTable::parse(&document).map_err(|_| malformed())?;
    let mut path = Vec::new();
    let mut table = table.get_ref();
    while let (1, Some((key, value))) = (table.len(), table.iter().next()) {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    if path.len() < 2 {
        return Err(malformed());
    }
    Ok((path, Value::Loose(value.trim().to_owned())))
}

fn replace_variables(table: &mut Table, variables: &Variables, problems: &mut Vec<Problem>) {
    table.for_each_value(&mut |value, origin| {
        let (Value::Text(text) | Value::Loose(text)) = value else { return };
        match substitute(text, variables) {
            Ok(None) => {}
            Ok(Some(replaced)) => *value = Value::Loose(replaced),
            Err(text) => problems.push(Problem { origin: origin.clone(), text }),
        }
    });
}

/// Compares a tree with the schema and notes every difference.
struct Checker<'a> {
    schema: &'a ConfigSchema,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn table<'t>(&mut self, table: &'t Table, path: &mut Vec<&'t str>) {
        let section = self.schema.at(path);
        for (key, entry) in &table.entries {
            match &entry.node {
                Node::Value(value) => self.value(path, section, key, value, &entry.origin),
                Node::Table(inner) => {
                    path.push(key);
                    if self.schema.reaches(path) {
                        self.table(inner, path);
                        path.pop();
                    } else {
                        path.pop();
                        self.unknown_table(path, section, key, &entry.origin);
                    }
                }
            }
        }
    }

    fn value(
        &mut self,
        path: &[&str],
        section: Option<&'static SectionSchema>,
        key: &str,
        value: &Value,
        origin: &Origin,
    ) {
        let Some(option) = section.and_then(|section| section.option(key)) else {
            let text = self.unknown_key(path, section, key);
            self.problems.push(Problem { origin: origin.clone(), text });
            return;
        };
        if (option.check)(value).is_none() {
            let expected = option.expected();
            let text = format!("[{}] {key} = {value}: expected {expected}", path.join("."));
            self.problems.push(Problem { origin: origin.clone(), text });
        }
    }

    fn unknown_key(
        &self,
        path: &[&str],
        section: Option<&'static SectionSchema>,
        key: &str,
    ) -> String {
        let place = if path.is_empty() { String::new() } else { format!("[{}] ", path.join(".")) };
        let mut inner = path.to_vec();
        inner.push(key);
        if self.schema.reaches(&inner) {
            return format!("{place}{key} is a section, not a key: write [{}]", inner.join("."));
        }
        let keys = section.into_iter().flat_map(|section| section.options.iter().map(|o| o.key));
        let hint = if let Some(near) = nearest(key, keys) {
            format!("; did you mean {near:?}?")
        } else if let Some((other, _)) = self.schema.named(key).next() {
            format!("; it belongs to [{}]", other.path.replace('*', DEFAULT_NAME))
        } else if path.is_empty() {
            "; every key belongs to a section".to_owned()
        } else {
            String::new()
        };
        format!("{place}{key}: unknown key{hint}")
    }

    fn unknown_table(
        &mut self,
        path: &[&str],
        section: Option<&'static SectionSchema>,
        key: &str,
        origin: &Origin,
    ) {
        let mut full = path.to_vec();
        full.push(key);
        let full = full.join(".");
        let text = if let Some(option) = section.and_then(|section| section.option(key)) {
            format!(
                "[{}] {key} is a key, not a section: expected {}",
                path.join("."),
                option.expected()
            )
        } else {
            let hint = nearest(key, self.schema.children(path)).map(|near| {
                let mut path = path.to_vec();
                path.push(near);
                format!("; did you mean [{}]?", path.join("."))
            });
            format!("[{full}]: unknown section{}", hint.unwrap_or_default())
        };
        self.problems.push(Problem { origin: origin.clone(), text });
    }
}
