//! The text of a line.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::current;
use crate::time::{Wall, nanos_of};

/// A line's length in bytes, its end included; what is longer is cut. A value of a client may be huge.
pub const LINE_MAX: usize = 16 * 1024;

const CUT: &str = "...";

/// The line of an event, with the line break.
pub(super) fn line(event: &Event<'_>) -> String {
    let metadata = event.metadata();
    let mut line = String::with_capacity(256);
    let letter = match *metadata.level() {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO => 'I',
        Level::DEBUG | Level::TRACE => 'D',
    };
    let _ = write!(line, "{letter}{} ", now().utc());
    current::write_place(&mut line);
    let _ = write!(line, " {}:", metadata.target());
    event.record(&mut Message(&mut line));
    event.record(&mut Fields(&mut line));
    line.push('\n');
    line
}

/// The time a line bears.
#[expect(
    clippy::disallowed_methods,
    reason = "the log is outside the driver; it only shows the time"
)]
fn now() -> Wall {
    current::virtual_time().unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall::from_unix_nanos(nanos_of(since))
    })
}

/// Appends the message, which stands before all fields wherever the macro has it.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(Escaped(self.0), " {value:?}");
        }
    }
}

/// Appends the fields as ` name=value`.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            let _ = write!(Escaped(self.0), " {}={value:?}", field.name());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Quotes only where they are needed to see where the value ends.
        if field.name() != "message" && !value.is_empty() && !value.contains([' ', '"', '=']) {
            let _ = write!(Escaped(self.0), " {}={value}", field.name());
        } else {
            self.record_debug(field, &value);
        }
    }
}

/// Appends text with control characters escaped, up to the limit of a line.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Room for the mark and the line break.
        let limit = LINE_MAX - CUT.len() - 1;
        for c in text.chars() {
            let length = self.0.len();
            if c.is_control() {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
            if self.0.len() > limit {
                self.0.truncate(length);
                if !self.0.ends_with(CUT) {
                    self.0.push_str(CUT);
                }
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}
