//! Errors as containerd wants them: ttrpc statuses, by whose code it decides what to do.

use containerd_shim::protos::ttrpc::{Code, Error, get_status};
use ringside_pod::{PodError, chain};

/// A status with this code and message.
pub(super) fn status(code: Code, message: impl Into<String>) -> Error {
    Error::RpcStatus(get_status(code, message.into()))
}

/// What went wrong with a pod.
pub(super) fn failure(error: PodError) -> Error {
    let code = match &error {
        PodError::Agent(Error::RpcStatus(answer)) => answer.code(),
        PodError::Spec(_) | PodError::Name(_) => Code::INVALID_ARGUMENT,
        PodError::Ended(_) => Code::NOT_FOUND,
        _ => Code::UNKNOWN,
    };
    status(code, chain(&error))
}

/// Whether the agent does not know what it was asked to do something with.
pub(super) fn is_gone(error: &PodError) -> bool {
    matches!(error, PodError::Agent(Error::RpcStatus(answer)) if answer.code() == Code::NOT_FOUND)
}

pub(super) fn no_container(id: &str) -> Error {
    status(Code::NOT_FOUND, format!("there is no container {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_agent_does_not_know_is_gone() {
        let told = |code| is_gone(&PodError::Agent(status(code, "x")));
        assert!(told(Code::NOT_FOUND));
        assert!(!told(Code::FAILED_PRECONDITION) && !told(Code::INTERNAL));
        assert!(!is_gone(&PodError::Ended("killed".to_owned())));
    }
}
