//! A client asks, in whole requests and in parts; a machine that remembers answers.

mod described;

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::machine::{
    Answer, BalloonInfo, Command, CopiedInfo, DeviceInfo, Info, MemoryInfo, Refusal, State,
};
use crate::options::DeviceDescription;

/// Says what it was asked for.
#[derive(Default)]
struct Memo(Mutex<Vec<String>>);

pub(super) fn device(id: &str) -> DeviceInfo {
    DeviceInfo {
        id: id.into(),
        kind: "disk",
        slot: Some(1),
        socket: Some("/run/disk".into()),
        connected: true,
        started: false,
        losses: 0,
        leaving: false,
    }
}

impl Memo {
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Target for &Memo {
    fn order(&self, command: Command) -> Result<Answer, Refusal> {
        self.0.lock().unwrap().push(format!("{command:?}"));
        match command {
            Command::Info => Ok(Answer::Info(Info {
                version: "1",
                pid: 2,
                state: State::Running,
                cpus: 3,
                memory: 4,
                devices: 5,
            })),
            Command::Devices => Ok(Answer::Devices(vec![device("disk0"), device("disk1")])),
            Command::Remove(id) if id == "none" => Err(Refusal::NoDevice(id)),
            Command::Memory => Ok(Answer::Memory(MemoryInfo {
                size: 1,
                resident: 2,
                balloon: Some(BalloonInfo {
                    target: 3,
                    actual: 4,
                    returned: 5,
                }),
            })),
            Command::Metrics => Ok(Answer::Metrics("text 1\n".into())),
            Command::Snapshot(order) if order.live => Ok(Answer::Copied(CopiedInfo {
                passes: 1,
                again: 2,
                last: 3,
                pause: 4,
            })),
            Command::Pause | Command::Resume | Command::Snapshot(_) => Ok(Answer::Done),
            _ => Ok(Answer::Begun),
        }
    }

    fn add(&self, described: DeviceDescription) -> Result<Answer, Refusal> {
        let id = described.id.clone().unwrap_or_default();
        self.0.lock().unwrap().push(described.label());
        if id == "taken" {
            return Err(Refusal::SameId(id));
        }
        Ok(Answer::Added(device(&id)))
    }
}

/// All that is answered to these bytes.
fn converse(chunks: &[&[u8]], memo: &Memo) -> (String, bool) {
    let mut exchange = Exchange::default();
    let mut answered = Vec::new();
    for chunk in chunks {
        exchange.feed(chunk, &memo);
        while !exchange.outgoing().is_empty() {
            answered.push(exchange.outgoing()[0]);
            exchange.sent(1);
            exchange.feed(&[], &memo);
        }
    }
    (String::from_utf8(answered).unwrap(), exchange.is_over())
}

fn ask(text: &str) -> (String, Vec<String>) {
    let memo = Memo::default();
    let (answered, _) = converse(&[text.as_bytes()], &memo);
    (answered, memo.asked())
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: vmm\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn orders_reach_the_machine() {
    for (path, order) in [
        ("pause", "Pause"),
        ("resume", "Resume"),
        ("shutdown", "PressPowerButton"),
        ("reset", "Reset"),
        ("quit", "Quit"),
    ] {
        let (answered, asked) = ask(&post(&format!("/v1/{path}"), ""));
        assert_eq!(asked, [order]);
        assert!(answered.starts_with("HTTP/1.1 20"), "{answered}");
    }
    let (answered, asked) = ask("DELETE /v1/devices/disk0 HTTP/1.1\r\n\r\n");
    assert_eq!(asked, ["Remove(\"disk0\")"]);
    assert!(
        answered.starts_with("HTTP/1.1 202 Accepted\r\n"),
        "{answered}"
    );
    let (answered, _) = ask("GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answered.ends_with("\r\n\r\ntext 1\n"), "{answered}");
    assert!(answered.contains("\r\nContent-Length: 7\r\n"), "{answered}");
}

#[test]
fn a_device_is_added_as_described() {
    let (answered, asked) = ask(&post(
        "/v1/devices",
        r#"{"disk": {"socket": "/a", "id": "x"}}"#,
    ));
    assert_eq!(asked, ["--disk socket=/a"]);
    assert!(
        answered.starts_with("HTTP/1.1 201 Created\r\n"),
        "{answered}"
    );
    assert!(answered.contains("\"id\":\"x\""), "{answered}");
    let (answered, asked) = ask(&post("/v1/devices", r#"{"disk": {"tag": "/a"}}"#));
    assert_eq!(asked, [""; 0]);
    assert!(answered.contains("400 Bad Request"), "{answered}");
    assert!(answered.contains("there is no tag= here"), "{answered}");
    let (answered, _) = ask(&post(
        "/v1/devices",
        r#"{"disk": {"socket": "/a", "id": "taken"}}"#,
    ));
    assert!(answered.contains("409 Conflict"), "{answered}");
    assert!(
        answered.contains("{\"error\":\"there is a device taken already\"}"),
        "{answered}"
    );
}

#[test]
fn a_snapshot_is_ordered_as_described() {
    for (body, live, stay_paused, status) in [
        (r#"{"folder": "/a"}"#, false, false, "204"),
        (r#"{"folder": "/a", "live": true}"#, true, false, "200"),
        (
            r#"{"folder": "/a", "live": true, "stay-paused": true}"#,
            true,
            true,
            "200",
        ),
    ] {
        let (answered, asked) = ask(&post("/v1/snapshot", body));
        assert!(
            answered.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answered}"
        );
        let order = format!(
            r#"Snapshot(SnapshotOrder {{ folder: "/a", live: {live}, stay_paused: {stay_paused} }})"#
        );
        assert_eq!(asked, [order]);
    }
    for body in [
        "{}",
        r#"{"folder": "/a", "live": 1}"#,
        r#"{"folder": "/a", "dead": true}"#,
    ] {
        let (answered, asked) = ask(&post("/v1/snapshot", body));
        assert!(answered.starts_with("HTTP/1.1 400 "), "{answered}");
        assert!(asked.is_empty(), "{asked:?}");
    }
}

#[test]
fn a_balloon_is_blown_up() {
    let put = |body: &str| ask(&post("/v1/memory", body).replacen("POST", "PUT", 1));
    for (body, order) in [
        (r#"{"balloon": "64M"}"#, "Balloon(ByteSize(67108864))"),
        (r#"{"balloon": 4096}"#, "Balloon(ByteSize(4096))"),
    ] {
        let (answered, asked) = put(body);
        assert_eq!(asked, [order]);
        assert!(answered.contains(" 202 "), "{answered}");
    }
    let (answered, asked) = put(r#"{"balloon": "x"}"#);
    assert!(answered.contains(" 400 ") && asked.is_empty(), "{answered}");
}

#[test]
fn what_there_is_not_is_told() {
    for (text, status, asked) in [
        ("GET /v1/nothing HTTP/1.1\r\n\r\n", "404 Not Found", 0),
        ("GET /v1/devices/ HTTP/1.1\r\n\r\n", "404 Not Found", 0),
        (
            "DELETE /v1/devices/a/b HTTP/1.1\r\n\r\n",
            "404 Not Found",
            0,
        ),
        (
            "DELETE /v1/devices/none HTTP/1.1\r\n\r\n",
            "404 Not Found",
            1,
        ),
        (
            "GET /v1/pause HTTP/1.1\r\n\r\n",
            "405 Method Not Allowed\r\n",
            0,
        ),
        ("nonsense\r\n\r\n", "400 Bad Request", 0),
        (
            "POST /v1/pause HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
            "400 Bad Request",
            0,
        ),
        (
            "POST /v1/pause HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "400",
            0,
        ),
        (
            "POST /v1/pause HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
            "413 Content Too Large",
            0,
        ),
        (
            "POST /v1/pause HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "501",
            0,
        ),
    ] {
        let (answered, orders) = ask(text);
        assert!(answered.contains(status), "{text}: {answered}");
        assert_eq!(orders.len(), asked, "{text}");
    }
    let (answered, _) = ask("PUT /v1/devices HTTP/1.1\r\n\r\n");
    assert!(answered.contains("\r\nAllow: GET, POST\r\n"), "{answered}");
    let many = format!("GET /v1/info HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(2000));
    assert!(ask(&many).0.contains("431 "));
    assert!(ask(&"x".repeat(9000)).0.contains("431 "));
}

#[test]
fn a_connection_ends_when_the_client_says_so_or_is_not_understood() {
    let over = |text: &str| converse(&[text.as_bytes()], &Memo::default()).1;
    assert!(!over("GET /v1/info HTTP/1.1\r\n\r\n"));
    assert!(over("GET /v1/info HTTP/1.0\r\n\r\n"));
    assert!(over(
        "GET /v1/info HTTP/1.1\r\nConnection: x, Close\r\n\r\n"
    ));
    assert!(over("nonsense\r\n\r\n"));
}

#[test]
fn a_client_that_waits_to_send_its_body_is_told_to() {
    let head = "POST /v1/devices HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let memo = Memo::default();
    let (answered, _) = converse(&[head.as_bytes(), b"nu", b"ll"], &memo);
    let rest = answered.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(
        rest.is_some_and(|rest| rest.starts_with("HTTP/1.1 400 ")),
        "{answered}"
    );
}

#[test]
fn a_socket_is_served_and_removed() {
    use std::os::unix::fs::MetadataExt;
    static MEMO: Memo = Memo(Mutex::new(Vec::new()));
    let scratch = lab::scratch::Scratch::new("api").unwrap();
    let path = scratch.join("api");
    let api = Api::serve(&path, &MEMO).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    // More clients than there is room for, some of whom say nothing, or too little.
    let silent: Vec<_> = (0..MOST_CLIENTS / 2)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    (&silent[0]).write_all(b"GET /v1/info HT").unwrap();
    for _ in 0..3 {
        let mut stream = UnixStream::connect(&path).unwrap();
        for _ in 0..3 {
            stream.write_all(b"GET /v1/info HTTP/1.1\r\n\r\n").unwrap();
            let mut answered = [0; 256];
            let count = stream.read(&mut answered).unwrap();
            let text = str::from_utf8(&answered[..count]).unwrap();
            assert!(text.contains("\"state\":\"running\""), "{text}");
        }
    }
    drop(api);
    assert!(!path.exists());
}

proptest! {
    /// However requests are cut into parts, the same is answered, and the same is ordered.
    #[test]
    fn parts_make_no_difference(
        requests in proptest::collection::vec(0_usize..6, 0..5),
        cuts in proptest::collection::vec(1_usize..40, 0..20),
    ) {
        let requests: Vec<String> = requests.iter().map(|kind| match kind {
            0 => "GET /v1/info HTTP/1.1\r\n\r\n".into(),
            1 => post("/v1/devices", r#"{"disk": {"socket": "/a", "id": "x"}}"#),
            2 => post("/v1/pause", ""),
            3 => "DELETE /v1/devices/none HTTP/1.1\r\n\r\n".into(),
            4 => "GET /v1/info HTTP/1.0\r\n\r\n".into(),
            _ => "GET  HTTP\r\n\r\n".into(),
        }).collect();
        let all = requests.concat();
        let whole = Memo::default();
        let expected = converse(&[all.as_bytes()], &whole);
        let mut rest = all.as_bytes();
        let mut parts = Vec::new();
        for cut in cuts {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            parts.push(part);
            rest = after;
        }
        parts.push(rest);
        let memo = Memo::default();
        prop_assert_eq!(converse(&parts, &memo), expected);
        prop_assert_eq!(memo.asked(), whole.asked());
    }

    #[test]
    fn any_bytes_are_answered(chunks: Vec<Vec<u8>>) {
        let memo = Memo::default();
        let mut exchange = Exchange::default();
        for chunk in chunks {
            let room = exchange.room();
            exchange.feed(&chunk[..chunk.len().min(room)], &&memo);
            let waiting = exchange.outgoing().len();
            exchange.sent(waiting);
        }
    }
}
