//! A build of one of our daemons.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A build of our daemon and what it can do.
#[derive(Clone, Debug)]
pub struct OurBuild {
    /// The program.
    pub program: PathBuf,
    /// Further options for it.
    pub extra: Vec<String>,
    help: String,
}

/// A build that cannot be measured, or not on this target.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No such program.
    #[error("{} is not there: run `cargo build --release` in the workspace, or give --ours PATH", .0.display())]
    Missing(PathBuf),
    /// It does not run.
    #[error("{} --help failed", program.display())]
    Help {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An option that the target needs.
    #[error("this build of {program} has no {option} yet")]
    NoOption {
        /// The program's name.
        program: String,
        /// The option.
        option: &'static str,
    },
}

/// The daemon next to this program, or one directory up (tests live in `deps/`).
#[must_use]
pub fn find(program: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    let beside = me.ancestors().skip(1).take(2).map(|dir| dir.join(program));
    let mut places: Vec<PathBuf> = beside.collect();
    let found = places.iter().position(|path| path.is_file()).unwrap_or(0);
    places.swap_remove(found)
}

impl OurBuild {
    /// Asks a build what it can do.
    ///
    /// # Errors
    /// When there is no such program or it does not run.
    pub fn probe(program: &Path, extra: &[String]) -> Result<Self, BuildError> {
        if !program.is_file() {
            return Err(BuildError::Missing(program.to_owned()));
        }
        let output = Command::new(program).arg("--help").output();
        let output = output.map_err(|source| BuildError::Help {
            program: program.to_owned(),
            source,
        })?;
        Ok(Self {
            program: program.to_owned(),
            extra: extra.to_vec(),
            help: String::from_utf8_lossy(&output.stdout).into_owned(),
        })
    }

    /// Finds an option in clap's help: `--direct` or `--null <BYTES>`.
    ///
    /// # Errors
    /// When this build lacks it.
    pub fn option(&self, name: &'static str) -> Result<Takes, BuildError> {
        let described = self.help.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.next().map(|_| match words.next() {
                Some(word) if word.starts_with('<') => Takes::Value,
                _ => Takes::Nothing,
            })
        });
        described.ok_or_else(|| BuildError::NoOption {
            program: self
                .program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            option: name,
        })
    }
}

/// What follows an option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A value.
    Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_found_in_the_help() {
        let build = |help: &str| OurBuild {
            program: PathBuf::from("/x/vhost-user-blk"),
            extra: Vec::new(),
            help: help.into(),
        };
        let new = build("  --direct\n      Bypass\n      --null <BYTES>  Serve nothing");
        assert_eq!(new.option("--direct").unwrap(), Takes::Nothing);
        assert_eq!(new.option("--null").unwrap(), Takes::Value);
        let old = build("--blk-file <PATH>").option("--direct").unwrap_err();
        assert_eq!(
            old.to_string(),
            "this build of vhost-user-blk has no --direct yet"
        );
    }
}
