//! A container engine's `config.json`, made one for the guest, and what the agent there makes of it.

use std::path::Path;

use oci_spec::runtime::Spec;
use protobuf::Message;
use ringside_agent::dry_run;
use ringside_pod::grouping::membership;
use ringside_pod::share::GUEST_DIRECTORY;
use ringside_pod::spec::{network_namespace, plan, pod_sysctls};
use ringside_protocol::agent::CreateContainerRequest;

/// What one input does.
pub fn run(input: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Spec>(input) else {
        return;
    };
    let annotations = spec.annotations().clone().unwrap_or_default();
    let _ = membership("c1", &annotations).sandbox("c1").len();
    let _ = network_namespace(&spec);
    let of_pod = pod_sysctls(&spec);
    let Ok(plan) = plan(spec, "c1", Path::new("/bundle")) else {
        return;
    };
    let root = plan.spec.root().as_ref().unwrap();
    assert!(root.path().starts_with(GUEST_DIRECTORY), "{root:?}");
    let linux = plan.spec.linux().as_ref().unwrap();
    assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/c1")));
    let mut sysctls = linux.sysctl().iter().flatten();
    // Those of its own IPC stay.
    let is_of_network = |name: &str| name.starts_with("net.") || name.starts_with("net/");
    assert!(!sysctls.any(|(name, _)| of_pod.contains_key(name) && is_of_network(name)));
    let mut request = CreateContainerRequest::new();
    request.container = "c1".into();
    request.spec = serde_json::to_vec(&plan.spec).unwrap();
    // The agent may refuse it, in words.
    if let Err(why) = dry_run::create(&request.write_to_bytes().unwrap()) {
        assert!(!why.is_empty());
    }
}
