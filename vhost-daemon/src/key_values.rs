//! Options of the form `key=value,key=value`, for what there may be several of.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

/// Text that is not of that form, or does not say what it should.
#[derive(Debug, Error)]
pub enum KeyValueError {
    /// A key without a value.
    #[error("'{0}' is not of the form key=value")]
    NoValue(String),
    /// A key given twice.
    #[error("'{0}' is given twice")]
    Twice(String),
    /// Neither on nor off.
    #[error("{0} is 'on' or 'off'")]
    NotASwitch(String),
    /// Not a number.
    #[error("{0} is a number")]
    NotANumber(String),
    /// An unknown key, or a value out of range.
    #[error(transparent)]
    Unknown(#[from] serde_json::Error),
}

/// Which keys take what; all others take text.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// `on` or `off`.
    pub switches: &'static [&'static str],
    /// A number.
    pub numbers: &'static [&'static str],
    /// Numbers with `:` between them.
    pub number_lists: &'static [&'static str],
}

/// Reads `key=value,...`; a comma within a value is written twice.
///
/// # Errors
/// See [`KeyValueError`].
pub fn parse<T: DeserializeOwned>(text: &str, keys: Keys) -> Result<T, KeyValueError> {
    let mut fields = Map::new();
    for part in split_at_single_commas(text) {
        let Some((key, value)) = part.split_once('=') else {
            return Err(KeyValueError::NoValue(part));
        };
        let value = typed(key, value, keys)?;
        if fields.insert(key.to_owned(), value).is_some() {
            return Err(KeyValueError::Twice(key.to_owned()));
        }
    }
    Ok(serde_json::from_value(Value::Object(fields))?)
}

fn typed(key: &str, value: &str, keys: Keys) -> Result<Value, KeyValueError> {
    let number = |value: &str| {
        let number = value.parse::<u64>();
        number.map_err(|_| KeyValueError::NotANumber(key.to_owned()))
    };
    if keys.switches.contains(&key) {
        return match value {
            "on" => Ok(true.into()),
            "off" => Ok(false.into()),
            _ => Err(KeyValueError::NotASwitch(key.to_owned())),
        };
    }
    if keys.numbers.contains(&key) {
        return Ok(number(value)?.into());
    }
    if keys.number_lists.contains(&key) {
        let list: Result<Vec<u64>, _> = value.split(':').map(number).collect();
        return Ok(list?.into());
    }
    Ok(value.into())
}

/// The parts between single commas, `,,` standing for one comma.
fn split_at_single_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == ',' && letters.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    parts
}
