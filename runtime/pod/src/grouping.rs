//! Which containers are one pod.

use std::collections::HashMap;

/// Annotations of CRI implementations, and the sandbox a container belongs to.
const SANDBOX_ID: [&str; 3] = [
    "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri-o.SandboxID",
    "io.containerd.runc.v2.group",
];

/// Annotations that tell a pod's first container from the others.
const CONTAINER_TYPE: [&str; 2] = [
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri-o.ContainerType",
];

/// What a container is to its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// The first, or the only one: the pod is named after it.
    First,
    /// One more, in the pod of this sandbox.
    In(String),
}

/// Reads a container's annotations.
#[must_use]
pub fn membership(id: &str, annotations: &HashMap<String, String>) -> Membership {
    let find = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| annotations.get(*name))
            .cloned()
    };
    let is_sandbox = find(&CONTAINER_TYPE).is_some_and(|kind| kind == "sandbox");
    match find(&SANDBOX_ID) {
        Some(sandbox) if sandbox != id && !is_sandbox => Membership::In(sandbox),
        _ => Membership::First,
    }
}

impl Membership {
    /// The id of the pod's first container.
    #[must_use]
    pub fn sandbox<'a>(&'a self, id: &'a str) -> &'a str {
        match self {
            Self::First => id,
            Self::In(sandbox) => sandbox,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, pairs: &[(&str, &str)]) -> Membership {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        membership(id, &pairs.collect())
    }

    #[test]
    fn cri_and_ctr_group_alike() {
        assert_eq!(of("a", &[]), Membership::First);
        let sandbox = [
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-id", "a"),
        ];
        assert_eq!(of("a", &sandbox), Membership::First);
        let container = [
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-id", "a"),
        ];
        assert_eq!(of("b", &container), Membership::In("a".into()));
        assert_eq!(of("b", &container).sandbox("b"), "a");
        assert_eq!(
            of("b", &[("io.containerd.runc.v2.group", "a")]),
            Membership::In("a".into())
        );
    }
}
