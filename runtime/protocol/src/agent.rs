//! The pod agent's service, generated from `proto/agent.proto`: ttrpc over vsock.

#[allow(
    missing_docs,
    unreachable_pub,
    unused,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// Every message of the service.
pub use messages::agent::*;

/// Server and client whose calls block: the agent's side, and tests.
#[cfg(feature = "agent")]
pub mod blocking {
    #[allow(
        missing_docs,
        unreachable_pub,
        unused,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated"
    )]
    mod service {
        pub(super) use super::super::messages::agent;
        include!(concat!(env!("OUT_DIR"), "/blocking/service.rs"));
    }
    pub use service::agent_ttrpc::*;
}

/// The host's client, on tokio.
#[cfg(feature = "host")]
pub mod tokio {
    #[allow(
        missing_docs,
        unreachable_pub,
        unused,
        clippy::all,
        clippy::pedantic,
        clippy::restriction,
        reason = "generated"
    )]
    mod service {
        pub(super) use super::super::messages::agent;
        include!(concat!(env!("OUT_DIR"), "/tokio/service.rs"));
    }
    pub use service::agent_ttrpc::*;
}
