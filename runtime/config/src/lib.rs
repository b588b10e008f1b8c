#![doc = include_str!("../README.md")]

mod choice;
mod config;
mod error;
mod field;
mod file;
mod keys;
mod reference;
mod settings;

pub use choice::{Cache, Hypervisor, RootFs};
pub use config::{Block, Config, Log, Machine, Network, Programs, Timeouts, VirtioFs};
pub use error::Error;
pub use field::Count;
pub use keys::{KEYS, Key};
pub use reference::{default_file, reference};
pub use settings::{ANNOTATION_PREFIX, DEFAULT_PATH, Origin, PATH_VARIABLE, Settings};
