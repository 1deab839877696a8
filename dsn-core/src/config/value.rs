//! Configuration values before they have a type, and where each came from.
//!
//! TOML is parsed into a tree of [`Table`]s whose every entry remembers its [`Origin`], because the
//! whole point of a configuration error is to say which line of which file to change.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the value of an option comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// No file and no override names it.
    Default,
    /// A line of a configuration file, counted from 1.
    File {
        /// The file as it was named to the loader.
        file: Arc<str>,
        /// The line, counted from 1.
        line: u32,
    },
    /// An override of the command line, `--set section.key=value`.
    Set,
    /// Changed while the server was running.
    RunTime,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Set => f.write_str("--set"),
            Self::RunTime => f.write_str("run time"),
        }
    }
}

/// A value as written; the option it belongs to decides what it means.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// An integer of any size an option can hold.
    Int(i128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A quoted string of a file.
    Text(String),
    /// Text whose type is open: it was given with `--set`, or a `${VARIABLE}` was replaced in it.
    /// A string option takes it as it stands; any other reads it as if it stood unquoted in a file.
    Loose(String),
    /// `[a, b, c]`.
    List(Vec<Self>),
    /// Something no option accepts (a date, a table within a list), with its name.
    Unsupported(&'static str),
}

impl Value {
    /// For [`Value::Loose`], the value its text denotes in TOML (or the text itself as a string); any
    /// other value unchanged.
    pub fn tightened(&self) -> Cow<'_, Self> {
        let Self::Loose(text) = self else { return Cow::Borrowed(self) };
        // `DeValue::parse` alone would accept trailing text; a whole document must be one key.
        let document = format!("v = {text}");
        let parsed = DeTable::parse(&document).ok().filter(|table| table.get_ref().len() == 1);
        let value = parsed.and_then(|table| Some(convert(table.get_ref().get("v")?.get_ref())));
        Cow::Owned(match value {
            Some(Self::Unsupported(_)) | None => Self::Text(text.clone()),
            Some(value) => value,
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Text(text) => f.write_str(&quote(text)),
            Self::Loose(text) => f.write_str(text),
            Self::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Unsupported(what) => write!(f, "<{what}>"),
        }
    }
}

/// `text` as a TOML string.
pub(crate) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// One table of the tree, keys in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// A key's value or sub-table, and the line that first names it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) node: Node,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Value(Value),
    Table(Table),
}

impl Table {
    /// Parses a file's text. The error is a message and the line it belongs to.
    pub(crate) fn parse(file: &Arc<str>, text: &str) -> Result<Self, (Origin, String)> {
        let lines = Lines::new(file, text);
        match DeTable::parse(text) {
            Ok(table) => Ok(lines.table(table.get_ref())),
            Err(error) => {
                let at = error.span().unwrap_or(0..0);
                Err((lines.origin(&at), error.message().to_owned()))
            }
        }
    }

    /// The value at `path`, if there is one and it is no table.
    pub(crate) fn value<'a>(
        &self,
        path: impl IntoIterator<Item = &'a str>,
        key: &str,
    ) -> Option<(&Value, &Origin)> {
        let mut table = self;
        for name in path {
            match &table.entries.get(name)?.node {
                Node::Table(inner) => table = inner,
                Node::Value(_) => return None,
            }
        }
        let entry = table.entries.get(key)?;
        match &entry.node {
            Node::Value(value) => Some((value, &entry.origin)),
            Node::Table(_) => None,
        }
    }

    /// Puts `value` at `path`, making tables on the way. A value in the way is replaced.
    pub(crate) fn set(&mut self, path: &[String], value: Value, origin: &Origin) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            let entry = Entry { node: Node::Value(value), origin: origin.clone() };
            self.entries.insert(first.clone(), entry);
            return;
        }
        let fresh = || Entry { node: Node::Table(Self::default()), origin: origin.clone() };
        let entry = self.entries.entry(first.clone()).or_insert_with(fresh);
        if matches!(entry.node, Node::Value(_)) {
            *entry = fresh();
        }
        if let Node::Table(table) = &mut entry.node {
            table.set(rest, value, origin);
        }
    }

    /// Lays `later` over this table, key by key.
    pub(crate) fn merge(&mut self, later: Self) {
        for (key, entry) in later.entries {
            match (self.entries.get_mut(&key), entry) {
                (
                    Some(Entry { node: Node::Table(mine), .. }),
                    Entry { node: Node::Table(theirs), .. },
                ) => mine.merge(theirs),
                (_, entry) => {
                    self.entries.insert(key, entry);
                }
            }
        }
    }

    /// Calls `visit` on every value below this table, list elements included.
    pub(crate) fn for_each_value(&mut self, visit: &mut impl FnMut(&mut Value, &Origin)) {
        for entry in self.entries.values_mut() {
            match &mut entry.node {
                Node::Table(table) => table.for_each_value(visit),
                Node::Value(value) => visit_value(value, &entry.origin, visit),
            }
        }
    }
}

