//! `ringside run`: typed options, and what makes them valid.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::builder::OsStringValueParser;
use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};

use super::{BundleOptions, ByteSize, DiskOption, OptionsError, Publish};
use crate::run::{Config, RootSource};

/// Smallest memory that Debian's kernel and an initramfs fit in.
const LEAST_MEMORY: ByteSize = ByteSize(128 << 20);
/// QEMU rounds memory up, and then does not find enough of it behind.
const MEMORY_UNIT: u64 = 1 << 20;
const MOST_CPUS: u8 = 64;

/// What a command finds in its environment when the user does not say otherwise.
const DEFAULT_ENV: [(&str, &str); 2] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
];

/// Where the guest's root file system comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RootKind {
    /// The directory itself, through virtiofsd: changes are written to it
    Virtiofs,
    /// An ext4 image, through vhost-user-blk
    Block,
}

/// Which program runs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HypervisorChoice {
    /// Our VMM where KVM is native, else QEMU
    Auto,
    /// ringside-vmm, which needs native KVM
    Vmm,
    /// QEMU, with KVM or without
    Qemu,
}

/// Options of `ringside run`.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// The directory that is, or that becomes, the guest's root file system
    #[arg(long, value_name = "DIR", required_unless_present_any = ["image", "id"])]
    pub rootfs: Option<PathBuf>,
    /// How the root file system reaches the guest
    #[arg(long, value_enum, default_value = "virtiofs")]
    pub root: RootKind,
    /// With --root block: the ext4 image to use; made from --rootfs and kept when it does not exist
    #[arg(long, value_name = "IMG")]
    pub image: Option<PathBuf>,
    /// A data disk (raw image or block device), in the guest as /dev/disk/by-id/virtio-diskN
    #[arg(long = "disk", value_name = "IMG[,ro]", value_parser = OsStringValueParser::new().map(DiskOption::from))]
    pub disks: Vec<DiskOption>,
    /// Give the guest a network interface, 10.0.2.2, in a network of this run's own
    #[arg(long)]
    pub net: bool,
    /// Forward TCP connections from the host's 127.0.0.1:HOST to the guest; HOST 0 picks a port
    #[arg(long, value_name = "HOST:GUEST", requires = "net")]
    pub publish: Vec<Publish>,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_CPUS)))]
    pub cpus: u8,
    /// Memory of the guest
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub memory: ByteSize,
    /// Which program runs the machine
    #[arg(long, value_enum, default_value = "auto")]
    pub hypervisor: HypervisorChoice,
    /// Set an environment variable; PATH and HOME have defaults, nothing else is passed on
    #[arg(long = "env", short = 'e', value_name = "K=V")]
    pub env: Vec<OsString>,
    /// Working directory in the guest
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub cwd: PathBuf,
    /// Give the command a terminal; standard input and output must be one
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Keep the logs of the guest's console and of all parts in this directory
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,
    /// Have the daemons serve their metrics on unix sockets in this directory
    #[arg(long, value_name = "DIR")]
    pub metrics_dir: Option<PathBuf>,
    /// A bundle's container instead.
    #[command(flatten)]
    pub container: BundleOptions,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "id", value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl RunOptions {
    /// Checks everything that can be checked before anything is started.
    ///
    /// # Errors
    /// In one sentence, the option that is wrong and why.
    pub fn validate(self: Box<Self>) -> Result<Config, OptionsError> {
        let root = self.root_source()?;
        let disks = self
            .disks
            .iter()
            .map(DiskOption::validate)
            .collect::<Result<_, _>>()?;
        self.check_memory()?;
        if !self.cwd.is_absolute() {
            return Err(OptionsError::RelativeFolder(self.cwd));
        }
        let env = self.environment()?;
        Ok(Config {
            root,
            disks,
            network: self.net,
            publish: self.publish,
            cpus: self.cpus,
            memory: self.memory,
            hypervisor: self.hypervisor,
            env,
            cwd: self.cwd,
            terminal: self.tty,
            keep_logs: self.keep_logs,
            metrics_directory: self.metrics_dir,
            command: self.command,
        })
    }

    fn check_memory(&self) -> Result<(), OptionsError> {
        let typed = self.memory;
        if typed < LEAST_MEMORY {
            let least = LEAST_MEMORY;
            Err(OptionsError::LittleMemory { typed, least })
        } else if !typed.0.is_multiple_of(MEMORY_UNIT) {
            Err(OptionsError::OddMemory(typed))
        } else {
            Ok(())
        }
    }

    fn environment(&self) -> Result<Vec<(OsString, OsString)>, OptionsError> {
        let mut env: Vec<_> = DEFAULT_ENV
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter()
            .collect();
        if self.tty {
            env.push((
                "TERM".into(),
                std::env::var_os("TERM").unwrap_or_else(|| "linux".into()),
            ));
        }
        for variable in &self.env {
            set_variable(&mut env, variable)?;
        }
        Ok(env)
    }

    fn root_source(&self) -> Result<RootSource, OptionsError> {
        let rootfs = self.rootfs.as_deref().map(directory).transpose()?;
        match (self.root, rootfs, &self.image) {
            (RootKind::Virtiofs, _, Some(_)) => Err(OptionsError::ImageWithoutBlock),
            (RootKind::Virtiofs, Some(directory), None) => Ok(RootSource::Directory(directory)),
            (RootKind::Block, _, Some(image)) if image.exists() => {
                let found = image.canonicalize();
                let found = found.map_err(OptionsError::not_found("--image", image))?;
                Ok(RootSource::Image(found))
            }
            (RootKind::Block, Some(directory), image) => {
                let absolute = |image: &PathBuf| {
                    std::path::absolute(image).map_err(OptionsError::not_found("--image", image))
                };
                let keep = image.as_ref().map(absolute).transpose()?;
                Ok(RootSource::ImageOf { directory, keep })
            }
            (RootKind::Block, None, Some(image)) => Err(OptionsError::NoImage(image.clone())),
            (_, None, None) => Err(OptionsError::NoRoot),
        }
    }
}

