//! Bytes to and from processes: all of them, in order, and then an end.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringside_protocol::agent::{ProcessRequest, ResizeRequest, WindowSize};
use serde_json::json;

use crate::pod::{Pod, patient, read_line};
use crate::spec::{container, process};

pub(crate) fn much(pod: &mut Pod) {
    const LINES: u32 = 2_600_000;
    let ends = pod.run("much", &container(&format!("seq {LINES}")));
    let output = pod.finish("much", "", ends);
    let mut expected = String::new();
    for line in 1..=LINES {
        let _ = writeln!(expected, "{line}");
    }
    assert!(expected.len() > 19_000_000);
    assert_eq!(output.stdout.len(), expected.len());
    assert!(output.stdout == expected, "bytes changed on their way");
    pod.delete("much");
    // And back: what went in comes out, through a reader slower than the writer.
    let mut ends = pod.run("back", &container("cat"));
    let (mut stdin, sent) = (
        ends.stdin.try_clone().unwrap(),
        expected[..4_000_000].to_owned(),
    );
    let echo = sent.clone();
    let writer = std::thread::spawn(move || {
        stdin.write_all(sent.as_bytes()).unwrap();
        stdin.shutdown(Shutdown::Write).unwrap();
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut received = String::new();
    ends.stdout.read_to_string(&mut received).unwrap();
    writer.join().unwrap();
    assert!(
        received == echo,
        "{} of {} bytes",
        received.len(),
        echo.len()
    );
    assert_eq!(pod.exit("back", "").code, 0);
    pod.delete("back");
}

pub(crate) fn input_ends(pod: &mut Pod) {
    let mut ends = pod.run("input", &container("cat; echo after"));
    ends.stdin.write_all(b"before\n").unwrap();
    read_line(&mut ends.stdout, "before");
    let mut request = ProcessRequest::new();
    request.container = "input".to_owned();
    pod.guest.agent.close_stdin(patient(), &request).unwrap();
    read_line(&mut ends.stdout, "after");
    assert_eq!(pod.exit("input", "").code, 0);
    pod.delete("input");
}

pub(crate) fn terminal(pod: &mut Pod) {
    let mut spec = container("tty; read go; stty size; read line; echo \"<$line>\"; cat; exit 4");
    spec["process"]["terminal"] = json!(true);
    let mut ends = pod.run("terminal", &spec);
    read_line(&mut ends.stdout, "/dev/pts/0\r");
    let mut request = ResizeRequest::new();
    request.container = "terminal".to_owned();
    let mut window = WindowSize::new();
    (window.rows, window.columns) = (44, 132);
    request.window = Some(window).into();
    pod.guest.agent.resize(patient(), &request).unwrap();
    ends.stdin.write_all(b"\n").unwrap();
    read_line(&mut ends.stdout, "\r");
    read_line(&mut ends.stdout, "44 132\r");
    ends.stdin.write_all(b"text\n").unwrap();
    read_line(&mut ends.stdout, "text\r");
    read_line(&mut ends.stdout, "<text>\r");
    assert_eq!(
        pod.finish("terminal", "", ends).code,
        4,
        "the end of input ends cat"
    );
    pod.delete("terminal");
    let ends = pod.run("holder", &container("sleep 1000"));
    let mut further = process("tty; exit 6");
    further["terminal"] = json!(true);
    let output = pod.output("holder", &further);
    assert_eq!(
        (output.stdout.as_str(), output.code),
        ("/dev/pts/0\r\n", 6),
        "{output:?}"
    );
    pod.signal("holder", "", 9);
    pod.finish("holder", "", ends);
    pod.delete("holder");
}

pub(crate) fn left_behind(pod: &mut Pod) {
    let ends = pod.run("parent", &container("cat"));
    let start = Instant::now();
    let mut child = pod
        .exec(
            "parent",
            "child",
            &process("sleep 1000 & echo gone; exit 3"),
        )
        .unwrap();
    read_line(&mut child.stdout, "gone");
    assert_eq!(pod.exit("parent", "child").code, 3);
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "who is left holds nobody up"
    );
    let noisy = pod
        .exec("parent", "noisy", &process("yes & sleep 0.2; exit 2"))
        .unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stdout, mut buffer) = (noisy.stdout, vec![0; 65536]);
        while stdout.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
    assert_eq!(pod.exit("parent", "noisy").code, 2);
    assert_eq!(pod.finish("parent", "", ends).code, 0);
    // With the container's first process the others go, and their streams end.
    reader.join().unwrap();
    pod.delete("parent");
}

pub(crate) fn storm(pod: &mut Pod) {
    const PROCESSES: u32 = 50;
    let ends = pod.run("storm", &container("cat"));
    let mut prepared = VecDeque::new();
    for number in 0..PROCESSES {
        let script = format!("echo {number}; exit {number}");
        prepared.push_back((
            number,
            pod.exec_request("storm", &format!("x{number}"), &process(&script)),
        ));
    }
    // Several at a time, as from a host that does not wait for one before it asks for the next.
    let prepared = Mutex::new(prepared);
    let started = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((number, (request, ends))) = { prepared.lock().unwrap().pop_front() }
                {
                    pod.guest.agent.exec(patient(), &request).unwrap();
                    started.lock().unwrap().push((number, ends));
                }
            });
        }
    });
    for (number, ends) in started.into_inner().unwrap() {
        let output = pod.finish("storm", &format!("x{number}"), ends);
        assert_eq!(
            (output.stdout, output.code),
            (format!("{number}\n"), number)
        );
    }
    pod.finish("storm", "", ends);
    pod.delete("storm");
}
