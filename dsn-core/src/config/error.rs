//! What can be wrong with a configuration, and with a wish to change it.

use std::fmt;

use super::value::Origin;

/// Problems listed in one error message; a file of another program would produce thousands.
const PROBLEMS_SHOWN: usize = 20;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line or override at fault.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// Why a configuration was refused, or a change to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Files or overrides have mistakes: all of them, in order.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
    /// A file cannot be read.
    #[error("cannot read configuration file {path}: {cause}")]
    Unreadable {
        /// The file as it was named.
        path: String,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The program asks for a section that its schema lacks.
    #[error("section [{section}] is not part of this program's configuration")]
    NotRegistered {
        /// The section's path.
        section: &'static str,
    },
    /// No option has this name.
    #[error("no option is called {name:?}{}", suggestion(hint.as_deref()))]
    UnknownOption {
        /// The name asked for.
        name: String,
        /// The known name most like it.
        hint: Option<String>,
    },
    /// The option exists but is read only at the start.
    #[error("{name} cannot change while the server runs")]
    Immutable {
        /// The option's full name.
        name: String,
    },
    /// The value has the wrong type or is out of range.
    #[error("{name} = {value}: expected {expected}")]
    BadValue {
        /// The option's full name.
        name: String,
        /// The refused value.
        value: String,
        /// The type and range.
        expected: String,
    },
}

fn suggestion(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; did you mean {hint:?}?")).unwrap_or_default()
}

fn list(problems: &[Problem]) -> String {
    let mut lines: Vec<String> =
        problems.iter().take(PROBLEMS_SHOWN).map(Problem::to_string).collect();
    if problems.len() > PROBLEMS_SHOWN {
        lines.push(format!("and {} more", problems.len() - PROBLEMS_SHOWN));
    }
    lines.join("\n")
}
