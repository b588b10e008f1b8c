//! What a bundle says about its pod.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use ringside_pod::{HypervisorChoice, PodConfig, PodError, directory, spec};
use sha2::{Digest, Sha256};

/// Memory that the guest's kernel, the agent and page tables take of a machine.
const OVERHEAD: u64 = 192 << 20;
/// A machine's memory when nothing limits its containers.
const MEMORY: u64 = 512 << 20;
/// Processors when nothing limits its containers.
const CPUS: u8 = 1;
const MOST_CPUS: u8 = 64;
const MIB: u64 = 1 << 20;

/// Longest name of a pod's directory that leaves room for its sockets' names in a socket's path.
const LONGEST_NAME: usize = 64;

/// Annotations of ours: a machine's memory in bytes or MiB ("768M"), its processors, its hypervisor.
const OUR_MEMORY: &str = "io.ringside.memory";
const OUR_CPUS: &str = "io.ringside.cpus";
const OUR_HYPERVISOR: &str = "io.ringside.hypervisor";

/// containerd's CRI tells a sandbox what its containers will be limited to (KEP 2570's annotations).
const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
const SANDBOX_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const SANDBOX_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

/// Where pods have their directories. Tests have others.
const ROOT_VARIABLE: &str = "RINGSIDE_PODS";

/// The name of a pod: containerd's namespace and the first container's id.
pub(crate) fn pod_name(namespace: &str, sandbox: &str) -> String {
    let name = format!("{namespace}-{sandbox}");
    if name.len() <= LONGEST_NAME && directory::is_name(&name) {
        return name;
    }
    let digest = Sha256::digest(format!("{namespace}/{sandbox}"));
    digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Where pods have their directories.
pub(crate) fn pods_root() -> PathBuf {
    std::env::var_os(ROOT_VARIABLE).map_or_else(|| directory::ROOT.into(), PathBuf::from)
}

/// A specification's annotations.
pub(crate) fn annotations(spec: &Spec) -> HashMap<String, String> {
    spec.annotations().clone().unwrap_or_default()
}

/// The annotations in a bundle.
///
/// # Errors
/// When it has no specification.
pub(crate) fn read_annotations(bundle: &Path) -> Result<HashMap<String, String>, PodError> {
    Ok(annotations(&spec::read(bundle)?))
}

/// What the pod of this first container shall be.
pub(crate) fn pod_config(name: String, spec: &Spec) -> PodConfig {
    let annotations = annotations(spec);
    let hostname = spec.hostname().clone().filter(|name| !name.is_empty());
    PodConfig {
        name,
        root: pods_root(),
        hostname: hostname.unwrap_or_else(|| "ringside".to_owned()),
        cpus: cpus(spec, &annotations),
        memory: memory(spec, &annotations),
        hypervisor: match annotations.get(OUR_HYPERVISOR).map(String::as_str) {
            Some("qemu") => HypervisorChoice::Qemu,
            Some("ringside-vmm") => HypervisorChoice::Ringside,
            _ => HypervisorChoice::Auto,
        },
        network_namespace: spec::network_namespace(spec),
        sysctls: BTreeMap::new(),
    }
}

fn memory(spec: &Spec, annotations: &HashMap<String, String>) -> u64 {
    let ours = annotations.get(OUR_MEMORY).and_then(|text| size(text));
    let sandbox = annotations
        .get(SANDBOX_MEMORY)
        .and_then(|it| it.parse().ok());
    let resources = spec.linux().as_ref().and_then(|it| it.resources().as_ref());
    let own = resources.and_then(|it| it.memory().as_ref()?.limit());
    let own = own.and_then(|it| u64::try_from(it).ok());
    let limit = sandbox.filter(|it| *it > 0).or(own).filter(|it| *it > 0);
    // A limit above the usual size asks for more; one below does not make the machine too small.
    let limited = limit.map(|it| it.saturating_add(OVERHEAD).max(MEMORY));
    let memory = ours.or(limited).unwrap_or(MEMORY);
    memory.clamp(128 * MIB, 1 << 40).next_multiple_of(MIB)
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix(['M', 'm']) {
        Some(number) => (number, MIB),
        None => match text.strip_suffix(['G', 'g']) {
            Some(number) => (number, MIB << 10),
            None => (text, 1),
        },
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn cpus(spec: &Spec, annotations: &HashMap<String, String>) -> u8 {
    let number = |name: &str| annotations.get(name).and_then(|it| it.parse::<i64>().ok());
    if let Some(ours) = annotations
        .get(OUR_CPUS)
        .and_then(|it| it.parse::<u8>().ok())
    {
        return ours.clamp(1, MOST_CPUS);
    }
    let resources = spec.linux().as_ref().and_then(|it| it.resources().as_ref());
    let own = resources.and_then(|it| it.cpu().as_ref());
    let quota = number(SANDBOX_QUOTA).or_else(|| own?.quota());
    let period = number(SANDBOX_PERIOD).or_else(|| i64::try_from(own?.period()?).ok());
    match (quota, period) {
        (Some(quota @ 1..), Some(period @ 1..)) => {
            let whole = quota.saturating_add(period - 1) / period;
            let cpus = u8::try_from(whole).unwrap_or(MOST_CPUS);
            cpus.clamp(CPUS, MOST_CPUS)
        }
        _ => CPUS,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(resources: serde_json::Value, annotations: serde_json::Value) -> PodConfig {
        let spec = json!({
            "ociVersion": "1.0.2",
            "annotations": annotations,
            "linux": {"resources": resources}
        });
        pod_config("p".into(), &serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn limits_become_a_machine() {
        let usual = config(json!({}), json!({}));
        assert_eq!((usual.memory, usual.cpus), (512 << 20, 1));
        let big =
            json!({"memory": {"limit": 1u64 << 30}, "cpu": {"quota": 250_000, "period": 100_000}});
        let big = config(big, json!({}));
        assert_eq!((big.memory, big.cpus), ((1 << 30) + OVERHEAD, 3));
        let none = config(
            json!({"memory": {"limit": -1}, "cpu": {"quota": -1, "period": 100_000}}),
            json!({}),
        );
        assert_eq!((none.memory, none.cpus), (512 << 20, 1));
        let ours = json!({OUR_MEMORY: "300M", OUR_CPUS: "2", SANDBOX_MEMORY: "1"});
        let ours = config(json!({}), ours);
        assert_eq!((ours.memory, ours.cpus), (300 << 20, 2));
    }

    #[test]
    fn names_fit_into_socket_paths() {
        assert_eq!(pod_name("default", "a"), "default-a");
        let long = pod_name("k8s.io", &"f".repeat(64));
        assert_eq!(long.len(), 32);
        assert_ne!(long, pod_name("k8s.io", &"e".repeat(64)));
        assert_eq!(pod_name("default", "a/b").len(), 32);
    }
}
