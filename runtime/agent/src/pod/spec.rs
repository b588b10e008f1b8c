//! What the agent itself must know of a container's config.json, and what it changes in it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{Error, Result};
use super::layout;

/// The parts of a specification that decide how a process's streams are made.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Glance {
    #[serde(default)]
    pub(super) process: ProcessGlance,
}

/// The same of a `process` object.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct ProcessGlance {
    #[serde(default)]
    pub(super) terminal: bool,
    #[serde(default)]
    pub(super) user: UserGlance,
}

/// Whose the process's pipes are to be, so that it can open `/dev/stdout` again.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct UserGlance {
    #[serde(default)]
    pub(super) uid: u32,
    #[serde(default)]
    pub(super) gid: u32,
}

/// The pod's share in every container's specification.
#[derive(Debug, Clone, Default)]
pub(super) struct Pod {
    pub(super) shared_pid_namespace: bool,
    pub(super) resolv_conf: bool,
}

/// Labels of a process by which the host's kernel would confine it. The guest's has no such profiles, and a process that
/// asks for one does not begin.
const OF_THE_HOSTS_KERNEL: [&str; 2] = ["apparmorProfile", "selinuxLabel"];

/// Reads a specification. Its parts are checked by who acts on them, and by the library; that it and its `linux`
/// are objects is what [`adapt`] stands on.
pub(super) fn read(bytes: &[u8]) -> Result<(Glance, Value)> {
    let refused = |error| Error::invalid("spec", error);
    let glance = serde_json::from_slice(bytes).map_err(refused)?;
    let spec: Value = serde_json::from_slice(bytes).map_err(refused)?;
    if !spec.is_object() {
        return Err(Error::invalid("spec", "is no JSON object"));
    }
    let linux = spec.get("linux").unwrap_or(&Value::Null);
    if !(linux.is_null() || linux.is_object()) {
        return Err(Error::invalid("spec", "its linux is no JSON object"));
    }
    Ok((glance, spec))
}

/// Makes a specification that [`read`] gave this guest's: its cgroup, the pod's name spaces, the pod's resolv.conf, no
/// profiles of the host's kernel.
pub(super) fn adapt(spec: &mut Value, container: &str, pod: &Pod) {
    if spec.get("linux").is_none_or(Value::is_null) {
        spec["linux"] = json!({});
    }
    spec["linux"]["cgroupsPath"] = layout::cgroup(container).into();
    if let Some(Value::Array(all)) = spec["linux"].get_mut("namespaces") {
        all.retain_mut(|one| keep_namespace(one, pod));
    }
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        // The library takes a present `false` for a `true` in one place.
        if process.get("noNewPrivileges") == Some(&Value::Bool(false)) {
            process.remove("noNewPrivileges");
        }
        for label in OF_THE_HOSTS_KERNEL {
            process.remove(label);
        }
    }
    if pod.resolv_conf {
        add_resolv_conf(spec);
    }
}

/// An empty path means the pod's: that is the guest's own name space, except for processes.
fn keep_namespace(namespace: &mut Value, pod: &Pod) -> bool {
    if namespace["path"] != "" {
        return true;
    }
    let shared = namespace["type"] == "pid" && pod.shared_pid_namespace;
    if shared {
        namespace["path"] = layout::POD_PID_NAMESPACE.into();
    }
    shared
}

fn add_resolv_conf(spec: &mut Value) {
    const PATH: &str = "/etc/resolv.conf";
    let mounts = spec["mounts"].as_array().map_or(&[][..], Vec::as_slice);
    if mounts.iter().any(|mount| mount["destination"] == PATH) {
        return;
    }
    let mount = json!({
        "destination": PATH,
        "type": "bind",
        "source": layout::RESOLV_CONF,
        "options": ["bind", "ro"],
    });
    match spec.get_mut("mounts") {
        Some(Value::Array(mounts)) => mounts.push(mount),
        _ => spec["mounts"] = json!([mount]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(mut spec: Value, pod: &Pod) -> Value {
        adapt(&mut spec, "c1", pod);
        spec
    }

    #[test]
    fn the_cgroup_is_the_agents_to_choose() {
        for spec in [json!({}), json!({"linux": {"cgroupsPath": "/a:b:c"}})] {
            let spec = adapted(spec, &Pod::default());
            assert_eq!(spec["linux"]["cgroupsPath"], "/pod/c1");
            assert!(spec.get("mounts").is_none());
        }
    }

    #[test]
    fn profiles_of_the_hosts_kernel_stay_there() {
        let process = json!({"apparmorProfile": "cri-containerd.apparmor.d", "selinuxLabel": "x", "cwd": "/"});
        let spec = adapted(json!({"process": process}), &Pod::default());
        assert_eq!(spec["process"], json!({"cwd": "/"}));
    }

    #[test]
    fn an_empty_path_is_the_pods() {
        let namespaces = json!({"linux": {"namespaces": [
            {"type": "pid", "path": ""}, {"type": "network", "path": ""}, {"type": "mount"},
            {"type": "ipc", "path": "/proc/7/ns/ipc"},
        ]}});
        let kept = |pod: &Pod| adapted(namespaces.clone(), pod)["linux"]["namespaces"].clone();
        let rest = [
            json!({"type": "mount"}),
            json!({"type": "ipc", "path": "/proc/7/ns/ipc"}),
        ];
        assert_eq!(kept(&Pod::default()), json!(rest));
        let shared = Pod {
            shared_pid_namespace: true,
            ..Pod::default()
        };
        let pid = json!({"type": "pid", "path": "/run/ringside/pid"});
        assert_eq!(kept(&shared), json!([pid, rest[0], rest[1]]));
    }

    #[test]
    fn a_container_gets_the_pods_resolv_conf_unless_it_brings_one() {
        let pod = Pod {
            resolv_conf: true,
            ..Pod::default()
        };
        let spec = adapted(json!({}), &pod);
        assert_eq!(spec["mounts"][0]["source"], "/run/ringside/resolv.conf");
        let own = json!({"mounts": [{"destination": "/etc/resolv.conf", "source": "/x"}]});
        assert_eq!(adapted(own.clone(), &pod)["mounts"], own["mounts"]);
    }

    #[test]
    fn what_is_no_object_is_refused_and_not_written_into() {
        for bad in [
            "[]",
            "[[true]]",
            "7",
            "\"x\"",
            r#"{"linux": "x"}"#,
            r#"{"linux": []}"#,
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        for good in ["{}", r#"{"linux": null}"#, r#"{"linux": {}, "mounts": 7}"#] {
            let (_, mut spec) = read(good.as_bytes()).unwrap();
            let pod = Pod {
                resolv_conf: true,
                ..Pod::default()
            };
            adapt(&mut spec, "c1", &pod);
            assert_eq!(spec["linux"]["cgroupsPath"], "/pod/c1", "{good}");
        }
    }

    #[test]
    fn a_glance_sees_the_user_and_the_terminal_and_needs_neither() {
        let seen: Glance = serde_json::from_str(
            r#"{"process":{"terminal":true,"user":{"uid":7,"gid":8},"args":["x"]},"x":1}"#,
        )
        .unwrap();
        let expected = ProcessGlance {
            terminal: true,
            user: UserGlance { uid: 7, gid: 8 },
        };
        assert_eq!(seen.process, expected);
        assert_eq!(
            serde_json::from_str::<Glance>("{}").unwrap().process,
            ProcessGlance::default()
        );
    }
}
