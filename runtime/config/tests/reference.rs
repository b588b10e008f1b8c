//! docs/configuration.md is what the code says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

use std::fs;
use std::path::Path;

use ringside_config::reference;

const BEGIN: &str =
    "<!-- From here on `RINGSIDE_BLESS=1 cargo test -p ringside-config` writes. -->\n\n";

#[test]
fn the_page_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = fs::read_to_string(&path).unwrap();
    let (prose, _) = page.split_once(BEGIN).expect("the page has its mark");
    let wanted = format!("{prose}{BEGIN}{}\n", reference().trim_end());
    if std::env::var_os("RINGSIDE_BLESS").is_some() {
        fs::write(&path, &wanted).unwrap();
    } else {
        let hint =
            "docs/configuration.md is out of step: RINGSIDE_BLESS=1 cargo test -p ringside-config";
        assert!(page == wanted, "{hint}");
    }
}
