//! Keeps `configs/reference.md` equal to what the declarations of the options say.
//!
//! After changing an option: `UPDATE_REFERENCE=1 cargo test -p dsn-core --test config_reference`.

use std::path::Path;

use dsn_core::config::{core_schema, reference};

#[test]
#[expect(clippy::disallowed_methods, reason = "rewrites a file of the source tree on request")]
fn the_reference_page_is_fresh() {
    // Asked when the test runs: clones of the repository may share what they compile.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    let path = Path::new(&manifest).join("../configs/reference.md");
    let wanted = reference(&core_schema());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &wanted).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} is stale; run this test with UPDATE_REFERENCE=1", path.display());
}
