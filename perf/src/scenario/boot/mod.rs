//! VMMs: how soon a guest's first process runs, and what memory the VMM itself takes.

mod aims;
mod config;
mod contestant;
mod devices;
mod error;
mod images;
mod render;
mod results;
mod run;
mod turn;

pub use config::{BootConfig, BootOptions};
pub use error::Error;
pub use render::{Show, render};
pub use results::{Report, Row, Sample, Settings, Summary};
pub use run::run;
