//! What a container finds inside.

use ringside_protocol::agent::Storage;
use serde_json::json;

use crate::pod::Pod;
use crate::spec::{container, process};

pub(crate) fn it_says_and_ends(pod: &mut Pod) {
    let output = pod.container("says", &container("echo out; echo err >&2; exit 7"));
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str(), output.code),
        ("out\n", "err\n", 7)
    );
    let output = pod.container("says", &container("kill -9 $$"));
    assert_eq!(output.code, 0, "PID 1 of a name space does not kill itself");
}

pub(crate) fn name_spaces(pod: &mut Pod) {
    let show = "echo $$; hostname; for n in pid ipc uts mnt cgroup net; do readlink /proc/self/ns/$n; done";
    let ends = pod.run("spaces", &container("sleep 1000"));
    let inside = pod.output("spaces", &process(show)).stdout;
    let mut pods = container(show);
    pods["linux"]["namespaces"] = json!([{"type": "mount"}]);
    pods.as_object_mut().unwrap().remove("hostname");
    let outside = pod.container("outside", &pods).stdout;
    let (inside, outside): (Vec<_>, Vec<_>) = (inside.lines().collect(), outside.lines().collect());
    assert_eq!((inside[1], outside[1]), ("inside", "pod"));
    assert_eq!(inside.len(), 8, "{inside:?}");
    for (at, name) in [
        (2, "pid"),
        (3, "ipc"),
        (4, "uts"),
        (5, "mnt"),
        (6, "cgroup"),
    ] {
        assert_ne!(inside[at], outside[at], "{name}");
    }
    assert_eq!(inside[7], outside[7], "the network is the pod's");
    assert_ne!(outside[0], "1", "without a process name space of its own");
    pod.signal("spaces", "", 9);
    assert_eq!(pod.finish("spaces", "", ends).code, 137);
    pod.delete("spaces");
}

pub(crate) fn shared_processes(pod: &mut Pod) {
    let mut spec = container("sleep 4711");
    spec["linux"]["namespaces"] =
        json!([{"type": "pid", "path": ""}, {"type": "mount"}, {"type": "uts"}]);
    let ends = pod.run("shared1", &spec);
    spec["process"] = process(
        "ps; kill -9 $(ps | grep 'sleep 471[1]' | tr -s ' ' | sed 's/^ //' | cut -d' ' -f1)",
    );
    let seen = pod.container("shared2", &spec);
    assert!(seen.stdout.contains("sleep 4711"), "{seen:?}");
    assert!(
        !seen.stdout.contains("kthreadd"),
        "the guest's own processes are not seen: {seen:?}"
    );
    assert_eq!(pod.finish("shared1", "", ends).code, 137, "{seen:?}");
    pod.delete("shared1");
}

