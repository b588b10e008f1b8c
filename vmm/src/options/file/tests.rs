use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::options::Options;

fn message(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn an_unknown_word_is_refused_by_name_with_its_line() {
    let toml = message("cpus = 2\n\ncolour = \"red\"\n");
    assert!(toml.starts_with("line 3: unknown field `colour`"), "{toml}");
    let json = message("{\n\"cpus\": 2,\n\"colour\": 1}");
    assert!(json.starts_with("line 3: unknown field `colour`"), "{json}");
    let toml = message("[[disk]]\nsocket = \"/a\"\nid = \"b\"\ntag = \"c\"\n");
    let expected = "line 4: there is no tag= here, only socket, id, queue-size, queues";
    assert_eq!(toml, expected);
    let json = message("{\"disk\": [\n{\"socket\": \"/a\",\n\"id\": \"b\",\n\"tag\": \"c\"}]}");
    assert_eq!(json, expected);
}

#[test]
fn a_mistake_is_told_where_it_is() {
    let queues = message("kernel = \"k\"\n[[net]]\nsocket = \"/a\"\nqueues = 0\n");
    assert_eq!(queues, "line 4: queues= wants 1 to 64");
    let size = message("kernel = \"k\"\nmemory = \"4X\"\n");
    assert!(size.starts_with("line 2: a size is a number"), "{size}");
    let missing = message("{\"vsock\": {\"cid\": 3}}");
    assert_eq!(missing, "line 1: socket=PATH is missing");
    assert!(message("cpus = 300").starts_with("line 1: "));
    assert!(message("cpus = 1\ncpus = 2").starts_with("line 2: "));
    assert!(message("{\"cpus\": 1, \"cpus\": 2}").contains("duplicate field `cpus`"));
    assert_eq!(parse(b"\xff"), Err(TextError::Encoding));
    assert_eq!(parse(&[b' '; LONGEST + 1]), Err(TextError::Long(LONGEST)));
}

#[test]
fn a_device_is_told_by_its_kind() {
    let device = parse_device(br#"{"fs": {"socket": "/f", "tag": "t", "queues": 2}}"#).unwrap();
    assert_eq!(device.label(), "--fs socket=/f");
    assert_eq!(device.front_end.queues, 2);
    let message = |json: &str| parse_device(json.as_bytes()).unwrap_err().to_string();
    for (json, expected) in [
        ("{}", "neither disk, net, fs nor vsock"),
        ("{\"rng\": {}}", "neither disk, net, fs nor vsock"),
        (
            "{\"disk\": {\"socket\": \"a\"}, \"net\": 1}",
            "more than one device",
        ),
        ("{\"net\": {\"tag\": \"a\"}}", "there is no tag= here"),
        ("[]", "expected one device"),
    ] {
        assert!(
            message(json).contains(expected),
            "{json}: {}",
            message(json)
        );
    }
}

/// A word with its value as TOML and JSON write it.
type Said = (&'static str, String);

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn plain() -> impl Strategy<Value = String> {
    "[a-z/][a-z0-9/._-]{0,20}"
}

/// A device: as a flag's value, and as properties.
fn device(own: &'static [(&'static str, &'static str)]) -> impl Strategy<Value = Vec<Said>> {
    let one = |(name, value): &(&'static str, &'static str)| {
        proptest::option::of(Just((*name, (*value).to_owned())))
    };
    let own: Vec<_> = own.iter().map(one).collect();
    (plain(), own).prop_map(|(socket, own)| {
        let socket = ("socket", quoted(&socket));
        [socket]
            .into_iter()
            .chain(own.into_iter().flatten())
            .collect()
    })
}

fn as_flag(device: &[Said]) -> String {
    let pair = |(name, value): &Said| format!("{name}={}", value.trim_matches('"'));
    device.iter().map(pair).collect::<Vec<_>>().join(",")
}

fn as_toml(device: &[Said]) -> String {
    let pair = |(name, value): &Said| format!("{name} = {value}");
    let pairs: Vec<_> = device.iter().map(pair).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn as_json(device: &[Said]) -> String {
    let pair = |(name, value): &Said| format!("\"{name}\": {value}");
    let pairs: Vec<_> = device.iter().map(pair).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn scalars() -> impl Strategy<Value = Vec<Said>> {
    let text = |name: &'static str| {
        proptest::option::of(plain().prop_map(move |text| (name, quoted(&text))))
    };
    let word = |name: &'static str| {
        proptest::option::of(any::<bool>().prop_map(move |value| (name, value.to_string())))
    };
    let cpus = proptest::option::of(any::<u8>().prop_map(|value| ("cpus", value.to_string())));
    let memory = proptest::option::of(any::<u32>().prop_map(|value| ("memory", value.to_string())));
    let texts = [
        "kernel",
        "initramfs",
        "cmdline",
        "serial",
        "api-socket",
        "log-level",
    ]
    .map(text);
    let words = ["hugepages", "prefault", "rng", "no-reboot", "no-probe"].map(word);
    (Vec::from(texts), Vec::from(words), cpus, memory).prop_map(|(texts, words, cpus, memory)| {
        let all = [texts, words, vec![cpus, memory]].concat();
        all.into_iter().flatten().collect()
    })
}

proptest! {
    /// Flags, TOML, JSON, and what is written of any of them, say the same.
    #[test]
    fn every_way_to_say_it_means_the_same(
        scalars in scalars(),
        disks in proptest::collection::vec(device(&[("queues", "3"), ("queue-size", "64")]), 0..3),
        nets in proptest::collection::vec(device(&[("mac", "\"02:00:00:00:00:09\"")]), 0..3),
        vsock in proptest::option::of(device(&[("cid", "77"), ("id", "\"v\"")])),
    ) {
        let flag = |(name, value): &Said| format!("--{name}={}", value.trim_matches('"'));
        let mut flags: Vec<String> = scalars.iter().map(flag).collect();
        flags.extend(disks.iter().map(|disk| format!("--disk={}", as_flag(disk))));
        flags.extend(nets.iter().map(|net| format!("--net={}", as_flag(net))));
        flags.extend(vsock.iter().map(|vsock| format!("--vsock={}", as_flag(vsock))));
        let words = [vec!["ringside-vmm".to_owned()], flags].concat();
        let typed = Options::try_parse_from(words).unwrap().description(None).unwrap();

        let list = |devices: &[Vec<Said>], write: fn(&[Said]) -> String| {
            let each: Vec<_> = devices.iter().map(|device| write(device)).collect();
            format!("[{}]", each.join(", "))
        };
        let mut all = scalars.clone();
        all.push(("disk", list(&disks, as_toml)));
        all.push(("net", list(&nets, as_toml)));
        all.extend(vsock.iter().map(|vsock| ("vsock", as_toml(vsock))));
        let toml: Vec<_> = all.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        prop_assert_eq!(&parse(toml.concat().as_bytes()).unwrap(), &typed);

        let mut all = scalars;
        all.push(("disk", list(&disks, as_json)));
        all.push(("net", list(&nets, as_json)));
        all.extend(vsock.iter().map(|vsock| ("vsock", as_json(vsock))));
        prop_assert_eq!(&parse(as_json(&all).as_bytes()).unwrap(), &typed);

        let written = serde_json::to_string(&typed).unwrap();
        prop_assert_eq!(&parse(written.as_bytes()).unwrap(), &typed);
    }

    #[test]
    fn any_text_is_read_or_refused(text: Vec<u8>) {
        let _ = parse(&text);
    }

    /// Text that is nearly right.
    #[test]
    fn nearly_right_text_is_read_or_refused(text in "(\\{|\\[\\[disk\\]\\]\n)?(\"?(cpus|memory|disk|socket|x)\"?( = |: )([0-9]{1,20}|\"a?\"|true|\\{|\\}|\\[|null),?\n?){0,6}\\}?") {
        let _ = parse(text.as_bytes());
    }
}
