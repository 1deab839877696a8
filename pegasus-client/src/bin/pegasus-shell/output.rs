//! What commands print: aligned plain text, or one JSON document per command.
//!
//! A cell is a JSON value; plain text shows strings bare, `-` for what is not there and lists with commas.
//! Long tables are written while they grow: plain text is aligned per [`CHUNK_ROWS`] rows.

use pegasus_client::schema::key::Escaped;
use serde_json::{Map, Value};
use std::io::{self, BufWriter, Write};

/// Rows that are held back to align them.
pub const CHUNK_ROWS: usize = 1000;

/// Key or value bytes as a cell.
pub fn cell(bytes: &[u8]) -> Value {
    Value::String(Escaped(bytes).to_string())
}

/// Where output goes, and in which form.
pub struct Output {
    json: bool,
    to: Box<dyn Write + Send>,
}

impl Output {
    /// To standard output.
    pub fn stdout(json: bool) -> Self {
        Self { json, to: Box::new(BufWriter::new(io::stdout())) }
    }

    /// Whether it is JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// That nothing stays behind.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// One value with a name; plain text shows the value alone.
    pub fn value(&mut self, name: &str, value: Value) -> io::Result<()> {
        if self.json {
            return self.document(&Value::Object(Map::from_iter([(name.to_owned(), value)])));
        }
        writeln!(self.to, "{}", plain(&value))
    }

    /// Several values with names.
    pub fn pairs<N: Into<String>>(
        &mut self,
        pairs: impl IntoIterator<Item = (N, Value)>,
    ) -> io::Result<()> {
        let pairs: Vec<(String, Value)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value)).collect();
        if self.json {
            return self.document(&Value::Object(pairs.into_iter().collect()));
        }
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in pairs {
            writeln!(self.to, "{name:width$}  {}", plain(&value))?;
        }
        Ok(())
    }

    /// A table.
    pub fn table(&mut self, columns: &[&'static str], rows: Vec<Vec<Value>>) -> io::Result<()> {
        let mut table = self.rows(columns)?;
        for row in rows {
            table.push(row)?;
        }
        table.finish()
    }

    /// A table whose rows come one by one. [`Rows::finish`] must be called, also after an error.
    pub fn rows<'a>(&'a mut self, columns: &[&'static str]) -> io::Result<Rows<'a>> {
        if self.json {
            self.to.write_all(b"[")?;
        }
        Ok(Rows { out: self, columns: columns.to_vec(), held: Vec::new(), written: 0 })
    }

    fn document(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.to, "{value:#}")
    }
}

/// A table under way.
pub struct Rows<'a> {
    out: &'a mut Output,
    columns: Vec<&'static str>,
    held: Vec<Vec<Value>>,
    written: usize,
}

impl Rows<'_> {
    /// Adds a row; it has as many cells as there are columns.
    pub fn push(&mut self, row: Vec<Value>) -> io::Result<()> {
        if self.out.json {
            let separator = if self.written == 0 { "\n  " } else { ",\n  " };
            let names = self.columns.iter().map(|name| name.to_lowercase().replace(' ', "_"));
            let row: Map<String, Value> = names.zip(row).collect();
            self.written += 1;
            return write!(self.out.to, "{separator}{}", Value::Object(row));
        }
        self.held.push(row);
        if self.held.len() >= CHUNK_ROWS { self.write_held() } else { Ok(()) }
    }

    /// Writes what is left.
    pub fn finish(mut self) -> io::Result<()> {
        if self.out.json {
            return self.out.to.write_all(if self.written == 0 { b"]\n" } else { b"\n]\n" });
        }
        self.write_held()
    }

    fn write_held(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let right: Vec<bool> = (0..self.columns.len())
            .map(|column| !held.is_empty() && held.iter().all(|row| row[column].is_number()))
            .collect();
        let mut lines: Vec<Vec<String>> = Vec::with_capacity(held.len() + 1);
        if self.written == 0 {
            lines.push(self.columns.iter().map(|name| name.to_string()).collect());
        }
        self.written += held.len();
        lines.extend(held.iter().map(|row| row.iter().map(plain).collect()));
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        for line in &lines {
            let mut text = String::new();
            for ((cell, width), right) in line.iter().zip(&widths).zip(&right) {
                if !text.is_empty() {
                    text.push_str("  ");
                }
                let pad = " ".repeat(width - cell.chars().count());
                let (before, after) = if *right { (pad.as_str(), "") } else { ("", pad.as_str()) };
                text.push_str(before);
                text.push_str(cell);
                text.push_str(after);
            }
            writeln!(self.out.to, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    /// Text that a test looks at.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(json: bool, f: impl FnOnce(&mut Output)) -> String {
        let sink = Sink::default();
        f(&mut Output { json, to: Box::new(sink.clone()) });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn some_rows() -> Vec<Vec<Value>> {
        vec![
            vec![json!("temp"), json!(8), json!(["a:1", "b:2"])],
            vec![json!("x"), json!(128), json!([])],
        ]
    }

    #[test]
    fn plain_tables_are_aligned() {
        let text = printed(false, |out| out.table(&["Name", "Count", "At"], some_rows()).unwrap());
        let expected = "Name  Count  At\ntemp      8  a:1,b:2\nx       128  -\n";
        assert_eq!(text, expected);
        let text = printed(false, |out| out.table(&["Name", "Count"], Vec::new()).unwrap());
        assert_eq!(text, "Name  Count\n");
    }

    #[test]
    fn json_tables_are_one_document() {
        for rows in [some_rows(), Vec::new()] {
            let count = rows.len();
            let text = printed(true, |out| out.table(&["Name", "Row Count", "At"], rows).unwrap());
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value.as_array().unwrap().len(), count);
            if count > 0 {
                assert_eq!(value[0], json!({"name": "temp", "row_count": 8, "at": ["a:1", "b:2"]}));
            }
        }
    }

    #[test]
    fn a_long_table_has_one_heading() {
        let rows = (0..CHUNK_ROWS * 2 + 1).map(|n| vec![json!(n)]).collect();
        let text = printed(false, |out| out.table(&["N"], rows).unwrap());
        assert_eq!(text.lines().filter(|line| line.trim() == "N").count(), 1);
        assert_eq!(text.lines().count(), CHUNK_ROWS * 2 + 2);
    }

    #[test]
    fn pairs_and_values() {
        let pairs = || [("a", json!(1)), ("long", Value::Null)];
        assert_eq!(printed(false, |out| out.pairs(pairs()).unwrap()), "a     1\nlong  -\n");
        let text = printed(true, |out| out.pairs(pairs()).unwrap());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"a": 1, "long": null}));
        let value = cell(b"\x00a b");
        assert_eq!(printed(false, |out| out.value("value", value.clone()).unwrap()), "\\x00a b\n");
        let text = printed(true, |out| out.value("value", value).unwrap());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"value": "\\x00a b"}));
    }
}
