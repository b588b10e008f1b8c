//! What a container may use.

use std::time::Duration;

use containerd_shim_protos::api::{Empty, UpdateTaskRequest};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::context::with_duration;
use serde_json::json;

use crate::containerd::Containerd;
use crate::events::Events;

/// A container's limits are the guest's, and those of a later call, too.
pub(crate) fn all(containerd: &Containerd, events: &Events) {
    let limit = containerd.exec(
        "b",
        "cat /sys/fs/cgroup/pod/b/memory.max /sys/fs/cgroup/memory.max 2>/dev/null",
    );
    assert_eq!(limit.text(), "67108864\n");
    let metrics = containerd.ctr(&["task", "metrics", "b"]).ok();
    assert!(
        metrics.contains("67108864") && metrics.contains("pids.current"),
        "{metrics}"
    );
    out_of_memory(containerd, events);
    updated_limits(containerd);
}

/// A process that wants more than its container may have is killed, and containerd hears why. The container goes on.
pub(crate) fn out_of_memory(containerd: &Containerd, events: &Events) {
    let ran = containerd.exec("b", "x=a; while :; do x=$x$x$x$x; done");
    assert_eq!(ran.code, 137, "{ran:?}");
    events.wait_for("/tasks/oom", "b");
    assert_eq!(containerd.state("b").as_deref(), Some("RUNNING"));
}

/// ctr has no `update`: kubelet's resizes come by this call.
fn updated_limits(containerd: &Containerd) {
    let less = json!({"memory": {"limit": 32 << 20}, "pids": {"limit": 8}, "cpu": {"quota": 80_000, "period": 100_000}});
    update(containerd, "b", &less).unwrap();
    let files = "cd /sys/fs/cgroup/pod/b; cat memory.max pids.max cpu.max";
    assert_eq!(
        containerd.exec("b", files).text(),
        "33554432\n8\n80000 100000\n"
    );
    // 40 MiB were allowed before, and ten processes.
    let ran = containerd.exec("b", "head -c 41943040 /dev/zero | tail -c 41943040 | wc -c");
    assert_ne!(ran.text(), "41943040\n");
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait";
    let ran = containerd.exec("b", script);
    assert!(ran.code != 0 && ran.err.contains("fork"), "{ran:?}");
    let nonsense = json!({"memory": {"limit": "much"}});
    assert!(update(containerd, "b", &nonsense).is_err());
    let more = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 1000}, "cpu": {"quota": -1, "period": 100_000}});
    update(containerd, "b", &more).unwrap();
    containerd.exec("b", script).ok();
}

fn update(
    containerd: &Containerd,
    id: &str,
    resources: &serde_json::Value,
) -> containerd_shim_protos::ttrpc::Result<Empty> {
    let request = UpdateTaskRequest {
        id: id.to_owned(),
        resources: MessageField::some(Any {
            value: serde_json::to_vec(resources).unwrap(),
            ..Any::default()
        }),
        ..UpdateTaskRequest::default()
    };
    let patience = with_duration(Duration::from_secs(60));
    containerd.calls(id).update(patience, &request)
}
