//! Options as the C virtiofsd took them, behind `-o`. Tools in use still write them.

use clap::ValueEnum;
use thiserror::Error;
use vhost_daemon::sandbox::Mode;

use super::Options;
use crate::passthrough::{CachePolicy, XattrMapError};

/// An option behind `-o` that cannot be used.
#[derive(Debug, Error)]
pub enum CompatError {
    /// No such option.
    #[error("-o {0}: no such option, or none that this virtiofsd has")]
    Unknown(String),
    /// Not a value of it.
    #[error("-o {option}: {value:?} is not possible")]
    Value {
        /// Which.
        option: String,
        /// As given.
        value: String,
    },
    /// Rules that cannot be understood.
    #[error("-o xattrmap")]
    XattrMap(#[from] XattrMapError),
}

impl Options {
    /// Takes over what stands behind `-o`, and `-d`.
    ///
    /// # Errors
    /// See [`CompatError`].
    pub fn with_compat(mut self) -> Result<Self, CompatError> {
        for list in std::mem::take(&mut self.compat) {
            for option in list.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=') {
                    Some((name, value)) => self.set(name, value)?,
                    None => self.switch(option)?,
                }
            }
        }
        if self.debug {
            self.common.log_level = "debug".to_owned();
        }
        Ok(self)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), CompatError> {
        let impossible = || CompatError::Value {
            option: option.to_owned(),
            value: value.to_owned(),
        };
        match option {
            "source" => self.shared_dir = Some(value.into()),
            "cache" => {
                let name = if value == "none" { "never" } else { value };
                self.cache = CachePolicy::from_str(name, false).map_err(|_| impossible())?;
            }
            "loglevel" => {
                let level = if value == "err" { "error" } else { value };
                let known = ["error", "warn", "info", "debug"].contains(&level);
                self.common.log_level = known.then(|| level.to_owned()).ok_or_else(impossible)?;
            }
            "sandbox" => {
                self.sandbox.sandbox = Mode::from_str(value, false).map_err(|_| impossible())?;
            }
            "modcaps" => self.sandbox.modcaps = Some(value.to_owned()),
            "xattrmap" => self.xattrmap = Some(value.parse()?),
            _ => return Err(CompatError::Unknown(format!("{option}={value}"))),
        }
        Ok(())
    }

    fn switch(&mut self, option: &str) -> Result<(), CompatError> {
        match option {
            "xattr" => (self.xattr, self.no_xattr) = (true, false),
            "no_xattr" => (self.xattr, self.no_xattr) = (false, true),
            "readdirplus" => self.no_readdirplus = false,
            "no_readdirplus" => self.no_readdirplus = true,
            "writeback" => self.writeback = true,
            "no_writeback" => self.writeback = false,
            "allow_direct_io" => self.allow_direct_io = true,
            "no_allow_direct_io" => self.allow_direct_io = false,
            "killpriv_v2" => (self.killpriv_v2, self.no_killpriv_v2) = (true, false),
            "no_killpriv_v2" => (self.killpriv_v2, self.no_killpriv_v2) = (false, true),
            "posix_lock" => (self.posix_lock, self.no_posix_lock) = (true, false),
            "no_posix_lock" => (self.posix_lock, self.no_posix_lock) = (false, true),
            "flock" => (self.flock, self.no_flock) = (true, false),
            "no_flock" => (self.flock, self.no_flock) = (false, true),
            "posix_acl" => self.posix_acl = true,
            "no_posix_acl" => self.posix_acl = false,
            "security_label" => self.security_label = true,
            "no_security_label" => self.security_label = false,
            "announce_submounts" => self.announce_submounts = true,
            _ => return Err(CompatError::Unknown(option.to_owned())),
        }
        Ok(())
    }
}
