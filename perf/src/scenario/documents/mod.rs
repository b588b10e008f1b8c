//! The documents' own tests (dd, fio, small files, nginx under ab) on every way to storage, side by side in one
//! guest.

mod aims;
mod column;
mod error;
mod ground;
mod load;
mod machine;
mod options;
mod run;

pub use error::Error;
pub use options::{DocumentsConfig, DocumentsOptions};
pub use run::run;
