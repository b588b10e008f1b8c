//! From what is written to what is meant, by type.

use std::path::PathBuf;
use std::time::Duration;

use byte_size::ByteSize;
use toml::de::DeValue;

/// A value as it was given: by a file, or as an annotation's text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Switch(bool),
    /// Texts.
    List(Vec<&'a str>),
    /// Something that no setting takes.
    Other,
}

impl<'a> Given<'a> {
    /// What a file says.
    pub(crate) fn of_file(value: &'a DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text),
            DeValue::Boolean(switch) => Self::Switch(*switch),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other, Self::Number),
            DeValue::Array(items) => {
                let texts = items.iter().map(|item| match item.get_ref() {
                    DeValue::String(text) => Some(text.as_ref()),
                    _ => None,
                });
                texts.collect::<Option<_>>().map_or(Self::Other, Self::List)
            }
            _ => Self::Other,
        }
    }
}

/// A type of setting.
pub(crate) trait Field: Sized {
    /// What it takes, for the reference, as Markdown.
    fn takes() -> String;

    /// Takes a value, or says what it must be.
    fn read(given: Given<'_>) -> Result<Self, String>;

    /// Takes an annotation's text.
    fn read_text(text: &str) -> Result<Self, String> {
        Self::read(Given::Text(text))
    }

    /// As a file would say it; `None` where a file would not mention it.
    fn show(&self) -> Option<String>;
}

impl Field for bool {
    fn takes() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::Switch(switch) => Ok(switch),
            _ => Err("must be true or false".to_owned()),
        }
    }

    fn read_text(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A whole number from 1 to `MOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MOST: u16>(u16);

impl<const MOST: u16> Count<MOST> {
    /// A number that is known to fit: one that does not is cut off.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        if number < 1 {
            Self(1)
        } else if number > MOST {
            Self(MOST)
        } else {
            Self(number)
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl<const MOST: u16> Field for Count<MOST> {
    fn takes() -> String {
        format!("a number from 1 to {MOST}")
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        let number = match given {
            Given::Number(number) => u16::try_from(number).ok(),
            _ => None,
        };
        number
            .filter(|number| (1..=MOST).contains(number))
            .map(Self)
            .ok_or_else(|| format!("must be a whole number from 1 to {MOST}"))
    }

    fn read_text(text: &str) -> Result<Self, String> {
        Self::read(text.parse().map_or(Given::Other, Given::Number))
    }

    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

impl Field for ByteSize {
    fn takes() -> String {
        "a size, as `\"512M\"` or `\"2G\"`".to_owned()
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::Text(text) => text.parse().map_err(|error| format!("{error}")),
            _ => Err("must be a size, as \"512M\"".to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

impl Field for Duration {
    fn takes() -> String {
        "a time, as `\"500ms\"`, `\"30s\"` or `\"2m\"`".to_owned()
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        let wrong =
            || "must be a time from 1 ms to 24 h, as \"500ms\", \"30s\" or \"2m\"".to_owned();
        let Given::Text(text) = given else {
            return Err(wrong());
        };
        let (digits, each) = [("ms", 1), ("s", 1000), ("m", 60_000)]
            .iter()
            .find_map(|(unit, each)| Some((text.strip_suffix(unit)?, *each)))
            .filter(|(digits, _)| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(wrong)?;
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number
            .checked_mul(each)
            .filter(|ms| (1..=24 * 3_600_000).contains(ms))
            .map(Duration::from_millis)
            .ok_or_else(wrong)
    }

    fn show(&self) -> Option<String> {
        let ms = self.as_millis();
        Some(match () {
            () if ms.is_multiple_of(60_000) => format!("\"{}m\"", ms / 60_000),
            () if ms.is_multiple_of(1000) => format!("\"{}s\"", ms / 1000),
            () => format!("\"{ms}ms\""),
        })
    }
}

impl Field for String {
    fn takes() -> String {
        "a text".to_owned()
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::Text(text) if !text.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
            _ => Err("must be a text".to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Field for PathBuf {
    fn takes() -> String {
        "an absolute path".to_owned()
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::Text(text) if text.starts_with('/') && !text.contains('\0') => Ok(text.into()),
            _ => Err("must be an absolute path".to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl<T: Field> Field for Option<T> {
    fn takes() -> String {
        T::takes()
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        T::read(given).map(Some)
    }

    fn read_text(text: &str) -> Result<Self, String> {
        T::read_text(text).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Field::show)
    }
}

impl Field for Vec<String> {
    fn takes() -> String {
        "a list of texts, as `[\"a\", \"b\"]`".to_owned()
    }

    fn read(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::List(texts) if texts.iter().all(|text| !text.contains('\0')) => {
                Ok(texts.into_iter().map(str::to_owned).collect())
            }
            _ => Err("must be a list of texts, as [\"a\", \"b\"]".to_owned()),
        }
    }

    fn show(&self) -> Option<String> {
        let texts: Vec<_> = self.iter().map(|text| quoted(text)).collect();
        Some(format!("[{}]", texts.join(", ")))
    }
}

/// A text as TOML's basic string (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