pub(crate) fn mounts(pod: &mut Pod) {
    let script = "
        touch /sys/x 2>/dev/null && echo /sys can be written
        echo x > /proc/sys/kernel/domainname 2>/dev/null && echo /proc/sys can be written
        wc -c < /proc/keys
        touch /dev/shm/x && echo shm
        echo x > /dev/null && echo null
        [ -c /dev/ptmx ] || [ -L /dev/ptmx ] && echo ptmx
        [ -d /dev/mqueue ] && echo mqueue
        grep -c ' /dev/pts devpts ' /proc/mounts
        cat /etc/resolv.conf
        [ -e /pod ] && echo the pod is seen
        ls /run/ringside 2>/dev/null";
    let output = pod.container("mounts", &container(script));
    let expected = "0\nshm\nnull\nptmx\nmqueue\n1\nnameserver 10.9.8.7\n";
    assert_eq!(output.stdout, expected, "{output:?}");
    let mut read_only = container("touch /x; touch /tmp/x && echo tmp");
    read_only["root"]["readonly"] = json!(true);
    let tmp = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m"]});
    read_only["mounts"].as_array_mut().unwrap().push(tmp);
    let output = pod.container("readonly", &read_only);
    assert_eq!(output.stdout, "tmp\n", "{output:?}");
    assert!(
        output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
}

pub(crate) fn storages(pod: &mut Pod) {
    let tmpfs = |point: &str, size: &str| {
        let mut storage = Storage::new();
        storage.set_tmpfs(true);
        storage.options = vec![size.to_owned(), "mode=777".to_owned()];
        storage.mount_point = point.to_owned();
        storage
    };
    let mut root = Storage::new();
    root.set_overlay(true);
    root.lower = vec!["/pod/root".to_owned()];
    root.upper = "/run/layers/upper".to_owned();
    root.work = "/run/layers/work".to_owned();
    root.mount_point = "/run/overlay".to_owned();
    let mut file = Storage::new();
    file.set_bind("/pod/root/etc/passwd".to_owned());
    file.options = vec!["ro".to_owned()];
    file.mount_point = "/run/volumes/file".to_owned();
    let storages = [
        tmpfs("/run/layers", "size=8m"),
        root,
        tmpfs("/run/volumes", "size=2m"),
        file,
    ];
    let mut spec = container(
        "
        touch /written; ls /written
        dd if=/dev/zero of=/volume/x bs=1M count=3 2>/dev/null || echo full
        head -n1 /file; echo x >> /file",
    );
    spec["root"]["path"] = json!("/run/overlay");
    let bind = |to: &str, from: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind"]});
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.extend([
        bind("/volume", "/run/volumes"),
        bind("/file", "/run/volumes/file"),
    ]);
    for round in 0..2 {
        // The second round finds nothing of the first: everything was taken away.
        let output = pod.container_on("storages", &spec, &storages);
        assert_eq!(
            output.stdout, "/written\nfull\nroot:x:0:0::/root:/bin/sh\n",
            "{round}: {output:?}"
        );
        assert!(
            output.stderr.contains("Read-only file system"),
            "{output:?}"
        );
    }
    assert!(!pod.guest.scratch.join("shared/root/written").exists());
}

pub(crate) fn disks(pod: &mut Pod) {
    let disk = |filesystem: &str, point: &str| {
        let mut storage = Storage::new();
        storage.set_block_serial("disk-0".to_owned());
        storage.filesystem = filesystem.to_owned();
        storage.mount_point = point.to_owned();
        storage
    };
    let bind = |to: &str, from: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind"]});
    let mut spec =
        container("cat /disk/kept; echo kept > /disk/kept; grep -c ' /disk ext4 ' /proc/mounts");
    spec["mounts"]
        .as_array_mut()
        .unwrap()
        .push(bind("/disk", "/run/disk"));
    for expected in ["1\n", "kept\n1\n"] {
        let output = pod.container_on("disk", &spec, &[disk("", "/run/disk")]);
        assert_eq!(output.stdout, expected, "{output:?}");
    }
    let mut raw =
        container("[ -b /raw ] && dd if=/raw bs=1 skip=1080 count=2 2>/dev/null | od -tx1 -An");
    raw["mounts"]
        .as_array_mut()
        .unwrap()
        .push(bind("/raw", "/run/raw"));
    let output = pod.container_on("raw", &raw, &[disk("none", "/run/raw")]);
    assert_eq!(output.stdout.trim(), "53 ef", "{output:?}");
}

pub(crate) fn user(pod: &mut Pod) {
    let mut spec = container(
        "id -u; id -g; id -G; pwd; echo $GREETING; ulimit -n; grep -E 'Cap(Eff|Bnd)|NoNewPrivs|SigIgn' /proc/self/status; echo again > /dev/stdout",
    );
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8]});
    spec["process"]["cwd"] = json!("/tmp");
    spec["process"]["env"] = json!(["PATH=/bin", "GREETING=hello there"]);
    spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]);
    spec["process"]["capabilities"] =
        json!({"bounding": ["CAP_KILL"], "effective": [], "permitted": []});
    let output = pod.container("user", &spec);
    let expected = "1000\n1001\n1001 7 8\n/tmp\nhello there\n123\nSigIgn:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000020\nNoNewPrivs:\t1\nagain\n";
    assert_eq!(output.stdout, expected, "{output:?}");
    let root = pod.container("root", &container("grep CapEff /proc/self/status"));
    assert_eq!(
        root.stdout, "CapEff:\t00000000a80425fb\n",
        "what docker gives"
    );
}

