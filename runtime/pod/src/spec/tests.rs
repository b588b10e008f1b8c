use serde_json::{Value, json};

use super::*;

fn spec(change: impl FnOnce(&mut Value)) -> Spec {
    let mut text = json!({
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "hostname": "h",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]},
            {"destination": "/dev/shm", "type": "bind", "source": "/run/x/shm", "options": ["rbind"]},
            {"destination": "/host-sys", "type": "bind", "source": "/sys", "options": ["bind"]},
            {"destination": "/etc/hosts", "type": "none", "source": "files/hosts", "options": ["bind"]}
        ],
        "linux": {
            "cgroupsPath": "slice:a:b",
            "namespaces": [
                {"type": "pid", "path": "/proc/1/ns/pid"},
                {"type": "ipc", "path": "/proc/1/ns/ipc"},
                {"type": "uts", "path": "/proc/1/ns/uts"},
                {"type": "mount"},
                {"type": "network", "path": "/run/netns/x"}
            ]
        }
    });
    change(&mut text);
    serde_json::from_value(text).unwrap()
}

fn planned(change: impl FnOnce(&mut Value)) -> Result<(Value, Plan), String> {
    let plan = plan(spec(change), "c1", "/bundle".as_ref()).map_err(|error| error.to_string())?;
    Ok((serde_json::to_value(&plan.spec).unwrap(), plan))
}

#[test]
fn a_pod_s_container_becomes_the_guest_s() {
    let (spec, plan) = planned(|_| ()).unwrap();
    assert_eq!(spec["root"]["path"], "/run/ringside/shared/c1/rootfs");
    assert_eq!(plan.root.source, Path::new("/bundle/rootfs"));
    let sources: Vec<_> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["source"].as_str().unwrap())
        .collect();
    assert_eq!(
        sources,
        [
            "proc",
            "/run/ringside/shared/c1/mounts/0",
            "/run/ringside/shm",
            "/sys",
            "/run/ringside/shared/c1/mounts/1",
        ]
    );
    let data = Bind {
        source: "/srv/data".into(),
        recursive: true,
        read_only: true,
    };
    let hosts = Bind {
        source: "/bundle/files/hosts".into(),
        recursive: false,
        read_only: false,
    };
    assert_eq!(plan.binds, [data, hosts]);
    let namespaces = json!([{"type": "pid", "path": ""}, {"type": "mount"}]);
    assert_eq!(spec["linux"]["namespaces"], namespaces);
    assert_eq!(spec["linux"]["cgroupsPath"], "/c1");
    assert_eq!(spec["hostname"], Value::Null);
}

#[test]
fn own_name_spaces_stay() {
    let own = json!([{"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}]);
    let (spec, _) = planned(|spec| spec["linux"]["namespaces"] = own).unwrap();
    let kept = json!([{"type": "pid"}, {"type": "uts"}, {"type": "ipc"}]);
    assert_eq!(spec["linux"]["namespaces"], kept);
    assert_eq!(spec["hostname"], "h");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 7] = [
        (
            |spec| spec["linux"]["namespaces"] = json!([{"type": "pid"}]),
            "host's network",
        ),
        (
            |spec| {
                spec["linux"]["namespaces"] =
                    json!([{"type": "network"}, {"type": "user", "path": "/u"}])
            },
            "user namespace /u",
        ),
        (
            |spec| {
                spec["mounts"][1] = json!({"destination": "/n", "type": "nfs", "source": "h:/x"})
            },
            "\"nfs\"",
        ),
        (
            |spec| spec["mounts"][1] = json!({"destination": "/n", "type": "bind"}),
            "/n has no source",
        ),
        (
            |spec| {
                spec["linux"]["devices"] =
                    json!([{"path": "/dev/x", "type": "b", "major": 8, "minor": 60000}]);
                spec["linux"]["resources"] = json!({"devices": [
                    {"allow": true, "type": "b", "major": 8, "minor": 60000, "access": "rwm"}
                ]});
            },
            "/dev/x is to be the host's block device 8:60000",
        ),
        (|spec| spec["root"] = Value::Null, "no root.path"),
        (|spec| spec["process"] = Value::Null, "no process"),
    ];
    for (change, words) in cases {
        let error = planned(change).unwrap_err();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    }
}

#[test]
fn block_devices_that_nobody_named_are_left_out() {
    let (spec, plan) = planned(|spec| {
        spec["linux"]["devices"] = json!([
            {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0},
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
        ]);
        spec["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
    })
    .unwrap();
    assert!(plan.volumes.is_empty());
    let left = spec["linux"]["devices"].as_array().unwrap();
    assert_eq!((left.len(), &left[0]["path"]), (1, &json!("/dev/fuse")));
}

#[test]
fn a_root_on_a_disk_is_mounted_in_the_guest() {
    let (_, mut plan) = planned(|_| ()).unwrap();
    plan.root_on_disk("d3", "ext4", vec!["ro".into()]);
    let spec = serde_json::to_value(&plan.spec).unwrap();
    assert_eq!(spec["root"]["path"], plan.storages[0].mount_point);
    assert_eq!(plan.storages[0].block_serial(), "d3");
}

#[test]
fn hooks_run_where_the_specification_says() {
    let hooks = json!({
        "prestart": [{"path": "/a"}], "createRuntime": [{"path": "/b"}], "createContainer": [{"path": "/c"}],
        "startContainer": [{"path": "/d"}], "poststart": [{"path": "/e"}], "poststop": [{"path": "/f"}]
    });
    let (spec, plan) = planned(|spec| spec["hooks"] = hooks).unwrap();
    let inside = json!({"createContainer": [{"path": "/c"}], "startContainer": [{"path": "/d"}]});
    assert_eq!(spec["hooks"], inside);
    let host = [
        plan.hooks.prestart,
        plan.hooks.create_runtime,
        plan.hooks.poststart,
        plan.hooks.poststop,
    ];
    let paths: Vec<_> = host
        .concat()
        .iter()
        .map(|hook| hook.path().clone())
        .collect();
    assert_eq!(paths, ["/a", "/b", "/e", "/f"].map(PathBuf::from));
}

#[test]
fn settings_of_what_a_pod_shares_are_the_pods() {
    let all = json!({"net.ipv4.ping_group_range": "0 0", "kernel.shm_rmid_forced": "1", "fs/mqueue/msg_max": "20", "kernel.x": "1"});
    let (spec, _) = planned(|spec| spec["linux"]["sysctl"] = all.clone()).unwrap();
    let own = json!({"kernel.shm_rmid_forced": "1", "fs/mqueue/msg_max": "20", "kernel.x": "1"});
    assert_eq!(spec["linux"]["sysctl"], own);
    let spec = serde_json::from_value(json!({"ociVersion": "1.0.2", "linux": {"sysctl": all}}));
    let of_pod = super::pod_sysctls(&spec.unwrap());
    let expected = json!({"net.ipv4.ping_group_range": "0 0", "kernel.shm_rmid_forced": "1", "fs/mqueue/msg_max": "20"});
    assert_eq!(serde_json::to_value(of_pod).unwrap(), expected);
}
