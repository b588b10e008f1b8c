//! What a bundle says about its pod.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::Spec;
use ringside_config::{Hypervisor, Machine, Settings};
use ringside_pod::{Files, HypervisorChoice, PodConfig, PodError, directory, spec};

/// Memory that the guest's kernel, the agent and page tables take of a machine.
const OVERHEAD: u64 = 192 << 20;
const MOST_CPUS: i64 = 64;
const MIB: u64 = 1 << 20;
/// Memory of a machine at most, where the configuration sets no limit.
const MOST_MEMORY: u64 = 1 << 40;

/// containerd's CRI tells a sandbox what its containers will be limited to (KEP 2570's annotations).
const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
const SANDBOX_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const SANDBOX_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

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

/// What the pod of this first container shall be, by the host's configuration and its annotations.
///
/// # Errors
/// When the configuration or an annotation of ours says something that cannot be.
pub(crate) fn pod_config(
    name: String,
    spec: &Spec,
    host: &Settings,
) -> Result<PodConfig, ringside_config::Error> {
    let annotations = annotations(spec);
    let pairs = annotations
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    let config = host.with_annotations(pairs)?.into_config();
    let hostname = spec.hostname().clone().filter(|name| !name.is_empty());
    Ok(PodConfig {
        name,
        root: directory::root(),
        hostname: hostname.unwrap_or_else(|| "ringside".to_owned()),
        cpus: cpus(spec, &annotations)
            .unwrap_or(u8::try_from(config.machine.cpus.get()).unwrap_or(1)),
        memory: memory(spec, &annotations, &config.machine),
        hypervisor: match config.hypervisor {
            Hypervisor::Auto => HypervisorChoice::Auto,
            Hypervisor::Vmm => HypervisorChoice::Ringside,
            Hypervisor::Qemu => HypervisorChoice::Qemu,
        },
        files: Files::Bound,
        network_namespace: spec::network_namespace(spec),
        tap: None,
        disks: Vec::new(),
        storages: Vec::new(),
        sysctls: spec::pod_sysctls(spec),
        logs: None,
        metrics: None,
        restart: true,
        configuration: config,
    })
}

fn memory(spec: &Spec, annotations: &HashMap<String, String>, machine: &Machine) -> u64 {
    let sandbox = annotations
        .get(SANDBOX_MEMORY)
        .and_then(|it| it.parse().ok());
    let resources = spec.linux().as_ref().and_then(|it| it.resources().as_ref());
    let own = resources.and_then(|it| it.memory().as_ref()?.limit());
    let own = own.and_then(|it| u64::try_from(it).ok());
    let limit = sandbox.filter(|it| *it > 0).or(own).unwrap_or(0);
    // A limit above the usual size asks for more; one below does not make the machine too small.
    let memory = match limit {
        0 => machine.memory.0,
        limit => limit.saturating_add(OVERHEAD).max(machine.memory.0),
    };
    let most = machine.max_memory.map_or(MOST_MEMORY, |it| it.0);
    memory.min(most).next_multiple_of(MIB)
}

/// Processors that a quota asks for.
fn cpus(spec: &Spec, annotations: &HashMap<String, String>) -> Option<u8> {
    let number = |name: &str| annotations.get(name).and_then(|it| it.parse::<i64>().ok());
    let resources = spec.linux().as_ref().and_then(|it| it.resources().as_ref());
    let own = resources.and_then(|it| it.cpu().as_ref());
    let quota = number(SANDBOX_QUOTA).or_else(|| own?.quota());
    let period = number(SANDBOX_PERIOD).or_else(|| i64::try_from(own?.period()?).ok());
    match (quota, period) {
        (Some(quota @ 1..), Some(period @ 1..)) => {
            let whole = quota.saturating_add(period - 1) / period;
            u8::try_from(whole.clamp(1, MOST_CPUS)).ok()
        }
        _ => None,
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
        let spec = serde_json::from_value(spec).unwrap();
        pod_config("p".into(), &spec, &Settings::default()).unwrap()
    }

    #[test]
    fn limits_become_a_machine() {
        let usual = config(json!({}), json!({}));
        let big =
            json!({"memory": {"limit": 4u64 << 30}, "cpu": {"quota": 250_000, "period": 100_000}});
        let big = config(big, json!({}));
        assert_eq!((big.memory, big.cpus), ((4 << 30) + OVERHEAD, 3));
        let none = json!({"memory": {"limit": -1}, "cpu": {"quota": -1, "period": 100_000}});
        let none = config(none, json!({}));
        assert_eq!((none.memory, none.cpus), (usual.memory, usual.cpus));
        let ours = json!({"io.ringside.machine.memory": "300M", "io.ringside.machine.cpus": "2"});
        let spec = json!({"ociVersion": "1.0.2", "annotations": ours});
        let spec = serde_json::from_value(spec).unwrap();
        match pod_config("p".into(), &spec, &Settings::default()) {
            Ok(ours) => assert_eq!((ours.memory, ours.cpus), (300 << 20, 2)),
            // The host may not allow it, and says so by the key's name.
            Err(error) => assert!(error.to_string().contains("machine."), "{error}"),
        }
    }
}
