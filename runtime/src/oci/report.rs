//! How an engine learns what went wrong: a line in the file that it named by `--log`.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::SystemTime;

use crate::options::{GlobalOptions, LogFormat};

/// Says it on standard error and in `--log`.
pub(super) fn error(global: &GlobalOptions, message: &str) {
    // With nobody to read it, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "ringside: {message}");
    let Some(path) = &global.log else {
        return;
    };
    let line = line(global.log_format, message, &rfc3339(SystemTime::now()));
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        let _ = writeln!(
            std::io::stderr(),
            "ringside: cannot write --log {}: {error}",
            path.display()
        );
    }
}

fn line(format: LogFormat, message: &str, time: &str) -> String {
    match format {
        LogFormat::Json => {
            let object = serde_json::json!({"level": "error", "msg": message, "time": time});
            format!("{object}\n")
        }
        LogFormat::Text => format!("time=\"{time}\" level=error msg={message:?}\n"),
    }
}

/// A moment in UTC, to the second (RFC 3339).
pub(super) fn rfc3339(moment: SystemTime) -> String {
    let since = moment
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, second) = (since / 86_400, since % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z",
        second % 60
    )
}

/// Year, month and day of the Gregorian calendar, of days since 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_dates() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_704_067_199), "2023-12-31T23:59:59Z");
        assert_eq!(at(1_000_000_000), "2001-09-09T01:46:40Z");
    }

    #[test]
    fn a_line_is_one_line_whatever_the_message() {
        let json = line(LogFormat::Json, "no\n\"way\"", "T");
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object["msg"], "no\n\"way\"");
        let text = line(LogFormat::Text, "no\n\"way\"", "T");
        assert_eq!(json.lines().count() + text.lines().count(), 2);
    }
}
