//! The rules of this repository that a program can check, each a test.
//!
//! A rule is a function from the tree to a list of complaints; a complaint names the file, the line and
//! what to do instead. Each rule is also shown a bad example, so that it cannot quietly stop working.

mod architecture;
mod crates;
mod faults;
mod modules;
mod text;
mod tree;

use tree::Tree;

/// Fails with all complaints at once.
fn check(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_file_is_tidy() {
    check(text::check(&Tree::load()));
}

#[test]
fn crates_depend_downwards_only() {
    check(crates::check(&crates::metadata()));
}

#[test]
fn crate_roots_forbid_unsafe_code() {
    check(crates::check_unsafe(&Tree::load(), &crates::metadata()));
}

#[test]
fn every_file_is_compiled() {
    check(modules::check(&Tree::load(), &crates::metadata()));
}

#[test]
fn every_fault_has_the_tests_that_are_named() {
    check(faults::check(&Tree::load()));
}

#[test]
fn the_map_shows_the_territory() {
    check(architecture::check(&Tree::load()));
}
