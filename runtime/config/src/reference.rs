//! The keys as a reference, and as a file to begin with.

use std::fmt::Write;

use crate::{ANNOTATION_PREFIX, Config, KEYS, Key};

/// The reference: Markdown, a table of keys for each table of the file.
#[must_use]
pub fn reference() -> String {
    let defaults = Config::default();
    let mut text = String::new();
    for (table, keys) in tables() {
        let heading = table.map_or("Keys without a table".to_owned(), |name| {
            format!("[{name}]")
        });
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "## {heading}\n\n| key | takes | default | a pod may change it | |\n| --- | --- | --- | --- | --- |\n"
        );
        for key in keys {
            let pod = if key.overridable { "yes" } else { "" };
            let default = default(key, &defaults);
            let (_, name) = key.parts();
            let _ = writeln!(
                text,
                "| `{name}` | {} | {default} | {pod} | {} |",
                key.takes(),
                key.about
            );
        }
        text.push('\n');
    }
    text
}

fn default(key: &Key, defaults: &Config) -> String {
    match key.value(defaults) {
        _ if key.name == "pod_overrides" => "all that can be".to_owned(),
        Some(value) => format!("`{value}`"),
        None => String::new(),
    }
}

/// A configuration file in which every key is a comment, with its default where it has one.
#[must_use]
pub fn default_file() -> String {
    let defaults = Config::default();
    let mut text = String::from(
        "# Ringside's configuration. Everything here is the default; drop-ins in config.d/*.toml come\n\
         # after it. `ringside config` shows what is in use. See docs/configuration.md.\n",
    );
    for (table, keys) in tables() {
        if let Some(table) = table {
            let _ = write!(text, "\n[{table}]\n");
        }
        for key in keys {
            let _ = write!(text, "\n{}", comment(&plain(key)));
            let (_, name) = key.parts();
            let value = key.value(&defaults);
            let _ = writeln!(text, "#{name} = {}", value.unwrap_or_default());
        }
    }
    text
}

fn plain(key: &Key) -> String {
    let pod = match key.overridable {
        true => format!(
            " A pod's annotation {ANNOTATION_PREFIX}{} changes it.",
            key.name
        ),
        false => String::new(),
    };
    let takes = key.takes();
    let text = format!("{} Takes {takes}.{pod}", key.about);
    text.replace("([security](security.md))", "(docs/security.md)")
        .replace('`', "")
}

/// A comment in lines of at most 100 characters.
fn comment(text: &str) -> String {
    let mut comment = String::from("#");
    let mut length = 1;
    for word in text.split(' ') {
        if length + 1 + word.len() > 100 {
            comment.push_str("\n#");
            length = 1;
        }
        comment.push(' ');
        comment.push_str(word);
        length += 1 + word.len();
    }
    comment.push('\n');
    comment
}

/// The keys by table, in order.
fn tables() -> Vec<(Option<&'static str>, Vec<&'static Key>)> {
    let mut tables: Vec<(Option<&str>, Vec<&Key>)> = Vec::new();
    for key in KEYS {
        let (table, _) = key.parts();
        match tables.last_mut() {
            Some((last, keys)) if *last == table => keys.push(key),
            _ => tables.push((table, vec![key])),
        }
    }
    tables
}
