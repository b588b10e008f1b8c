//! How results look.

mod progress;
mod table;
mod text;

pub use progress::Progress;
pub use table::Table;
pub use text::{counted_by, one_line, with_causes};
