//! One file: found keys, their lines, and what is wrong.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::field::Given;
use crate::keys::{self, KEYS};
use crate::{Error, Origin, Settings};

/// Takes over everything that a file's text says.
pub(crate) fn apply(settings: &mut Settings, path: &Path, text: &str) -> Result<(), Error> {
    let place = Place {
        path: path.into(),
        text,
    };
    let table = DeTable::parse(text).map_err(|error| Error::Syntax {
        path: path.to_owned(),
        line: place.line(error.span().unwrap_or_default().start),
        message: error.message().lines().collect::<Vec<_>>().join("; "),
    })?;
    let mut entries = Vec::new();
    flatten(table.get_ref(), &place, &mut entries)?;
    // The first mistake is told, as a reader would find it.
    entries.sort_by_key(|(_, at, _)| at.start);
    for (name, at, value) in entries {
        let origin = place.origin(&at);
        let Some(index) = keys::find(&name) else {
            return Err(unknown(origin, "key", name));
        };
        settings.set(index, origin, |key, config| {
            (key.set)(config, Given::of_file(value))
        })?;
    }
    Ok(())
}

/// What may have been meant by a key that there is not.
pub(crate) fn unknown(origin: Origin, what: &'static str, name: String) -> Error {
    let nearest = keys::nearest(&name);
    let hint = nearest.map_or(String::new(), |near| format!(": did you mean '{near}'?"));
    Error::Unknown {
        origin,
        what,
        name,
        hint,
    }
}

type Entry<'a> = (String, Range<usize>, &'a DeValue<'a>);

/// The keys of all tables with their full names.
fn flatten<'a>(
    top: &'a DeTable<'a>,
    place: &Place<'_>,
    entries: &mut Vec<Entry<'a>>,
) -> Result<(), Error> {
    for (key, value) in top {
        let name = key.get_ref().as_ref();
        let is_table = KEYS.iter().any(|key| key.parts().0 == Some(name));
        match value.get_ref() {
            DeValue::Table(table) if is_table => {
                for (key, value) in table {
                    let name = format!("{name}.{}", key.get_ref());
                    entries.push((name, key.span(), value.get_ref()));
                }
            }
            DeValue::Table(_) => {
                let names = KEYS.iter().filter_map(|key| key.parts().0);
                let near = names.min_by_key(|table| strsim::osa_distance(table, name));
                let near = near.filter(|table| strsim::osa_distance(table, name) <= 2);
                return Err(Error::Unknown {
                    origin: place.origin(&key.span()),
                    what: "table",
                    name: name.to_owned(),
                    hint: near.map_or(String::new(), |near| format!(": did you mean [{near}]?")),
                });
            }
            _ if is_table => {
                return Err(Error::Unknown {
                    origin: place.origin(&key.span()),
                    what: "key",
                    name: name.to_owned(),
                    hint: format!(": it is a table, written [{name}]"),
                });
            }
            value => entries.push((name.to_owned(), key.span(), value)),
        }
    }
    Ok(())
}

/// A file's name and text, to tell lines of.
struct Place<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl Place<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn origin(&self, at: &Range<usize>) -> Origin {
        Origin::File {
            path: Arc::clone(&self.path),
            line: self.line(at.start),
        }
    }
}
