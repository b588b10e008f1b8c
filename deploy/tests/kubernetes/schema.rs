//! Checks YAML against `kubernetes-schema.yaml`, which tells its own language.

use yaml_rust2::Yaml;

/// Everything that is wrong with `value`, each with its place.
pub(crate) fn check(value: &Yaml, schema: &Yaml, place: &str) -> Vec<String> {
    match schema {
        Yaml::Hash(fields) => object(value, fields, place),
        Yaml::Array(items) => match value {
            Yaml::Array(values) => {
                let each = values.iter().enumerate();
                each.flat_map(|(i, value)| check(value, &items[0], &format!("{place}[{i}]")))
                    .collect()
            }
            _ => vec![format!("{place} is no list")],
        },
        Yaml::String(word) => scalar(value, word, place),
        _ => panic!("the schema is broken at {place}"),
    }
}

fn object(value: &Yaml, fields: &yaml_rust2::yaml::Hash, place: &str) -> Vec<String> {
    let Yaml::Hash(entries) = value else {
        return vec![format!("{place} is no object")];
    };
    let mut wrong = Vec::new();
    for (key, value) in entries {
        let name = key.as_str().unwrap_or_default();
        let required = Yaml::String(format!("{name}!"));
        let schema = fields.get(key).or_else(|| fields.get(&required));
        match schema {
            Some(schema) => wrong.extend(check(value, schema, &format!("{place}.{name}"))),
            None => wrong.push(format!("{place} has no field {name}")),
        }
    }
    for field in fields.keys().filter_map(Yaml::as_str) {
        if let Some(name) = field.strip_suffix('!')
            && !entries.contains_key(&Yaml::String(name.to_owned()))
        {
            wrong.push(format!("{place} lacks {name}"));
        }
    }
    wrong
}

fn scalar(value: &Yaml, word: &str, place: &str) -> Vec<String> {
    let text = value.as_str();
    let fits = match word {
        "text" => text.is_some(),
        "number" => value.as_i64().is_some(),
        "flag" => value.as_bool().is_some(),
        "name" => text.is_some_and(is_name),
        "strings" => map(value, |value| value.as_str().is_some()),
        "quantities" => map(value, |value| value.as_str().is_some_and(is_quantity)),
        word => {
            text == Some(
                word.strip_prefix('=')
                    .expect("a word of the schema's language"),
            )
        }
    };
    match fits {
        true => Vec::new(),
        false => vec![format!("{place} is not {word}: {value:?}")],
    }
}

fn map(value: &Yaml, fits: impl Fn(&Yaml) -> bool) -> bool {
    let entries = value.as_hash();
    entries.is_some_and(|e| {
        e.iter()
            .all(|(key, value)| key.as_str().is_some() && fits(value))
    })
}

/// RFC 1123's labels, with dots.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 253
        && text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || c == '-' || c == '.')
}

fn is_quantity(text: &str) -> bool {
    let units = ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"];
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    digits > 0 && units.contains(&&text[digits..])
}

#[test]
fn it_finds_what_is_wrong() {
    let parse = |text: &str| {
        yaml_rust2::YamlLoader::load_from_str(text)
            .unwrap()
            .remove(0)
    };
    let schema = parse("{a!: name, b: [{c!: number}], d: quantities, e: =x}");
    let wrong = |text: &str| check(&parse(text), &schema, "o");
    assert!(wrong("{a: n-1, b: [{c: 1}], d: {m: 100Mi, c: 10m}, e: x}").is_empty());
    assert_eq!(wrong("{b: []}"), ["o lacks a"]);
    assert_eq!(wrong("{a: n, f: 1}"), ["o has no field f"]);
    assert_eq!(wrong("{a: n, b: [{c: 1}, {}]}"), ["o.b[1] lacks c"]);
    for text in [
        "{a: N}",
        "{a: n, b: 1}",
        "{a: n, d: {m: 1MB}}",
        "{a: n, d: {m: 1}}",
        "{a: n, e: y}",
    ] {
        assert_eq!(wrong(text).len(), 1, "{text}");
    }
}
