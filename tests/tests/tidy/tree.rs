//! The source files of the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folders that hold no sources of ours.
const SKIPPED: [&str; 3] = ["target", "onebox", "node_modules"];

/// Text files by their path from the root, with `/` between the names.
#[derive(Default)]
pub struct Tree {
    pub files: BTreeMap<String, String>,
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    // Asked when the test runs: clones of the repository may share what they compile.
    let tests = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    Path::new(&tests).parent().expect("the crate lies in the workspace").to_owned()
}

impl Tree {
    /// Reads every Rust and Markdown file.
    pub fn load() -> Self {
        let mut tree = Self::default();
        tree.add(&root(), "");
        assert!(tree.files.len() > 50, "only {} files found", tree.files.len());
        tree
    }

    /// A tree made up for the test of a rule.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { files: files.collect() }
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        let rust = self.files.iter().filter(|(path, _)| path.ends_with(".rs"));
        rust.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn add(&mut self, folder: &Path, prefix: &str) {
        let entries = std::fs::read_dir(folder).expect("a folder of the repository can be listed");
        for entry in entries {
            let entry = entry.expect("a folder of the repository can be listed");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                self.add(&entry.path(), &format!("{path}/"));
            } else if !is_folder && (name.ends_with(".rs") || name.ends_with(".md")) {
                let text = std::fs::read_to_string(entry.path());
                self.files.insert(path, text.expect("sources are UTF-8"));
            }
        }
    }
}
