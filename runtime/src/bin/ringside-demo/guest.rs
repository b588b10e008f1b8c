//! One `ringside run` that obeys the demo.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::rootfs::SCRIPT;

/// A running guest with the demo's script in it.
pub(crate) struct Guest {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    messages: PathBuf,
}

impl Guest {
    /// Starts `ringside run` with `arguments`; what it says on standard error goes to `logs`.
    pub(crate) fn start(ringside: &Path, arguments: &mut Command, logs: &Path) -> Result<Self> {
        let messages = logs.join("ringside.log");
        let errors = File::create(&messages)
            .with_context(|| format!("cannot write {}", messages.display()))?;
        let mut process = arguments
            .args(["--", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", ringside.display()))?;
        let orders = process
            .stdin
            .take()
            .context("ringside has no standard input")?;
        let answers = process
            .stdout
            .take()
            .context("ringside has no standard output")?;
        Ok(Self {
            process,
            orders,
            answers: BufReader::new(answers),
            messages,
        })
    }

    /// Gives one order and returns the lines of its answer.
    pub(crate) fn order(&mut self, order: &str) -> Result<Vec<String>> {
        // When the guest has ended, the missing answer says so better than a broken pipe.
        let _ = writeln!(self.orders, "{order}");
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self
                .answers
                .read_line(&mut line)
                .context("cannot read the guest's answer")?
                == 0
            {
                bail!("the guest ended; see {}", self.messages.display());
            }
            match line.trim_end() {
                "done" => return Ok(lines),
                "failed" => bail!("the guest says: {}", lines.join("\n")),
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// The host's port that ringside announced for the guest's.
    pub(crate) fn published_port(&self) -> Result<u16> {
        let text = std::fs::read_to_string(&self.messages)
            .with_context(|| format!("cannot read {}", self.messages.display()))?;
        let port = text.lines().find_map(|line| {
            line.strip_prefix("ringside: 127.0.0.1:")?
                .split(' ')
                .next()?
                .parse()
                .ok()
        });
        port.with_context(|| format!("no published port in {}", self.messages.display()))
    }

    /// Has the guest end, and ringside with it.
    pub(crate) fn stop(mut self) -> Result<()> {
        let _ = writeln!(self.orders, "stop");
        let status = self.process.wait().context("cannot wait for ringside")?;
        ensure!(
            status.success(),
            "ringside ended with {status}; see {}",
            self.messages.display()
        );
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        if matches!(self.process.try_wait(), Ok(None)) {
            // A failed step: ringside gets the chance to end its parts. Twice means at once.
            for _ in 0..2 {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let _ = self.process.wait();
        }
    }
}
