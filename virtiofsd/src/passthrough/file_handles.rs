//! Whether nodes are kept by file handle.

/// When a node is kept by file handle and not by an open file. The first three are those of the
/// virtiofsd that people use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FileHandles {
    /// Never: more nodes than may be open are kept by name
    Never,
    /// Always, where the file system has handles and the daemon may use them; else as with never
    Prefer,
    /// Always: a file without a handle is refused
    Mandatory,
    /// When there are more nodes than --max-open
    AsNeeded,
}
