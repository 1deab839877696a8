//! Every source file belongs to some program: none is left lying about.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::crates::{packages, relative, text};
use crate::tree::Tree;

/// Files that no `mod` declaration reaches, and declarations without a file.
pub fn check(tree: &Tree, metadata: &Value) -> Vec<String> {
    let targets =
        packages(metadata).flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let roots: Vec<String> = targets.map(|target| relative(text(target, "src_path"))).collect();
    let mut complaints = Vec::new();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut waiting: Vec<(String, bool)> = roots.into_iter().map(|root| (root, true)).collect();
    while let Some((path, is_root)) = waiting.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        let Some(source) = tree.files.get(&path) else { continue };
        for declared in declared_modules(source) {
            let candidates = declared.candidates(&path, is_root);
            match candidates.iter().find(|candidate| tree.files.contains_key(*candidate)) {
                Some(found) => waiting.push((found.clone(), false)),
                None => complaints.push(format!("{path}: mod {} has no file", declared.name)),
            }
        }
    }
    let rust: BTreeMap<&str, &str> = tree.rust().collect();
    let dead = rust.keys().filter(|path| !reached.contains(**path));
    complaints.extend(dead.map(|path| format!("{path}: no `mod` declaration reaches this file")));
    complaints
}

struct Declared {
    name: String,
    /// Of a `#[path = "..."]` attribute.
    path: Option<String>,
    /// Names of the inline modules around it.
    within: Vec<String>,
}

impl Declared {
    /// Where its file may be.
    fn candidates(&self, parent: &str, parent_is_root: bool) -> Vec<String> {
        let (folder, file) = parent.rsplit_once('/').unwrap_or(("", parent));
        let owns_folder = parent_is_root || file == "mod.rs";
        if let Some(path) = &self.path {
            return vec![normal(&format!("{folder}/{path}"))];
        }
        let mut base = folder.to_owned();
        if !owns_folder {
            base = format!("{base}/{}", file.trim_end_matches(".rs"));
        }
        for name in &self.within {
            base = format!("{base}/{name}");
        }
        vec![format!("{base}/{}.rs", self.name), format!("{base}/{}/mod.rs", self.name)]
    }
}

/// A path without `..`.
fn normal(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').filter(|name| *name != ".") {
        if name == ".." && !names.is_empty() {
            names.pop();
        } else {
            names.push(name);
        }
    }
    names.join("/")
}

/// The `mod name;` declarations of a file. Inline modules are followed by their indentation, which is
/// sound for text that rustfmt has formatted.
fn declared_modules(source: &str) -> Vec<Declared> {
    let mut declared = Vec::new();
    let mut path = None;
    let mut within: Vec<(usize, String)> = Vec::new();
    for line in source.lines() {
        let code = line.trim();
        let indent = line.len() - line.trim_start().len();
        if code == "}" {
            within.retain(|(outer, _)| *outer < indent);
        }
        if let Some(rest) = code.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(str::to_owned);
            continue;
        }
        let item = code.strip_prefix("pub ").unwrap_or(code);
        let item = match item.strip_prefix("pub(").and_then(|rest| rest.split_once(") ")) {
            Some((_, item)) => item,
            None => item,
        };
        let Some(rest) = item.strip_prefix("mod ") else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let after = rest[name.len()..].trim_start();
        if after.starts_with(';') {
            let within = within.iter().map(|(_, name)| name.clone()).collect();
            declared.push(Declared { name, path: path.take(), within });
        } else if after == "{" {
            within.push((indent, name));
        }
    }
    declared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::root;
    use serde_json::json;

    #[test]
    fn dead_files_and_missing_ones_are_noticed() {
        let tree = Tree::of(&[
            (
                "x/src/lib.rs",
                "//! x\npub mod a;\npub(crate) mod b; // b\nmod gone;\nmod c {\n    mod d;\n}\nmod e;\n",
            ),
            (
                "x/src/a.rs",
                "//! x\nmod below;\n#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\n",
            ),
            ("x/src/a/below.rs", "//! x"),
            ("x/src/a_tests.rs", "//! x"),
            ("x/src/b/mod.rs", "//! x\nmod inner;\n"),
            ("x/src/b/inner.rs", "//! x"),
            ("x/src/c/d.rs", "//! x"),
            ("x/src/e.rs", "//! x"),
            ("x/src/dead.rs", "//! x"),
            ("x/tests/t.rs", "//! x\nmod common;\n"),
            ("x/tests/common/mod.rs", "//! x"),
        ]);
        let at = |path: &str| json!({ "src_path": root().join(path).display().to_string() });
        let package = json!({ "targets": [at("x/src/lib.rs"), at("x/tests/t.rs")] });
        let complaints = check(&tree, &json!({ "packages": [package] }));
        let expected = [
            "x/src/lib.rs: mod gone has no file",
            "x/src/dead.rs: no `mod` declaration reaches this file",
        ];
        assert_eq!(complaints, expected);
    }
}