fn directory(path: &Path) -> Result<PathBuf, OptionsError> {
    let found = path.canonicalize();
    let found = found.map_err(OptionsError::not_found("--rootfs", path))?;
    if found.is_dir() {
        Ok(found)
    } else {
        Err(OptionsError::RootIsNoDirectory(path.to_owned()))
    }
}

fn set_variable(
    env: &mut Vec<(OsString, OsString)>,
    variable: &OsString,
) -> Result<(), OptionsError> {
    let bytes = variable.as_bytes();
    let equals = bytes
        .iter()
        .position(|byte| *byte == b'=')
        .filter(|at| *at > 0);
    let Some(equals) = equals else {
        return Err(OptionsError::NoVariable(variable.clone()));
    };
    let name = OsString::from_vec(bytes[..equals].to_vec());
    let value = OsString::from_vec(bytes[equals + 1..].to_vec());
    env.retain(|(known, _)| *known != name);
    env.push((name, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn validate(arguments: &[&str]) -> Result<Config, Box<dyn std::error::Error>> {
        let full = [&["ringside", "run"], arguments, &["--", "true"]].concat();
        match Cli::try_parse_from(full)?.command {
            Command::Run(options) => Ok(options.validate()?),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_a_config() {
        let config = validate(&["--rootfs", "/", "--env", "A=b=c", "--env", "PATH=/x"]).unwrap();
        assert_eq!(config.root, RootSource::Directory("/".into()));
        assert_eq!(config.command, ["true"]);
        let env: Vec<_> = config
            .env
            .iter()
            .map(|(k, v)| (k.to_str(), v.to_str()))
            .collect();
        assert!(
            env.contains(&(Some("A"), Some("b=c"))) && env.contains(&(Some("PATH"), Some("/x")))
        );
        assert_eq!(env.len(), 3);
    }

    #[test]
    fn a_bundle_needs_neither_root_nor_command() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let bundle = parse("ringside run -b /b --pid-file /p c1").unwrap();
        let Command::Run(options) = bundle.command else {
            panic!("{bundle:?}");
        };
        assert_eq!(options.container.id.as_deref(), Some("c1"));
        for wrong in [
            "ringside run --rootfs / c1",
            "ringside run c1 -- sh",
            "ringside run --bundle /b",
            "ringside run --rootfs / --keep -- sh",
            "ringside run --console-socket /s c1",
            "ringside run",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_options_are_named() {
        let cases: [(&[&str], &str); 10] = [
            (&["--rootfs", "/nowhere"], "/nowhere"),
            (&["--rootfs", "/etc/passwd"], "no directory"),
            (
                &["--rootfs", "/", "--disk", "/nowhere,ro"],
                "--disk /nowhere",
            ),
            (&["--rootfs", "/", "--memory", "16M"], "at least 128M"),
            (&["--rootfs", "/", "--memory", "134217729"], "MiB"),
            (&["--rootfs", "/", "--hypervisor", "xen"], "xen"),
            (&["--rootfs", "/", "--cwd", "tmp"], "--cwd tmp"),
            (&["--rootfs", "/", "--env", "X"], "--env X"),
            (&["--rootfs", "/", "--publish", "1:2"], "--net"),
            (&["--rootfs", "/", "--image", "x"], "--root block"),
        ];
        for (arguments, expected) in cases {
            let error = format!("{:#}", validate(arguments).unwrap_err());
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
