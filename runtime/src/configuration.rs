//! `ringside config`: the configuration in use.

use std::io::{self, Write};

use ringside_config::{Settings, default_file};
use serde_json::{Map, Value, json};

use crate::options::ConfigOptions;

/// Prints it and returns the exit code.
///
/// # Errors
/// When the configuration cannot be used, or not be printed.
pub fn command(options: &ConfigOptions) -> anyhow::Result<u8> {
    let text = if options.default {
        default_file()
    } else {
        let settings = load(options)?;
        match options.json {
            true => format!("{:#}\n", as_json(&settings)),
            false => as_toml(&settings),
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(0),
    }
}

fn load(options: &ConfigOptions) -> Result<Settings, ringside_config::Error> {
    let host = match &options.file {
        Some(path) => Settings::load_from(path)?,
        None => Settings::load()?,
    };
    let annotations = options.annotation.iter();
    host.with_annotations(annotations.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// A file that says the same, with the origins in comments.
fn as_toml(settings: &Settings) -> String {
    let mut text = String::new();
    let mut last = None;
    for (key, origin) in settings.origins() {
        let (table, name) = key.parts();
        if let Some(table) = table.filter(|_| table != last) {
            text.push_str(&format!("\n[{table}]\n"));
        }
        last = table;
        text.push_str(&match key.value(settings.config()) {
            Some(value) => format!("{name} = {value}  # {origin}\n"),
            None => format!("#{name} =  # not set\n"),
        });
    }
    text
}

/// `{"machine.cpus": {"value": 2, "from": "/etc/ringside/config.toml:3"}, ...}`.
fn as_json(settings: &Settings) -> Value {
    let mut object = Map::new();
    for (key, origin) in settings.origins() {
        let value = key.value(settings.config());
        // What keys show are strings, numbers, booleans and lists, which JSON writes as TOML does.
        let value = value.and_then(|value| serde_json::from_str::<Value>(&value).ok());
        object.insert(
            key.name.to_owned(),
            json!({"value": value, "from": origin.to_string()}),
        );
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> (tempfile::TempDir, Settings) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let text = "[machine]\ncpus = 4\nkernel_arguments = [\"a\\\"b\", \"\\u0007\"]\n";
        std::fs::write(&path, text).unwrap();
        let options = ConfigOptions {
            file: Some(path),
            annotation: vec![("io.ringside.machine.memory".into(), "1G".into())],
            json: false,
            default: false,
        };
        (folder, load(&options).unwrap())
    }

    #[test]
    fn what_is_printed_says_the_same_again() {
        let (folder, settings) = settings();
        let text = as_toml(&settings);
        assert!(text.contains("memory = \"1G\"  # annotation io.ringside.machine.memory\n"));
        assert!(text.contains("#kernel =  # not set\n"), "{text}");
        let path = folder.path().join("again.toml");
        std::fs::write(&path, text).unwrap();
        let again = Settings::load_from(&path).unwrap();
        assert_eq!(again.config(), settings.config());
    }

    #[test]
    fn json_has_values_and_origins() {
        let (folder, settings) = settings();
        let object = as_json(&settings);
        let from = format!("{}:2", folder.path().join("config.toml").display());
        assert_eq!(object["machine.cpus"], json!({"value": 4, "from": from}));
        assert_eq!(
            object["machine.kernel_arguments"]["value"],
            json!(["a\"b", "\u{7}"])
        );
        assert_eq!(object["sandbox"], json!({"value": true, "from": "default"}));
        assert_eq!(object["machine.kernel"]["value"], Value::Null);
    }
}
