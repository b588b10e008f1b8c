//! Files and annotations, right and wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use ringside_config::{Cache, Config, Hypervisor, KEYS, RootFs, Settings, default_file};
use tempfile::TempDir;

/// A directory with a configuration, and drop-ins.
struct Files(TempDir);

impl Files {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.toml"), text).unwrap();
        Self(folder)
    }

    fn drop_in(self, name: &str, text: &str) -> Self {
        let folder = self.0.path().join("config.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
        self
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    fn load(&self) -> Result<Settings, ringside_config::Error> {
        Settings::load_from(&self.path())
    }

    /// The error, with the directory taken out of it.
    fn refused(&self) -> String {
        let folder = format!("{}/", self.0.path().display());
        self.load().unwrap_err().to_string().replace(&folder, "")
    }
}

fn refused(text: &str) -> String {
    Files::new(text).refused()
}

#[test]
fn a_file_says_what_it_says() {
    let files = Files::new(
        r#"
hypervisor = "qemu"
rootfs = "block"
sandbox = false

[machine]
cpus = 4
memory = "1G"
max_memory = "8G"
kernel = "/boot/vmlinux"
kernel_arguments = ["quiet", "audit=0"]

[virtiofs]
cache = "always"

[timeouts]
boot = "1500ms"
stop = "2m"
"#,
    );
    let config = files.load().unwrap().into_config();
    let mut expected = Config {
        hypervisor: Hypervisor::Qemu,
        rootfs: RootFs::Block,
        sandbox: false,
        ..Config::default()
    };
    expected.machine.cpus = ringside_config::Count::new(4);
    expected.machine.memory.0 = 1 << 30;
    expected.machine.max_memory = Some("8G".parse().unwrap());
    expected.machine.kernel = Some("/boot/vmlinux".into());
    expected.machine.kernel_arguments = vec!["quiet".into(), "audit=0".into()];
    expected.virtiofs.cache = Cache::Always;
    expected.timeouts.boot = Duration::from_millis(1500);
    expected.timeouts.stop = Duration::from_secs(120);
    assert_eq!(config, expected);
}

#[test]
fn drop_ins_come_later_by_name() {
    let files = Files::new("hypervisor = \"qemu\"\n[machine]\ncpus = 2\nmemory = \"1G\"\n")
        .drop_in("20-b.toml", "[machine]\ncpus = 4\n")
        .drop_in(
            "10-a.toml",
            "# first\n[machine]\ncpus = 3\nmemory = \"2G\"\n",
        )
        .drop_in("30-note.txt", "this is no TOML");
    let settings = files.load().unwrap();
    assert_eq!(settings.config().machine.cpus.get(), 4);
    assert_eq!(settings.config().machine.memory.to_string(), "2G");
    let folder = format!("{}/", files.0.path().display());
    let origin = |name: &str| {
        let (_, origin) = settings
            .origins()
            .find(|(key, _)| key.name == name)
            .unwrap();
        origin.to_string().replace(&folder, "")
    };
    assert_eq!(origin("hypervisor"), "config.toml:1");
    assert_eq!(origin("machine.cpus"), "config.d/20-b.toml:2");
    assert_eq!(origin("machine.memory"), "config.d/10-a.toml:4");
    assert_eq!(origin("sandbox"), "default");
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    for (text, expected) in [
        (
            "\n[machine]\nmemroy = \"1G\"\n",
            "config.toml:3: there is no key 'machine.memroy': did you mean 'machine.memory'?",
        ),
        (
            "cpus = 2\n",
            "config.toml:1: there is no key 'cpus': did you mean 'machine.cpus'?",
        ),
        (
            "[colours]\nred = 1\n",
            "config.toml:1: there is no table 'colours'",
        ),
        (
            "[machin]\n",
            "config.toml:1: there is no table 'machin': did you mean [machine]?",
        ),
        (
            "machine = 4",
            "config.toml:1: there is no key 'machine': it is a table, written [machine]",
        ),
        (
            "[machine]\ncpus = 0",
            "config.toml:2: machine.cpus must be a whole number from 1 to 64",
        ),
        (
            "[machine]\n\nmemory = \"4X\"",
            "config.toml:3: machine.memory a size is a number with an optional K, M, G or T, as in 512M",
        ),
        (
            "[machine]\nmemory = \"64M\"",
            "config.toml:2: machine.memory is 64M: must be whole MiB, at least 128M",
        ),
        (
            "[machine]\nmemory = \"4G\"\nmax_memory = \"2G\"",
            "config.toml:2: machine.memory is 4G: more than machine.max_memory, 2G",
        ),
        (
            "hypervisor = \"xen\"",
            "config.toml:1: hypervisor must be one of \"auto\", \"vmm\", \"qemu\"",
        ),
        (
            "sandbox = \"no\"",
            "config.toml:1: sandbox must be true or false",
        ),
        (
            "[programs]\nvmm = \"ringside-vmm\"",
            "config.toml:2: programs.vmm must be an absolute path",
        ),
        (
            "[timeouts]\nboot = 30",
            "config.toml:2: timeouts.boot must be a time from 1 ms to 24 h, as \"500ms\", \"30s\" or \"2m\"",
        ),
        (
            "[block]\noptions = [1]",
            "config.toml:2: block.options must be a list of texts, as [\"a\", \"b\"]",
        ),
        (
            "[machine]\ninitramfs = \"/i\"",
            "config.toml:2: machine.initramfs needs machine.kernel",
        ),
    ] {
        assert_eq!(refused(text), expected, "{text}");
    }
    let syntax = refused("sandbox = true\nsandbox = false\n");
    assert!(
        syntax.starts_with("config.toml:2: duplicate key"),
        "{syntax}"
    );
    let syntax = refused("sandbox = true\n\n=\n");
    assert!(syntax.starts_with("config.toml:3: "), "{syntax}");
    let overrides = refused("pod_overrides = [\"machine.cpus\", \"log.level\"]");
    assert!(
        overrides
            .starts_with("config.toml:1: pod_overrides names 'log.level': it can name hypervisor"),
        "{overrides}"
    );
}

#[test]
fn a_mistake_in_a_drop_in_is_told_there() {
    let files = Files::new("").drop_in("90-local.toml", "[log]\n\nlevle = \"debug\"\n");
    assert_eq!(
        files.refused(),
        "config.d/90-local.toml:3: there is no key 'log.levle': did you mean 'log.level'?"
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let files = Files::new(&" ".repeat((1 << 20) + 1));
    assert!(files.refused().contains("config.toml is longer"));
    let missing = Settings::load_from("/no/such/config.toml".as_ref()).unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /no/such/config.toml");
}

#[test]
fn a_pod_changes_what_it_may() {
    let host = Files::new("[machine]\nmax_memory = \"2G\"\n")
        .load()
        .unwrap();
    let pod = host
        .with_annotations([
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.ringside.machine.cpus", "3"),
            ("io.ringside.machine.memory", "1G"),
            ("io.ringside.virtiofs.writeback", "true"),
            ("io.ringside.hypervisor", "qemu"),
        ])
        .unwrap();
    assert_eq!(pod.config().machine.cpus.get(), 3);
    assert!(pod.config().virtiofs.writeback);
    assert_eq!(pod.config().hypervisor, Hypervisor::Qemu);
    let origins: Vec<_> = pod
        .origins()
        .map(|(_, origin)| origin.to_string())
        .collect();
    assert!(origins.contains(&"annotation io.ringside.machine.cpus".to_owned()));
    assert_eq!(
        host.config().machine.cpus.get(),
        1,
        "the host's is not changed"
    );
}

#[test]
fn a_pod_does_not_change_what_it_may_not() {
    let host = Files::new("pod_overrides = [\"machine.memory\"]\n[machine]\nmax_memory = \"2G\"\n");
    let host = host.load().unwrap();
    let refused = |name: &str, text: &str| {
        host.with_annotations([(name, text)])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("io.ringside.programs.vmm", "/tmp/mine"),
        "annotation io.ringside.programs.vmm: a pod may not change programs.vmm: only the host's \
         configuration can"
    );
    assert_eq!(
        refused("io.ringside.machine.cpus", "2"),
        "annotation io.ringside.machine.cpus: a pod may not change machine.cpus: pod_overrides of the \
         host's configuration does not name it"
    );
    assert_eq!(
        refused("io.ringside.machine.memroy", "2G"),
        "annotation io.ringside.machine.memroy: there is no key 'machine.memroy': did you mean \
         'machine.memory'?"
    );
    assert_eq!(
        refused("io.ringside.machine.memory", "3G"),
        "annotation io.ringside.machine.memory: machine.memory is 3G: more than machine.max_memory, 2G"
    );
    let wrong = refused("io.ringside.machine.memory", "much");
    assert!(
        wrong.contains("machine.memory a size is a number"),
        "{wrong}"
    );
}

#[test]
fn the_default_file_says_the_defaults() {
    let text = default_file();
    let said = Files::new(&text).load().unwrap();
    assert!(
        said.origins()
            .all(|(_, origin)| origin.to_string() == "default")
    );
    // Without the marks of comments before keys that have a value.
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') && !rest.ends_with("= ") => rest,
        _ => line,
    });
    let spoken: Vec<_> = lines.collect();
    let spoken = Files::new(&spoken.join("\n")).load().unwrap();
    assert_eq!(spoken.config(), &Config::default());
    let told = spoken
        .origins()
        .filter(|(_, origin)| origin.to_string() != "default");
    let with_value = KEYS
        .iter()
        .filter(|key| key.value(&Config::default()).is_some());
    assert_eq!(told.count(), with_value.count());
}

