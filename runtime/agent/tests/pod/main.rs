//! The agent in a guest of its own, emulated by QEMU, over virtiofs and vsock: a host's view.

mod guest;
mod pod;
mod spec;

use serde_json::json;

use self::pod::Pod;

#[test]
fn a_container_runs() {
    let mut pod = Pod::start("agent-first", |_| {});
    let hello = pod
        .guest
        .agent
        .hello(pod::patient(), &Default::default())
        .unwrap();
    println!("{hello}");
    let output = pod.container("one", &spec::container("echo out; echo err >&2; exit 7"));
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str(), output.code),
        ("out\n", "err\n", 7)
    );
    let ends = pod.run("two", &spec::container("cat; sleep 1000"));
    let said = pod.output("two", &spec::process("hostname; id -u"));
    assert_eq!(said.stdout, "inside\n0\n");
    pod.signal("two", "", 9);
    assert_eq!(pod.finish("two", "", ends).code, 137);
    pod.delete("two");
    let _ = json!({});
}
