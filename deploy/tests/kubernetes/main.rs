//! The manifests against a schema of ours and against each other, and the installer in a scratch directory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod installer;
mod manifests;
mod schema;
