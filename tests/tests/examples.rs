//! The examples of the client library, each run against a real cluster as its header says.

use cluster_tests::onebox::{Onebox, OneboxOptions, program};
use std::process::Command;

/// Runs an example with meta server and table; what it printed.
fn run(name: &str, onebox: &Onebox) -> String {
    let output = Command::new(program(&format!("examples/{name}")))
        .args([&onebox.meta().to_string(), "temp"])
        .output()
        .expect("the example starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}\n{errors}");
    text
}

#[test]
fn the_examples_do_what_they_say() {
    let onebox = Onebox::start("examples", &OneboxOptions::single());
    let client = onebox.with_table(1);

    let text = run("put_get", &onebox);
    for line in [
        "name: Some(b\"Ada\")",
        "seconds left: Some(Some(36",
        "visits: 1",
        "  b\"name\" = b\"Ada\"",
        "records: 2",
        "there is no such table (table no such table",
        "ambiguous false",
    ] {
        assert!(text.contains(line), "{line:?} is missing:\n{text}");
    }
    let last = client.table("temp").get(b"key999", b"").expect("get");
    assert_eq!(last.as_deref(), Some(&b"999"[..]), "all thousand writes were done");

    let text = run("check_and_set", &onebox);
    let lines: Vec<&str> = text.lines().collect();
    let expected =
        ["ada: true", "bob: held by b\"ada\"", "bob: false", "first: true, second: false"];
    assert_eq!(lines, expected);

    let text = run("scan", &onebox);
    let mut expected: Vec<String> =
        (10..15).map(|day| format!("b\"2024-01-{day}\" = b\"day {day}\"")).collect();
    expected.push("31 records".to_owned());
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}