fn visit_value(value: &mut Value, origin: &Origin, visit: &mut impl FnMut(&mut Value, &Origin)) {
    if let Value::List(items) = value {
        items.iter_mut().for_each(|item| visit_value(item, origin, visit));
    } else {
        visit(value, origin);
    }
}

/// Translates byte offsets of one file into lines.
struct Lines<'a> {
    file: &'a Arc<str>,
    /// Offset at which each line begins.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a Arc<str>, text: &str) -> Self {
        let after_newlines =
            text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i + 1);
        Self { file, starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        let line = self.starts.partition_point(|&start| start <= span.start);
        Origin::File { file: self.file.clone(), line: u32::try_from(line).unwrap_or(u32::MAX) }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entries = table.iter().map(|(key, value)| {
            (
                key.get_ref().to_string(),
                Entry { node: self.node(value), origin: self.origin(&key.span()) },
            )
        });
        Table { entries: entries.collect() }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        match value.get_ref() {
            DeValue::Table(table) => Node::Table(self.table(table)),
            other => Node::Value(convert(other)),
        }
    }
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => match i128::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Int(n),
            Err(_) => Value::Unsupported("integer beyond 128 bits"),
        },
        DeValue::Float(x) => match x.as_str().parse() {
            Ok(x) => Value::Float(x),
            Err(_) => Value::Unsupported("number"),
        },
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| convert(item.get_ref())).collect())
        }
        DeValue::Datetime(_) => Value::Unsupported("date"),
        DeValue::Table(_) => Value::Unsupported("table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Table {
        Table::parse(&Arc::from("t.toml"), text).expect("valid")
    }

    #[test]
    fn every_value_knows_its_line() {
        let table = parse("[a]\nx = 1\n\n[a.b]\n# comment\ny = \"s\"\nz = [1,\n 2]\n");
        let at = |path: &[&str], key| table.value(path.iter().copied(), key).expect("there");
        assert_eq!(at(&["a"], "x").1.to_string(), "t.toml:2");
        assert_eq!(at(&["a", "b"], "y"), (&Value::Text("s".into()), at(&["a", "b"], "y").1));
        assert_eq!(at(&["a", "b"], "y").1.to_string(), "t.toml:6");
        assert_eq!(at(&["a", "b"], "z").0, &Value::List(vec![Value::Int(1), Value::Int(2)]));
        assert!(table.value(["a"], "b").is_none() && table.value(["a", "x"], "y").is_none());
    }

    #[test]
    fn syntax_errors_name_the_line() {
        for (text, line) in [("a = 1\nb = = 2\n", 2), ("a = 1\n\na = 2\n", 3), ("[x\n", 1)] {
            let (origin, message) = Table::parse(&Arc::from("t.toml"), text).expect_err(text);
            assert_eq!(origin.to_string(), format!("t.toml:{line}"), "{text:?}: {message}");
            assert!(!message.is_empty());
        }
    }

    #[test]
    fn loose_text_is_read_like_toml_or_stays_text() {
        let tight = |text: &str| Value::Loose(text.into()).tightened().into_owned();
        assert_eq!(tight("12"), Value::Int(12));
        assert_eq!(tight("0x10"), Value::Int(16));
        assert_eq!(tight("true"), Value::Bool(true));
        assert_eq!(tight("[1, 2]"), Value::List(vec![Value::Int(1), Value::Int(2)]));
        assert_eq!(tight("\"12\""), Value::Text("12".into()));
        assert_eq!(tight("/data/d0"), Value::Text("/data/d0".into()));
        assert_eq!(tight("1\nw = 2"), Value::Text("1\nw = 2".into()));
        assert_eq!(tight(""), Value::Text(String::new()));
    }

    #[test]
    fn later_tables_win_key_by_key() {
        let mut table = parse("[a]\nx = 1\ny = 2\n[b]\nz = 3\n");
        table.merge(parse("[a]\ny = 20\n"));
        table.set(&["c".into(), "d".into()], Value::Bool(true), &Origin::Set);
        table.set(&["b".into(), "z".into(), "deep".into()], Value::Int(4), &Origin::Set);
        assert_eq!(table.value(["a"], "x").expect("x").0, &Value::Int(1));
        assert_eq!(table.value(["a"], "y").expect("y").0, &Value::Int(20));
        assert_eq!(table.value(["c"], "d").expect("d"), (&Value::Bool(true), &Origin::Set));
        assert_eq!(table.value(["b", "z"], "deep").expect("deep").0, &Value::Int(4));
    }

    #[test]
    fn values_print_as_toml() {
        let list =
            Value::List(vec![Value::Text("a\"b".into()), Value::Float(0.5), Value::Bool(true)]);
        assert_eq!(list.to_string(), "['a\"b', 0.5, true]");
    }
}
