//! `${NAME}` and `${NAME:-default}` in configuration strings.
//!
//! Only string values are searched, never keys, comments or the text of the file: what a variable
//! contains can therefore not change the structure of the configuration. Because the option decides the
//! type, `port = "${PORT}"` is fine for an integer option. `$${` stands for a literal `${`.

use std::collections::BTreeMap;

/// The variables a configuration may name, usually the environment of the process.
pub type Variables = BTreeMap<String, String>;

/// Replaces every variable in `text`. `Ok(None)` when there is nothing to replace.
///
/// # Errors
/// A message when a variable is not set and has no default, or a brace is not closed.
pub(crate) fn substitute(text: &str, variables: &Variables) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            result.push_str(&rest[..at]);
            result.push('{');
            rest = &rest[at + 2..];
            continue;
        }
        result.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            return Err(format!("\"${{\" without \"}}\" in {text:?}"));
        };
        result.push_str(&lookup(&inner[..end], variables)?);
        rest = &inner[end + 1..];
    }
    result.push_str(rest);
    Ok(Some(result))
}

fn lookup(inner: &str, variables: &Variables) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("{name:?} is not the name of a variable"));
    }
    // As in a shell, `:-` also replaces an empty value.
    match (variables.get(name), default) {
        (Some(value), None) => Ok(value.clone()),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "variable {name} is not set; set it, or write ${{{name}:-value}} to give a default"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<Option<String>, String> {
        let variables = [("A", "1"), ("EMPTY", ""), ("EVIL", "${A}\" ]")];
        substitute(text, &variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }

    #[test]
    fn variables_are_replaced_once() {
        let ok = |text| run(text).expect("valid").expect("changed");
        assert_eq!(ok("x${A}y${A}"), "x1y1");
        assert_eq!(ok("${NONE:-dir/a}"), "dir/a");
        assert_eq!(ok("${EMPTY:-full}|${EMPTY}"), "full|");
        assert_eq!(ok("${A:-2}"), "1");
        assert_eq!(ok("$${A} ${A}"), "${A} 1");
        assert_eq!(ok("${EVIL}"), "${A}\" ]");
        assert_eq!(run("costs $5 {A}"), Ok(None));
    }

    #[test]
    fn mistakes_are_reported() {
        assert!(run("${NONE}").is_err_and(|e| e.contains("NONE is not set")));
        assert!(run("${A").is_err_and(|e| e.contains("without")));
        assert!(run("${}").is_err_and(|e| e.contains("name of a variable")));
        assert!(run("${a b}").is_err());
    }
}
