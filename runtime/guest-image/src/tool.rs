//! Runs the system's programs that do parts of the work.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::thread;

use crate::{Error, sys};

/// Lines of a failed program's own words that go into the error.
const MESSAGE_LINES: usize = 4;

/// A program of the system and the Debian package that holds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

impl Tool {
    /// Runs the program with what `arrange` adds, and returns what it printed.
    pub(crate) fn output(
        self,
        arrange: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Vec<u8>, Error> {
        self.filter(&[], arrange)
    }

    /// Runs the program with `input` on its standard input, and returns what it printed.
    pub(crate) fn filter(
        self,
        input: &[u8],
        arrange: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Vec<u8>, Error> {
        let mut command = Command::new(self.program);
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        arrange(&mut command);
        // A group of its own: Ctrl-C on a terminal reaches this process alone.
        command.process_group(0);
        sys::end_with_this_thread(&mut command);
        let failed = |source| Error::NoTool {
            program: self.program,
            package: self.package,
            source,
        };
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // A program that stops reading early says why itself.
                let _ = stdin.map(|mut stdin| stdin.write_all(input));
            });
            child.wait_with_output()
        });
        self.checked(output.map_err(failed)?)
    }

    fn checked(self, output: Output) -> Result<Vec<u8>, Error> {
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let message = lines[lines.len().saturating_sub(MESSAGE_LINES)..].join("; ");
        Err(Error::Tool {
            program: self.program,
            status: output.status,
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_larger_than_a_pipe_passes() {
        let cat = Tool {
            program: "cat",
            package: "coreutils",
        };
        let input = vec![7; 1 << 20];
        assert_eq!(cat.filter(&input, |cat| cat).unwrap(), input);
    }

    #[test]
    fn errors_name_the_program_and_its_package() {
        let missing = Tool {
            program: "no-such-program",
            package: "no-package",
        };
        let error = missing.output(|missing| missing).unwrap_err().to_string();
        assert!(
            error.contains("no-such-program") && error.contains("no-package"),
            "{error}"
        );
        let shell = Tool {
            program: "sh",
            package: "dash",
        };
        let error = shell
            .output(|sh| sh.args(["-c", "echo why >&2; exit 3"]))
            .unwrap_err();
        assert!(error.to_string().contains("exit status: 3): why"));
    }
}
