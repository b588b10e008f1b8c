//! What is counted, limited, stopped and signalled.

use std::time::{Duration, Instant};

use ringside_protocol::agent::event::What;
use ringside_protocol::agent::{AddEntropyRequest, SetClockRequest, SignalRequest, UpdateRequest};
use serde_json::json;

use crate::pod::{self, Pod, patient};
use crate::spec::{container, process};

pub(crate) fn cgroup(pod: &mut Pod) {
    let mut spec = container("sleep 1000");
    spec["linux"]["resources"] = json!({
        "memory": {"limit": 67_108_864}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100_000, "shares": 512},
    });
    let ends = pod.run("limits", &spec);
    let show = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max";
    let output = pod.output("limits", &process(show));
    assert_eq!(output.stdout, "67108864\n20\n50000 100000\n", "{output:?}");
    let mut update = UpdateRequest::new();
    update.container = "limits".to_owned();
    update.resources = json!({"memory": {"limit": 134_217_728}})
        .to_string()
        .into_bytes();
    pod.guest.agent.update(patient(), &update).unwrap();
    let output = pod.output("limits", &process(show));
    assert_eq!(output.stdout, "134217728\n20\n50000 100000\n", "{output:?}");
    let bomb = pod.output(
        "limits",
        &process("for i in $(seq 40); do sleep 1 & done; echo over"),
    );
    assert!(bomb.stderr.contains("fork"), "{bomb:?}");
    pod.signal("limits", "", 9);
    pod.finish("limits", "", ends);
    pod.delete("limits");
}

pub(crate) fn inner_cgroups(pod: &mut Pod) {
    let mut spec = container(
        "cd /sys/fs/cgroup && mkdir -p a/b/c a/d && (sleep 1000 & echo $! > a/d/cgroup.procs) && echo made",
    );
    let mounts = spec["mounts"].as_array_mut().unwrap();
    for mount in mounts {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
        }
    }
    let output = pod.container("nested", &spec);
    assert_eq!((output.stdout.as_str(), output.code), ("made\n", 0));
}

pub(crate) fn out_of_memory(pod: &mut Pod) {
    let mut spec = container("tail /dev/zero");
    spec["linux"]["resources"] = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
    let ends = pod.run("hungry", &spec);
    let event = pod.event(|what| matches!(what, What::OutOfMemory(it) if it.container == "hungry"));
    let told = event.number;
    let exit = pod.event(|what| matches!(what, What::Exit(exit) if exit.container == "hungry"));
    assert!(told < exit.number, "the reason is told before the end");
    assert!(matches!(exit.what, Some(What::Exit(exit)) if exit.code == 137));
    drop(ends);
    pod.delete("hungry");
}

pub(crate) fn pause(pod: &mut Pod) {
    let ends = pod.run(
        "pausing",
        &container("while :; do echo x >> /tmp/pausing; sleep 0.05; done"),
    );
    let file = pod.guest.scratch.join("shared/root/tmp/pausing");
    let size = || std::fs::metadata(&file).map_or(0, |file| file.len());
    let grows = || {
        let (before, deadline) = (size(), Instant::now() + Duration::from_secs(3));
        while size() == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        size() > before
    };
    assert!(grows());
    pod.guest
        .agent
        .pause(patient(), &pod::container("pausing"))
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let paused = size();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(size(), paused);
    let refused = pod.exec("pausing", "x", &process("true")).err().unwrap();
    assert!(refused.to_string().contains("is paused"), "{refused}");
    pod.guest
        .agent
        .resume(patient(), &pod::container("pausing"))
        .unwrap();
    assert!(grows());
    pod.signal("pausing", "", 9);
    assert_eq!(pod.finish("pausing", "", ends).code, 137);
    pod.delete("pausing");
}

pub(crate) fn statistics(pod: &mut Pod) {
    let mut ends = pod.run(
        "counted",
        &container(
            "sleep 1000 & dd if=/dev/zero of=/dev/null bs=1M count=50 2>/dev/null; echo done; wait",
        ),
    );
    // Before that there may be a process more, or none yet.
    pod::read_line(&mut ends.stdout, "done");
    pod.wait_for("counted", |stats| {
        stats.cpu_usage_us > 1000 && stats.pids_current == 2
    });
    let stats = pod
        .guest
        .agent
        .stats(patient(), &pod::container("counted"))
        .unwrap();
    assert!(
        stats.memory_usage_bytes > 0 && stats.memory_stat.contains_key("anon"),
        "{stats}"
    );
    assert_eq!(
        (stats.memory_limit_bytes, stats.memory_events["oom_kill"]),
        (0, 0)
    );
    let pids = pod
        .guest
        .agent
        .pids(patient(), &pod::container("counted"))
        .unwrap()
        .pids;
    assert_eq!(pids.len(), 2, "{pids:?}");
    pod.signal("counted", "", 9);
    pod.finish("counted", "", ends);
    pod.delete("counted");
}

pub(crate) fn signals(pod: &mut Pod) {
    let script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut ends = pod.run("signals", &container(script));
    pod::read_line(&mut ends.stdout, "ready");
    let further = pod
        .exec("signals", "more", &process("exec sleep 1000"))
        .unwrap();
    pod.signal("signals", "more", 10);
    assert_eq!(pod.finish("signals", "more", further).code, 138, "SIGUSR1");
    pod.signal("signals", "", 15);
    let output = pod.finish("signals", "", ends);
    assert_eq!((output.stdout.as_str(), output.code), ("got\n", 5));
    pod.delete("signals");
    let ends = pod.run("all", &container("sleep 1000 & sleep 1001 & wait"));
    pod.wait_for("all", |stats| stats.pids_current == 3);
    let mut request = SignalRequest::new();
    request.container = "all".to_owned();
    request.signal = 9;
    request.all = true;
    pod.guest.agent.signal(patient(), &request).unwrap();
    assert_eq!(pod.finish("all", "", ends).code, 137);
    pod.delete("all");
}

pub(crate) fn clock(pod: &mut Pod) {
    let mut request = SetClockRequest::new();
    request.realtime_ns = 2_000_000_000_000_000_000;
    pod.guest.agent.set_clock(patient(), &request).unwrap();
    let output = pod.container("clock", &container("date +%s"));
    let seconds: u64 = output.stdout.trim().parse().unwrap();
    assert!(
        (2_000_000_000..2_000_000_100).contains(&seconds),
        "{seconds}"
    );
    let mut request = AddEntropyRequest::new();
    request.bytes = (0..=255).cycle().take(1300).collect();
    pod.guest.agent.add_entropy(patient(), &request).unwrap();
}
