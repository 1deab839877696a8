//! What can be said about a file by looking at its lines.

use crate::tree::Tree;

/// One idea per file: no idea needs more lines than this.
const LINES_MAX: usize = 700;
/// rustfmt keeps code within 100 columns; prose and the insides of macros get a little more.
const COLUMNS_MAX: usize = 120;

/// What must not be committed, and what to do instead. Split, so that this file may contain them.
const BANNED: [(&str, &str); 6] = [
    (concat!("todo", "!("), "build it, or leave it out"),
    (concat!("unimplemented", "!("), "build it, or leave it out"),
    (concat!("db", "g!("), "use tracing"),
    (concat!("#[", "ignore"), "a test that does not run is no test: repair it or remove it"),
    (concat!("FIX", "ME"), "repair it, or file an issue"),
    (concat!("XX", "X:"), "repair it, or file an issue"),
];

/// Files that may say `unsafe`, with the reason.
pub const UNSAFE_FILES: [(&str, &str); 2] = [
    ("pegasus-server/src/engine/rocks/ffi.rs", "RocksDB's C interface"),
    ("pegasus-client/tests/fuzz/alloc.rs", "counts allocations"),
];

/// Header, length, width, banned words, fenced `unsafe`.
pub fn check(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.rust() {
        if !text.starts_with("//!") {
            complaints.push(format!("{path}:1: begin with `//!`: what the file is for"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            complaints
                .push(format!("{path}: {lines} lines, more than {LINES_MAX}: one idea per file"));
        }
        for (number, line) in text.lines().enumerate() {
            let mut complain =
                |what: &str| complaints.push(format!("{path}:{}: {what}", number + 1));
            let width = line.chars().count();
            if width > COLUMNS_MAX {
                complain(&format!("{width} columns, more than {COLUMNS_MAX}"));
            }
            for (word, instead) in BANNED {
                if line.contains(word) {
                    complain(&format!("{word}: {instead}"));
                }
            }
            if says_unsafe(line) && !UNSAFE_FILES.iter().any(|(file, _)| *file == path) {
                complain(
                    "unsafe code: only files on the list in tests/tests/tidy/text.rs have any",
                );
            }
        }
    }
    for (file, _) in UNSAFE_FILES {
        if !tree.files.get(file).is_some_and(|text| text.lines().any(says_unsafe)) {
            complaints.push(format!("{file} may say unsafe but does not: take it off the list"));
        }
    }
    complaints
}

/// Whether a line has unsafe code. Comments and the names of lints do not count.
fn says_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["{", "fn", "impl", "extern", "trait"].iter().any(|next| {
        code.split_once(concat!("uns", "afe ")).is_some_and(|(before, after)| {
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"')
                && after.trim_start().starts_with(next)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> String {
        let mut tree = Tree::of(&[("x/a.rs", text)]);
        for (file, _) in UNSAFE_FILES {
            tree.files.insert(file.into(), format!("//! x\n{}{{}}", concat!("uns", "afe ")));
        }
        check(&tree).join("\n")
    }

    #[test]
    fn bad_files_are_noticed() {
        assert_eq!(complaints("//! Good.\nfn f() {}\n"), "");
        assert!(complaints("fn f() {}\n").contains("x/a.rs:1: begin with `//!`"));
        assert!(complaints(&format!("//! x\n{}", "\n".repeat(700))).contains("701 lines"));
        assert_eq!(complaints(&format!("//! {}\n", "ä".repeat(116))), "");
        assert!(
            complaints(&format!("//! {}\n", "x".repeat(117))).contains("x/a.rs:1: 121 columns")
        );
        let banned = format!("//! x\n    {})\n", BANNED[0].0);
        assert!(complaints(&banned).contains("x/a.rs:2: "));
        let keyword = concat!("uns", "afe");
        assert!(
            complaints(&format!("//! x\nlet a = {keyword} {{ b() }};\n")).contains("unsafe code")
        );
        assert!(complaints(&format!("//! x\n{keyword} fn f() {{}}\n")).contains("unsafe code"));
        assert_eq!(
            complaints(&format!("//! x\n#![forbid({keyword}_code)]\n// {keyword} fn\n")),
            ""
        );
    }
}