#[test]
fn nothing_that_reaches_into_the_host_is_a_pods() {
    for key in KEYS.iter().filter(|key| key.overridable) {
        let reaches = ["programs.", "log.", "options", "kernel", "sandbox"];
        assert!(
            !reaches.iter().any(|part| key.name.contains(part)),
            "{key:?}"
        );
        assert!(!key.takes().contains("path"), "{key:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = Files::new(&text).load();
    }

    #[test]
    fn what_is_shown_reads_back(
        cpus in 1_u16..=64,
        mib in 128_u64..100_000,
        word in "[^\\x00]{1,20}",
        boot in 1_u64..1_000_000,
    ) {
        let quoted = word.replace('\\', "\\\\").replace('"', "\\\"");
        let quoted: String = quoted
            .chars()
            .map(|c| if c.is_control() { format!("\\u{:04X}", u32::from(c)) } else { c.to_string() })
            .collect();
        let text = format!(
            "[machine]\ncpus = {cpus}\nmemory = \"{mib}M\"\nkernel_arguments = [\"{quoted}\"]\n\
             [timeouts]\nboot = \"{boot}ms\"\n"
        );
        let settings = Files::new(&text).load().unwrap();
        prop_assert_eq!(&settings.config().machine.kernel_arguments[0], &word);
        let mut shown = String::new();
        for (key, _) in settings.origins() {
            if let (Some(table), name) = key.parts()
                && let Some(value) = key.value(settings.config())
            {
                shown.push_str(&format!("{table}.{name} = {value}\n"));
            }
        }
        let again = Files::new(&shown).load().unwrap();
        prop_assert_eq!(again.config(), settings.config());
    }
}
