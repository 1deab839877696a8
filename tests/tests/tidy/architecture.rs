//! `ARCHITECTURE.md` names files and functions; each of them exists.
//!
//! Looked at are the tables with the columns hop, path and symbol, path and symbol in backquotes:
//!
//! ```text
//! | Hop | File | Function |
//! |---|---|---|
//! | bytes arrive | `dsn-rpc/src/session/read.rs` | `Session::on_readable` |
//! ```

use crate::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";

/// Rows whose path or symbol does not exist, and a map that shows nothing.
pub fn check(tree: &Tree) -> Vec<String> {
    let Some(map) = tree.files.get(MAP) else { return vec![format!("{MAP} is missing")] };
    let mut complaints = Vec::new();
    let mut hops = 0;
    for (number, line) in map.lines().enumerate() {
        let Some((path, symbol)) = hop(line) else { continue };
        hops += 1;
        let mut complain = |what: String| complaints.push(format!("{MAP}:{}: {what}", number + 1));
        match tree.files.get(path) {
            None => complain(format!("there is no file {path}")),
            Some(source) if !defines(source, symbol) => complain(format!("{path} has no {symbol}")),
            Some(_) => {}
        }
    }
    if hops == 0 {
        complaints.push(format!("{MAP} has no table of hops"));
    }
    complaints
}

/// Path and symbol of a table's row that has them in its second and third cell.
fn hop(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
    let (_, path, symbol) = (cells.next()?, quoted(cells.next()?)?, quoted(cells.next()?)?);
    path.ends_with(".rs").then_some((path, symbol))
}

fn quoted(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

/// Whether a file declares the last name of `Type::function` and mentions the others.
fn defines(source: &str, symbol: &str) -> bool {
    let names: Vec<&str> = symbol.trim_end_matches("()").split("::").collect();
    let Some((last, owners)) = names.split_last() else { return false };
    const KEYWORDS: [&str; 9] =
        ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "macro_rules!"];
    let declares = |line: &str| {
        let words: Vec<&str> =
            line.split(|c: char| c.is_whitespace() || "(<:;{=".contains(c)).collect();
        words.windows(2).any(|pair| KEYWORDS.contains(&pair[0]) && pair[1] == *last)
    };
    let mentions = |name: &&str| {
        source.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == *name)
    };
    source.lines().any(declares) && owners.iter().all(mentions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_symbols_must_exist() {
        let source = "//! x\nimpl Session {\n    pub(crate) fn on_readable<'a>(&mut self) {}\n}\npub struct Tail;\n";
        let map = "| Hop | File | Function |\n|---|---|---|\n\
                   | a | `x/read.rs` | `Session::on_readable` |\n\
                   | b | `x/read.rs` | `Tail` |\n\
                   | c | `x/gone.rs` | `f` |\n\
                   | d | `x/read.rs` | `Session::on_read` |\n\
                   | e | `x/read.rs` | `Connection::on_readable` |\n";
        let tree = Tree::of(&[(MAP, map), ("x/read.rs", source)]);
        let expected = [
            "ARCHITECTURE.md:5: there is no file x/gone.rs",
            "ARCHITECTURE.md:6: x/read.rs has no Session::on_read",
            "ARCHITECTURE.md:7: x/read.rs has no Connection::on_readable",
        ];
        assert_eq!(check(&tree), expected);
        assert_eq!(check(&Tree::of(&[])), ["ARCHITECTURE.md is missing"]);
        assert_eq!(
            check(&Tree::of(&[(MAP, "no table")])),
            ["ARCHITECTURE.md has no table of hops"]
        );
    }
}
