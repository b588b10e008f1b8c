//! `docs/findings.schema.json` says what we write.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fixture::findings;
use super::load;
use crate::scenario::{Role, Verdict};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn schema() -> Value {
    let text = std::fs::read_to_string(docs().join("findings.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The words of JSON Schema that ours uses; an unknown one is an error, so that none is passed over.
fn check(value: &Value, schema: &Value, place: &str) -> Result<(), String> {
    for (word, wants) in schema.as_object().unwrap() {
        let holds = match word.as_str() {
            "$schema" | "$id" | "title" | "description" | "additionalProperties" => true,
            "const" => value == wants,
            "enum" => wants.as_array().unwrap().contains(value),
            "type" => match wants {
                Value::Array(several) => several.iter().any(|it| is_a(value, it)),
                one => is_a(value, one),
            },
            "required" => {
                let mut names = wants.as_array().unwrap().iter();
                names.all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "items" => {
                let mut items = value.as_array().unwrap().iter();
                return items.try_for_each(|item| check(item, wants, &format!("{place}[]")));
            }
            "properties" => {
                for (name, member) in value.as_object().unwrap() {
                    let known = wants.get(name).ok_or(format!("{place} has {name}"))?;
                    check(member, known, &format!("{place}.{name}"))?;
                }
                true
            }
            other => return Err(format!("the schema's {other} is not known here")),
        };
        if !holds {
            return Err(format!("{place}: {value} is not {word} {wants}"));
        }
    }
    Ok(())
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known here"),
    }
}

#[test]
fn the_schema_says_what_is_written_and_no_more() {
    let mut run = findings(&[("ringside", Role::Ours, [1.0; 5])]);
    run.verdicts.push(Verdict {
        aim: "rate".to_owned(),
        place: "tmpfs".to_owned(),
        bound: ">= 1.5".to_owned(),
        measured: None,
        met: None,
        note: String::new(),
    });
    let written = serde_json::to_value(&run).unwrap();
    check(&written, &schema(), "").unwrap();
    for (pointer, wrong) in [
        ("/scenario", json!("other")),
        ("/groups/0/figures/0/better", json!("more")),
        ("/groups/0/figures/0/entries/0/samples", json!(["1"])),
        ("/verdicts/0", json!({})),
    ] {
        let mut altered = written.clone();
        *altered.pointer_mut(pointer).unwrap() = wrong;
        assert!(check(&altered, &schema(), "").is_err(), "{pointer}");
    }
}

/// Runs of older forms are drawn and compared in the common one.
#[test]
fn committed_runs_fit_the_schema() {
    let runs = std::fs::read_dir(docs().join("performance")).unwrap();
    let runs = runs.map(|it| it.unwrap().path());
    let mut read = 0;
    for path in runs.filter(|it| it.extension().is_some_and(|it| it == "json")) {
        let run = load(&path).unwrap();
        check(&serde_json::to_value(&run).unwrap(), &schema(), "").unwrap();
        read += 1;
    }
    assert!(read > 0);
}
