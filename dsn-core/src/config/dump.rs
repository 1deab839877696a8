//! The configuration as text: what is in force and why, and the page that explains every key.

use std::fmt::Write as _;

use super::option::{OptionSchema, SectionSchema};
use super::value::{Origin, Value};
use super::{Config, ConfigSchema};

/// Column at which the origin of a value begins in a dump.
const ORIGIN_COLUMN: usize = 48;

/// One option as it is now.
#[derive(Clone, Debug)]
pub struct OptionView {
    /// The section's path.
    pub section: String,
    /// The key.
    pub key: String,
    /// Its description.
    pub schema: &'static OptionSchema,
    /// The value in force, as TOML; `unset` for an option without one.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

impl OptionView {
    /// The value without the quotes of TOML.
    pub fn plain_value(&self) -> String {
        match &*Value::Loose(self.value.clone()).tightened() {
            Value::Text(text) => text.clone(),
            _ => self.value.clone(),
        }
    }

    /// The answer of the `/config` endpoint, as Pegasus gives it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.key,
            "section": self.section,
            "type": (self.schema.flag_type)(),
            "tags": if self.schema.mutable { "flag_tag::FT_MUTABLE" } else { "" },
            "description": sentence(self.schema.doc),
            "value": self.plain_value(),
        })
    }
}

/// The effective configuration as a TOML file, the origin of each value beside it. Loading the result
/// gives the same configuration.
pub fn dump(config: &Config) -> String {
    let mut text = String::new();
    let mut section = None;
    for view in config.options() {
        if section.as_ref() != Some(&view.section) {
            let gap = if section.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{gap}[{}]", toml_path(&view.section));
            section = Some(view.section.clone());
        }
        let mark = if view.value == "unset" { "# " } else { "" };
        let line = format!("{mark}{} = {}", toml_name(&view.key), view.value);
        let _ = writeln!(text, "{line:ORIGIN_COLUMN$} # {}", view.origin);
    }
    text
}

/// A path in TOML, each name quoted if it must be.
fn toml_path(path: &str) -> String {
    path.split('.').map(toml_name).collect::<Vec<_>>().join(".")
}

fn toml_name(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.bytes().all(plain) {
        name.to_owned()
    } else {
        super::value::quote(name)
    }
}

/// The page that documents every key of a schema, in Markdown.
pub fn reference(schema: &ConfigSchema) -> String {
    let mut text = String::from(
        "# Configuration reference\n\n\
         Generated from the declarations of the options; do not edit. One TOML file has all sections of a\n\
         server. `${NAME}` and `${NAME:-default}` in a string stand for a variable of the environment, and\n\
         `--set section.key=value` on the command line wins over the file. In a section written `[x.*]`,\n\
         `*` is a name of your choice, and `[x.default]` gives the values of all others. Durations are\n\
         strings such as `\"5s\"`, `\"100ms\"`, `\"20us\"`; sizes are strings such as `\"64MiB\"` or a number\n\
         of bytes. An option marked *live* can change while the server runs.\n",
    );
    for section in schema.sections() {
        let _ = write!(text, "\n## `[{}]`\n\n{}\n\n", section.path, paragraph(section.doc));
        write_options(&mut text, section);
    }
    text
}

fn write_options(text: &mut String, section: &SectionSchema) {
    text.push_str("| key | type and range | default | meaning |\n|---|---|---|---|\n");
    for option in section.options {
        let default = (option.default)();
        let live = if option.mutable { " *live*" } else { "" };
        let _ = writeln!(
            text,
            "| `{}`{live} | {} | {} | {} |",
            option.key,
            cell(&option.expected()),
            if default == "unset" { default } else { format!("`{}`", cell(&default)) },
            cell(&sentence(option.doc)),
        );
    }
}

/// A doc comment as one line.
fn sentence(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A doc comment as lines.
fn paragraph(doc: &str) -> String {
    doc.lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}

/// Text that may stand in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
