//! What is refused, and that the refusal says what and why.

use ringside_protocol::agent::{ProcessRequest, SignalRequest, StartSandboxRequest};
use serde_json::json;
use ttrpc::Code;

use crate::pod::{self, Pod, patient};
use crate::spec::{container, process};

fn refusal<T>(answer: ttrpc::Result<T>) -> (Code, String) {
    match answer.err().expect("this must be refused") {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

pub(crate) fn named(pod: &mut Pod) {
    let agent = pod.guest.agent.clone();
    let nobody = pod::container("nobody");
    let expect = |(code, text): (Code, String), wanted: Code, part: &str| {
        assert!(
            code == wanted && text.contains(part),
            "{code:?} {text:?}, not {wanted:?} {part:?}"
        );
    };
    expect(
        refusal(agent.start_container(patient(), &nobody)),
        Code::NOT_FOUND,
        "nobody",
    );
    expect(
        refusal(agent.stats(patient(), &nobody)),
        Code::NOT_FOUND,
        "nobody",
    );
    expect(
        refusal(agent.start_sandbox(patient(), &StartSandboxRequest::new())),
        Code::FAILED_PRECONDITION,
        "already",
    );
    expect(
        refusal(pod.create("a/b", &container("true"))),
        Code::INVALID_ARGUMENT,
        "container",
    );
    expect(
        refusal(pod.create("bad", &json!("x"))),
        Code::INVALID_ARGUMENT,
        "spec",
    );
    let mut missing = container("true");
    missing["process"]["args"] = json!(["/bin/no-such-program"]);
    let (_, text) = refusal(pod.create("bad", &missing));
    assert!(text.contains("no-such-program"), "{text}");
    let mut rule = container("true");
    rule["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rq"}]);
    expect(
        refusal(pod.create("bad", &rule)),
        Code::INVALID_ARGUMENT,
        "linux.resources.devices: has the access 'q'",
    );
    let mut wrong = container("true");
    wrong["linux"]["namespaces"] = json!("all");
    expect(
        refusal(pod.create("bad", &wrong)),
        Code::INVALID_ARGUMENT,
        "spec",
    );
    let mut nowhere = container("true");
    nowhere["root"]["path"] = json!("/no/such/root");
    let (_, text) = refusal(pod.create("bad", &nowhere));
    println!("a root that is not there: {text}");
    // Nothing of the failures stays: the name is free.
    let ends = pod.run("bad", &container("cat"));
    expect(
        refusal(pod.create("bad", &container("true"))),
        Code::ALREADY_EXISTS,
        "bad",
    );
    expect(
        refusal(agent.delete_container(patient(), &pod::container("bad"))),
        Code::FAILED_PRECONDITION,
        "runs",
    );
    let mut program = process("true");
    program["args"] = json!(["no-such-program"]);
    let (_, text) = refusal(pod.exec("bad", "x", &program));
    assert!(text.contains("no-such-program"), "{text}");
    expect(
        refusal(pod.exec("bad", "", &process("true"))),
        Code::INVALID_ARGUMENT,
        "exec",
    );
    let mut process = ProcessRequest::new();
    process.container = "bad".to_owned();
    process.exec = "x".to_owned();
    expect(
        refusal(agent.delete_process(patient(), &process)),
        Code::NOT_FOUND,
        "x",
    );
    let mut signal = SignalRequest::new();
    signal.container = "bad".to_owned();
    signal.signal = 65;
    expect(
        refusal(agent.signal(patient(), &signal)),
        Code::INVALID_ARGUMENT,
        "65",
    );
    assert_eq!(pod.finish("bad", "", ends).code, 0);
    signal.signal = 15;
    expect(
        refusal(agent.signal(patient(), &signal)),
        Code::NOT_FOUND,
        "ended",
    );
    pod.delete("bad");
    // Created and never started: it may go.
    let ends = pod.create("waiting", &container("true")).unwrap();
    pod.delete("waiting");
    drop(ends);
}
