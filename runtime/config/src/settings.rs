//! Settings put together: defaults, the file, drop-ins, a pod's annotations; and where each came from.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use byte_size::ByteSize;

use crate::keys::{self, KEYS, Key};
use crate::{Config, Error, file};

/// Where the configuration is.
pub const DEFAULT_PATH: &str = "/etc/ringside/config.toml";
/// The environment variable that names another file.
pub const PATH_VARIABLE: &str = "RINGSIDE_CONFIG";
/// What annotations of ours begin with; a key's name follows.
pub const ANNOTATION_PREFIX: &str = "io.ringside.";

/// Bytes of a file at most.
const LONGEST: u64 = 1 << 20;
/// The least memory that a guest starts with.
const LEAST_MEMORY: ByteSize = ByteSize(128 << 20);

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing says otherwise.
    Default,
    /// A file says so.
    File {
        /// The file.
        path: Arc<Path>,
        /// Counted from 1.
        line: usize,
    },
    /// A pod says so.
    Annotation(&'static str),
    /// A pod says something that is no key.
    UnknownAnnotation(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Annotation(key) => write!(f, "annotation {ANNOTATION_PREFIX}{key}"),
            Self::UnknownAnnotation(name) => write!(f, "annotation {name}"),
        }
    }
}

/// A configuration, and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Settings {
    config: Config,
    /// One for each of [`KEYS`].
    origins: Vec<Origin>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config::default(),
            origins: vec![Origin::Default; KEYS.len()],
        }
    }
}

impl Config {
    /// Reads the host's configuration: see [`Settings::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load() -> Result<Self, Error> {
        Settings::load().map(|settings| settings.config)
    }
}

impl Settings {
    /// Reads the file that `RINGSIDE_CONFIG` names, or `/etc/ringside/config.toml` if there is one, and
    /// its drop-ins.
    ///
    /// # Errors
    /// When a file cannot be read or says something that cannot be.
    pub fn load() -> Result<Self, Error> {
        match env::var_os(PATH_VARIABLE) {
            Some(path) => Self::load_from(Path::new(&path)),
            None if Path::new(DEFAULT_PATH).exists() => Self::load_from(DEFAULT_PATH.as_ref()),
            None => {
                let mut settings = Self::default();
                settings.take_drop_ins(DEFAULT_PATH.as_ref())?;
                settings.check().map(|()| settings)
            }
        }
    }

    /// Reads a file, and then the drop-ins beside it: of `config.toml` those are `config.d/*.toml`, in the
    /// order of their names.
    ///
    /// # Errors
    /// When a file cannot be read or says something that cannot be.
    pub fn load_from(path: &Path) -> Result<Self, Error> {
        let mut settings = Self::default();
        file::apply(&mut settings, path, &read(path)?)?;
        settings.take_drop_ins(path)?;
        settings.check().map(|()| settings)
    }

    /// With what a pod's annotations change. Annotations of others are passed over.
    ///
    /// # Errors
    /// When one of ours is no key, changes what a pod may not, or says something that cannot be.
    pub fn with_annotations<'a>(
        &self,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Error> {
        let mut settings = self.clone();
        for (name, text) in annotations {
            let Some(key) = name.strip_prefix(ANNOTATION_PREFIX) else {
                continue;
            };
            let Some(index) = keys::find(key) else {
                let origin = Origin::UnknownAnnotation(name.to_owned());
                return Err(file::unknown(origin, "key", key.to_owned()));
            };
            self.allow(&KEYS[index])?;
            let origin = Origin::Annotation(KEYS[index].name);
            settings.set(index, origin, |key, config| (key.set_text)(config, text))?;
        }
        settings.check().map(|()| settings)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration alone.
    #[must_use]
    pub fn into_config(self) -> Config {
        self.config
    }

    /// All keys with where their values come from.
    pub fn origins(&self) -> impl Iterator<Item = (&'static Key, &Origin)> {
        KEYS.iter().zip(&self.origins)
    }

    pub(crate) fn set(
        &mut self,
        index: usize,
        origin: Origin,
        apply: impl FnOnce(&Key, &mut Config) -> Result<(), String>,
    ) -> Result<(), Error> {
        let key = &KEYS[index];
        apply(key, &mut self.config).map_err(|reason| Error::Value {
            origin: origin.clone(),
            key: key.name,
            reason,
        })?;
        self.origins[index] = origin;
        Ok(())
    }

    fn allow(&self, key: &'static Key) -> Result<(), Error> {
        let refuse = |hint| Error::NotAllowed {
            origin: Origin::Annotation(key.name),
            key: key.name,
            hint,
        };
        if !key.overridable {
            return Err(refuse(": only the host's configuration can"));
        }
        if !self
            .config
            .pod_overrides
            .iter()
            .any(|name| name == key.name)
        {
            return Err(refuse(
                ": pod_overrides of the host's configuration does not name it",
            ));
        }
        Ok(())
    }

    fn take_drop_ins(&mut self, path: &Path) -> Result<(), Error> {
        for drop_in in drop_ins(&path.with_extension("d"))? {
            file::apply(self, &drop_in, &read(&drop_in)?)?;
        }
        Ok(())
    }

    /// What no key knows by itself.
    fn check(&self) -> Result<(), Error> {
        let machine = &self.config.machine;
        let memory = machine.memory;
        if memory < LEAST_MEMORY || !memory.0.is_multiple_of(1 << 20) {
            let reason = format!("is {memory}: must be whole MiB, at least {LEAST_MEMORY}");
            return Err(self.wrong("machine.memory", reason));
        }
        if let Some(most) = machine.max_memory.filter(|most| *most < memory) {
            let reason = format!("is {memory}: more than machine.max_memory, {most}");
            return Err(self.wrong("machine.memory", reason));
        }
        if machine.initramfs.is_some() && machine.kernel.is_none() {
            return Err(self.wrong("machine.initramfs", "needs machine.kernel".to_owned()));
        }
        let can = keys::overridable();
        if let Some(name) = self
            .config
            .pod_overrides
            .iter()
            .find(|name| !can.contains(name))
        {
            let reason = format!("names '{name}': it can name {}", can.join(", "));
            return Err(self.wrong("pod_overrides", reason));
        }
        Ok(())
    }

    fn wrong(&self, name: &str, reason: String) -> Error {
        let index = keys::find(name).unwrap_or_default();
        Error::Value {
            origin: self.origins[index].clone(),
            key: KEYS[index].name,
            reason,
        }
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(Error::Long(path.to_owned()));
    }
    Ok(text)
}

/// The `.toml` files of a directory by name; none where there is no directory.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
