//! Who is who in a comparison.

use serde::{Deserialize, Serialize};

use crate::measure::Method;

/// What a contestant is in the comparison.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Our daemon.
    Ours,
    /// Another build of it (`--other-build`), or itself used in another way.
    OtherBuild,
    /// Somebody else's daemon.
    Peer,
    /// The host on the file itself, without a daemon.
    Limit,
}

/// System calls of a daemon in a run of its own.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct SystemCalls {
    /// What counted.
    pub by: Method,
    /// Calls for each request.
    pub per_request: f64,
    /// Requests of the run.
    pub requests: u64,
}