pub(crate) fn seccomp(pod: &mut Pod) {
    let rules = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    });
    for privileges in [true, false] {
        let script = "mkdir /tmp/refused; grep Seccomp: /proc/self/status";
        let mut spec = container(&format!("{script}; cat"));
        spec["linux"]["seccomp"] = rules.clone();
        spec["process"]["noNewPrivileges"] = json!(privileges);
        let mut further = process(script);
        further["noNewPrivileges"] = json!(privileges);
        further["user"] = json!({"uid": 1000, "gid": 1000});
        // As containerd has it on a host with AppArmor: for the host's kernel, not the guest's.
        for process in [&mut spec["process"], &mut further] {
            process["apparmorProfile"] = json!("cri-containerd.apparmor.d");
        }
        let ends = pod.run("seccomp", &spec);
        let also = pod.output("seccomp", &further);
        let first = pod.finish("seccomp", "", ends);
        for output in [first, also] {
            assert_eq!(output.stdout, "Seccomp:\t2\n", "{output:?}");
            assert!(
                output.stderr.contains("Operation not supported"),
                "{output:?}"
            );
        }
        pod.delete("seccomp");
    }
}

pub(crate) fn hooks(pod: &mut Pod) {
    let mut spec = container("cat /tmp/started; ls /tmp/created");
    let busybox = "/pod/root/bin/busybox";
    spec["hooks"] = json!({
        "createContainer": [{"path": busybox, "args": ["touch", "/pod/root/tmp/created"]}],
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo started > /tmp/started"], "env": ["PATH=/bin"]}],
    });
    let output = pod.container("hooks", &spec);
    assert_eq!(output.stdout, "started\n/tmp/created\n", "{output:?}");
    spec["hooks"] = json!({"createContainer": [{"path": busybox, "args": ["false"]}]});
    let error = pod
        .create("hooks", &spec)
        .err()
        .expect("a hook that fails is an error")
        .to_string();
    assert!(error.contains("hook"), "{error}");
}

pub(crate) fn devices(pod: &mut Pod) {
    let mut spec = container(
        "echo x > /dev/mine && [ -c /dev/mine ] && echo device; cat /proc/sys/kernel/msgmax; cat /proc/sys/net/ipv4/ip_forward",
    );
    spec["linux"]["devices"] = json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}]);
    spec["linux"]["sysctl"] = json!({"kernel.msgmax": "12345"});
    let output = pod.container("devices", &spec);
    assert_eq!(output.stdout, "device\n12345\n1\n", "{output:?}");
}

/// Of the guest's devices only those that the rules allow, whoever makes the node.
pub(crate) fn device_rules(pod: &mut Pod) {
    let script = "
        mknod /dev/log c 1 11 && head -c 1 /dev/log 2>&1 | grep -o 'not permitted'
        mknod /dev/nothing c 1 3 && echo x >/dev/nothing && echo null
        head -c 1 /dev/zero | wc -c";
    let mut spec = container(script);
    let expected = "not permitted\nnull\n1\n";
    spec["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]);
    let output = pod.container("rules", &spec);
    assert_eq!(output.stdout, expected, "{output:?}");
    let rules = &mut spec["linux"]["resources"]["devices"];
    *rules = json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "r"}]);
    let output = pod.container("rules", &spec);
    assert_eq!(output.stdout, expected, "{output:?}");
}
