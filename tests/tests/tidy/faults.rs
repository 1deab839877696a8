//! `docs/faults.md` names tests; each of them must exist.

use crate::tree::Tree;
use std::collections::BTreeSet;

/// Lines of the tables of bugs that must name a test, at least.
const BUGS_MIN: usize = 40;

/// Complaints about the page.
pub fn check(tree: &Tree) -> Vec<String> {
    let page = tree.files.get("docs/faults.md").map_or("", String::as_str);
    let tests = tests_of(tree);
    let mut complaints = missing(page, &tests);
    let bugs = page.split("## Bugs").nth(1).unwrap_or_default();
    let count = bugs.lines().filter(|line| line.starts_with("| ") && line.contains('`')).count();
    if count < BUGS_MIN {
        complaints.push(format!("docs/faults.md: {count} bugs have a test, not {BUGS_MIN}"));
    }
    complaints
}

fn missing(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let rows = page.lines().enumerate().filter(|(_, line)| line.starts_with("| "));
    let names = rows
        .flat_map(|(at, line)| line.split('`').skip(1).step_by(2).map(move |name| (at + 1, name)));
    names
        .filter(|(_, name)| !tests.contains(*name))
        .map(|(line, name)| format!("docs/faults.md:{line}: there is no test {name}"))
        .collect()
}

/// The names of all functions that follow `#[test]`.
fn tests_of(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in tree.rust() {
        for rest in text.split("#[test]").skip(1) {
            let name = rest.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next());
            names.extend(name.map(str::to_owned));
        }
    }
    names
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let tests = BTreeSet::from(["one".to_owned()]);
    let found = missing("| a | `one` `two` |\nnot a `table`\n", &tests);
    assert_eq!(found, ["docs/faults.md:1: there is no test two"]);
}
