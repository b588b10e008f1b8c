//! What a host asks of the agent in a pod's guest: a container, or the pod itself, as protobuf.
//!
//! Byte 0 chooses which; the rest is the message. In a container's, the specification is any bytes: where the rest
//! begins with `{` or `[` it is taken for the specification alone.

use protobuf::Message;
use ringside_agent::dry_run;
use ringside_protocol::agent::{BlockVolume, CreateContainerRequest};
use serde_json::Value;

/// A container of this specification.
fn container(specification: &[u8]) -> Vec<u8> {
    let mut volume = BlockVolume::new();
    volume.path = "/dev/x".into();
    let mut request = CreateContainerRequest::new();
    request.container = "c1".into();
    request.spec = specification.to_vec();
    request.volumes.push(volume);
    request.write_to_bytes().unwrap()
}

/// What one input does.
pub fn run(input: &[u8]) {
    let Some((choice, message)) = input.split_first() else {
        return;
    };
    if choice & 1 == 1 {
        for path in dry_run::start_sandbox(message).unwrap_or_default() {
            assert!(path.starts_with("/proc/sys"), "{path:?}");
            assert!(!path.iter().any(|part| part == ".."), "{path:?}");
        }
        return;
    }
    let created = match message.first() {
        Some(b'{' | b'[') => dry_run::create(&container(message)),
        _ => dry_run::create(message),
    };
    let Ok((text, _)) = created else {
        return;
    };
    let spec: Value = serde_json::from_str(&text).unwrap();
    let cgroup = spec["linux"]["cgroupsPath"].as_str().unwrap();
    let name = cgroup.strip_prefix("/pod/").unwrap();
    assert!(!name.is_empty() && !name.contains('/') && name != "..");
}
