//! How results look.

mod progress;
mod table;

pub use progress::Progress;
pub use table::Table;
