//! How far a run is, on standard error: a bar on a terminal, else a line for each step.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a run.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    /// Of a run that has that many turns.
    #[must_use]
    pub fn new(turns: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{elapsed_precise} {wide_bar} {pos}/{len} (about {eta} left)  {msg}";
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(turns)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let last = String::new();
        Self { bar, last }
    }

    /// Says what is done now, and by whom.
    pub fn say(&mut self, step: &str, detail: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{step} {detail}")),
            None if self.last != step => {
                eprintln!("{step}");
                step.clone_into(&mut self.last);
            }
            None => {}
        }
    }

    /// Counts turns that are over.
    pub fn advance(&self, turns: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(turns);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
