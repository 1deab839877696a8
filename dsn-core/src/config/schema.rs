//! All sections a program knows, and which of them a table of a file is.

use super::option::{OptionSchema, Section, SectionSchema};

/// The sections a program knows. Each crate declares its own; the program puts them together.
#[derive(Clone, Debug, Default)]
pub struct ConfigSchema {
    sections: Vec<&'static SectionSchema>,
}

impl ConfigSchema {
    /// A schema without sections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a section.
    #[must_use]
    pub fn section<T: Section>(mut self) -> Self {
        if !self.knows(T::schema()) {
            self.sections.push(T::schema());
        }
        self
    }

    /// Adds all sections of another schema.
    #[must_use]
    pub fn merge(mut self, other: &Self) -> Self {
        for section in &other.sections {
            if !self.knows(section) {
                self.sections.push(section);
            }
        }
        self
    }

    /// Every section in the order it was added.
    pub fn sections(&self) -> impl Iterator<Item = &'static SectionSchema> + '_ {
        self.sections.iter().copied()
    }

    /// Whether this very declaration was added.
    pub(crate) fn knows(&self, section: &'static SectionSchema) -> bool {
        self.sections.iter().any(|known| std::ptr::eq(*known, section))
    }

    /// The section a table is, an exact path being preferred to a pattern.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&'static SectionSchema> {
        let fitting = || self.sections().filter(|section| fits(section.path, path));
        fitting().find(|section| !section.is_pattern()).or_else(|| fitting().next())
    }

    /// Whether some section lies below this path, or is it.
    pub(crate) fn reaches(&self, path: &[&str]) -> bool {
        self.sections().any(|section| {
            let mut names = section.path.split('.');
            path.iter().all(|part| names.next().is_some_and(|name| name == "*" || name == *part))
        })
    }

    /// Table names that may stand directly below this path.
    pub(crate) fn children(&self, path: &[&str]) -> Vec<&'static str> {
        let mut names = Vec::new();
        for section in self.sections() {
            let parts: Vec<&str> = section.path.split('.').collect();
            if parts.len() > path.len() && fits(&parts[..path.len()].join("."), path) {
                let name = parts[path.len()];
                if name != "*" && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Options with this key anywhere, with their sections.
    pub(crate) fn named<'a>(
        &'a self,
        key: &'a str,
    ) -> impl Iterator<Item = (&'static SectionSchema, &'static OptionSchema)> + 'a {
        self.sections()
            .flat_map(|section| section.options.iter().map(move |option| (section, option)))
            .filter(move |(_, option)| option.key == key)
    }

    /// What is wrong with the schema itself: a section or an option declared twice, a default that is out of its own
    /// range, a missing explanation, a section that is a key of another. Empty when all is well; every
    /// program asserts that in a test.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (i, section) in self.sections().enumerate() {
            if self.sections[..i].iter().any(|other| other.path == section.path) {
                problems.push(format!("[{}] is declared twice", section.path));
            }
            if section.doc.trim().is_empty() {
                problems.push(format!("[{}] has no explanation", section.path));
            }
            let path: Vec<&str> = section.path.split('.').collect();
            for (i, option) in section.options.iter().enumerate() {
                let name = format!("[{}] {}", section.path, option.key);
                if option.doc.trim().is_empty() {
                    problems.push(format!("{name} has no explanation"));
                }
                if section.options[..i].iter().any(|other| other.key == option.key) {
                    problems.push(format!("{name} is declared twice"));
                }
                if self.children(&path).contains(&option.key) {
                    problems.push(format!("{name} is also the name of a section"));
                }
                let default = (option.default)();
                if default != "unset"
                    && (option.check)(&super::Value::Loose(default.clone())).is_none()
                {
                    problems
                        .push(format!("{name}: default {default} is not {}", option.expected()));
                }
            }
        }
        problems
    }
}

/// Whether the concrete `path` is an instance of `pattern`.
fn fits(pattern: &str, path: &[&str]) -> bool {
    if pattern.is_empty() {
        return path.is_empty();
    }
    let mut names = pattern.split('.');
    path.iter().all(|part| names.next().is_some_and(|name| name == "*" || name == *part))
        && names.next().is_none()
}

/// The candidate most like `word`, if one is like it at all: at most a third of its letters differ.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= limit && distance < candidate.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance: letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::options! {
        /// Good.
        section Good at "top" {
            /// Fine.
            fine: u32 = 3, in 1..=5;
        }
    }
    crate::options! {
        /// Below.
        section Below at "top.*.low" {
            /// Default out of range, and twice.
            twice: u32 = 9, in 1..=5;
        }
    }
    crate::options! {
        /// In the way of a key.
        section InTheWay at "top.fine" { }
    }
    crate::options! {
        /// Another with the same name.
        section Again at "top" { }
    }

    #[test]
    fn sections_are_found_by_path() {
        let schema = ConfigSchema::new().section::<Good>().section::<Below>().section::<Good>();
        assert_eq!(schema.sections().count(), 2);
        assert_eq!(schema.at(&["top"]).map(|s| s.path), Some("top"));
        assert_eq!(schema.at(&["top", "x", "low"]).map(|s| s.path), Some("top.*.low"));
        assert!(schema.at(&["top", "x"]).is_none() && schema.reaches(&["top", "x"]));
        assert!(!schema.reaches(&["top", "x", "high"]) && schema.reaches(&[]));
        assert_eq!(schema.children(&["top", "x"]), ["low"]);
        assert_eq!(schema.children(&[]), ["top"]);
    }

    #[test]
    fn a_schema_can_judge_itself() {
        assert_eq!(ConfigSchema::new().section::<Good>().problems(), Vec::<String>::new());
        let twice = ConfigSchema::new().section::<Good>().section::<Again>().problems();
        assert_eq!(twice, ["[top] is declared twice"]);
        let all = ConfigSchema::new().section::<Good>().section::<Below>().section::<InTheWay>();
        let problems = all.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!((Good::default().fine, Below::default().twice), (3, 9));
        assert!(problems[0].contains("[top] fine is also the name of a section"));
        assert!(problems[1].contains("default 9 is not a whole number, 1 to 5"));
    }

    #[test]
    fn patterns_fit_paths() {
        assert!(fits("a.*", &["a", "x"]) && fits("a.*.b", &["a", "x", "b"]) && fits("", &[]));
        assert!(!fits("a.*", &["a"]) && !fits("a.*", &["a", "x", "y"]) && !fits("a", &["b"]));
    }

    #[test]
    fn nearest_finds_typing_mistakes_only() {
        let keys = ["staleness_for_commit", "max_mutation_count", "on"];
        assert_eq!(nearest("stalenes_for_comit", keys), Some("staleness_for_commit"));
        assert_eq!(nearest("max_mutations_count", keys), Some("max_mutation_count"));
        assert_eq!(nearest("zz", keys), None);
        assert_eq!(nearest("something_else_entirely", keys), None);
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
