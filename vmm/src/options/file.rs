//! A description from a file: TOML, or JSON where the first character is `{`, which no TOML begins with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{OptionsError, TextError};
use super::text::AnyDevice;
use super::{Description, DeviceDescription};

/// Bytes of a description at most.
pub(super) const LONGEST: usize = 1 << 20;

pub(super) fn read(path: &Path) -> Result<Description, OptionsError> {
    let mut text = Vec::new();
    let most = u64::try_from(LONGEST + 1).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut text))
        .map_err(|source| OptionsError::Read {
            path: path.to_owned(),
            source,
        })?;
    parse(&text).map_err(|reason| OptionsError::File {
        path: path.to_owned(),
        reason,
    })
}

/// Reads a description.
///
/// # Errors
/// When it is neither, or says something that there is not; with the line.
pub fn parse(text: &[u8]) -> Result<Description, TextError> {
    if text.len() > LONGEST {
        return Err(TextError::Long(LONGEST));
    }
    let text = str::from_utf8(text).map_err(|_| TextError::Encoding)?;
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| json_error(&error));
    }
    toml::from_str(text).map_err(|error| toml_error(&error, text))
}

/// Reads one device, as `{"disk": {"socket": "/run/disk.sock"}}`.
///
/// # Errors
/// When it is not one.
pub fn parse_device(json: &[u8]) -> Result<DeviceDescription, TextError> {
    let AnyDevice(device) = serde_json::from_slice(json).map_err(|error| json_error(&error))?;
    Ok(device)
}

fn json_error(error: &serde_json::Error) -> TextError {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let reason = error.to_string();
    TextError::Line {
        line: error.line(),
        reason: reason.strip_suffix(&place).unwrap_or(&reason).to_owned(),
    }
}

fn toml_error(error: &toml::de::Error, text: &str) -> TextError {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    TextError::Line {
        line: before.matches('\n').count() + 1,
        reason: error.message().lines().collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests;
