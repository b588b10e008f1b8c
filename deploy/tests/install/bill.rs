//! What `make sbom` has written, against the Makefile and Cargo.lock.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{STATIC, programs, top};

/// `name version` of all packages that the workspace is built of.
fn locked() -> BTreeSet<String> {
    let text = fs::read_to_string(top().join("Cargo.lock")).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let named = packages.map(|it| {
        (
            it["name"].as_str().unwrap(),
            it["version"].as_str().unwrap(),
        )
    });
    named
        .map(|(name, version)| format!("{name} {version}"))
        .collect()
}

/// One program's list: what it is, and that every part is locked, licensed and, if it is others', hashed.
fn check(path: &Path, name: &str, locked: &BTreeSet<String>) {
    let text = fs::read_to_string(path).unwrap();
    assert!(
        !text.contains(top().canonicalize().unwrap().to_str().unwrap()),
        "{name} tells where it was built"
    );
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX", "{name}");
    assert_eq!(bill["specVersion"], "1.5", "{name}");
    let parts = bill["components"].as_array().unwrap();
    assert!(parts.len() > 10, "{name} is made of {} parts", parts.len());
    let mut references: BTreeSet<&str> = parts
        .iter()
        .map(|it| it["bom-ref"].as_str().unwrap())
        .collect();
    references.insert(bill["metadata"]["component"]["bom-ref"].as_str().unwrap());
    for part in parts {
        let text = |key: &str| {
            part[key]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: {part} has no {key}"))
        };
        let package = format!("{} {}", text("name"), text("version"));
        assert!(
            locked.contains(&package),
            "{name}: {package} is not in Cargo.lock"
        );
        assert!(text("purl").starts_with("pkg:cargo/"), "{name}: {package}");
        assert!(
            !part["licenses"].as_array().unwrap().is_empty(),
            "{name}: {package}"
        );
        let is_ours = text("bom-ref").starts_with("path+");
        assert!(
            is_ours || part["hashes"][0]["alg"] == "SHA-256",
            "{name}: {package}"
        );
    }
    for dependency in bill["dependencies"].as_array().unwrap() {
        let known = references.contains(dependency["ref"].as_str().unwrap());
        assert!(known, "{name}: {dependency} is of nothing that is listed");
    }
}

#[test]
#[ignore = "make sbom writes what it reads, and runs it"]
fn every_program_is_listed_with_what_it_is_made_of() {
    let (folder, locked) = (top().join("target/sbom"), locked());
    for name in programs().iter().map(String::as_str).chain(STATIC) {
        check(&folder.join(format!("{name}.cdx.json")), name, &locked);
    }
}
