//! A build of our `vhost-user-blk`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Backing;

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
    #[error("{} is not there: run `cargo build --release -p vhost-user-blk`, or give --ours PATH", .0.display())]
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
    #[error("this build of vhost-user-blk has no {0} yet")]
    NoOption(&'static str),
}

/// The daemon next to this program, or one directory up (tests live in `deps/`).
#[must_use]
pub fn find() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    let beside = me
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("vhost-user-blk"));
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

    /// The arguments that serve a backing.
    ///
    /// # Errors
    /// When this build lacks the option.
    pub fn arguments(
        &self,
        backing: Backing<'_>,
        socket: &Path,
        queues: u16,
    ) -> Result<Vec<String>, BuildError> {
        let mut arguments = vec![
            format!("--socket-path={}", socket.display()),
            format!("--queues={queues}"),
        ];
        match backing {
            Backing::File { path, direct } => {
                arguments.push(format!("--blk-file={}", path.display()));
                if direct {
                    self.option("--direct")?;
                    arguments.push("--direct".into());
                }
            }
            Backing::Null { bytes } => match self.option("--null")? {
                Takes::Value => arguments.push(format!("--null={bytes}")),
                Takes::Nothing => arguments.push("--null".into()),
            },
        }
        arguments.extend_from_slice(&self.extra);
        Ok(arguments)
    }

    /// Finds an option in clap's help: `--direct` or `--null <BYTES>`.
    fn option(&self, name: &'static str) -> Result<Takes, BuildError> {
        let described = self.help.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.next().map(|_| match words.next() {
                Some(word) if word.starts_with('<') => Takes::Value,
                _ => Takes::Nothing,
            })
        });
        described.ok_or(BuildError::NoOption(name))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Takes {
    Nothing,
    Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(help: &str) -> OurBuild {
        OurBuild {
            program: PathBuf::from("/x"),
            extra: vec!["--poll-us=0".into()],
            help: help.into(),
        }
    }

    #[test]
    fn an_option_is_used_only_where_the_build_has_it() {
        let (file, null) = (
            Backing::File {
                path: Path::new("/f"),
                direct: true,
            },
            Backing::Null { bytes: 4096 },
        );
        let new = build("  --direct\n      Bypass\n      --null <BYTES>  Serve nothing");
        let arguments = |build: &OurBuild, backing| build.arguments(backing, Path::new("/s"), 2);
        let direct = arguments(&new, file).unwrap();
        assert_eq!(direct[2..], ["--blk-file=/f", "--direct", "--poll-us=0"]);
        assert_eq!(arguments(&new, null).unwrap()[2], "--null=4096");
        assert_eq!(arguments(&build("--null"), null).unwrap()[2], "--null");
        let old = arguments(&build("--blk-file <PATH>"), file).unwrap_err();
        assert_eq!(
            old.to_string(),
            "this build of vhost-user-blk has no --direct yet"
        );
    }
}
