//! `make install` into a scratch directory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the test"
)]

mod bill;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const STATIC: [&str; 1] = ["ringside-agent"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A build of nothing: each program says its name. Only the manuals are real.
struct Bench {
    folder: TempDir,
    programs: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let build = folder.path().join("build");
        fs::create_dir(&build).unwrap();
        let programs = programs();
        for name in programs.iter().map(String::as_str).chain(STATIC) {
            let path = build.join(name);
            fs::write(&path, format!("#!/bin/sh\necho {name}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let manuals = env!("CARGO_BIN_EXE_ringside-manuals");
        symlink(manuals, build.join("ringside-manuals")).unwrap();
        Self { folder, programs }
    }

    fn destination(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn make(&self, target: &str) -> Output {
        let build = self.folder.path().join("build");
        let mut make = Command::new("make");
        make.current_dir(top())
            .args([target, "PREFIX=/usr"])
            .arg(format!("BUILD={}", build.display()))
            .arg(format!("BUILD_STATIC={}", build.display()))
            .arg(format!("DESTDIR={}", self.destination().display()));
        make.output()
            .expect("make is not installed: apt-get install make")
    }

    fn done(&self, target: &str) {
        let output = self.make(target);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// All files with their modes, below the destination.
    fn files(&self) -> BTreeSet<(String, u32)> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.destination()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let about = path.symlink_metadata().unwrap();
                if about.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.destination()).unwrap();
                    let mode = about.permissions().mode() & 0o7777;
                    found.insert((name.to_str().unwrap().to_owned(), mode));
                }
            }
        }
        found
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.destination().join(path)).unwrap()
    }
}

/// What the Makefile installs.
fn programs() -> Vec<String> {
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    let line = makefile
        .lines()
        .find_map(|line| line.strip_prefix("PROGRAMS := "));
    let names = line.expect("the Makefile lists PROGRAMS").split(' ');
    names.map(str::to_owned).collect()
}

#[test]
fn everything_goes_to_its_place() {
    let bench = Bench::new();
    bench.done("install");
    let files = bench.files();
    let has = |path: &str, mode: u32| files.contains(&(path.to_owned(), mode));
    for name in bench.programs.iter().map(String::as_str).chain(STATIC) {
        assert!(
            has(&format!("usr/bin/{name}"), 0o755),
            "{name} of {files:?}"
        );
        assert_eq!(
            bench.read(&format!("usr/bin/{name}")),
            format!("#!/bin/sh\necho {name}\n")
        );
    }
    for program in ringside_deploy::programs() {
        let name = program.name;
        assert!(
            bench.programs.iter().any(|known| known == name),
            "{name} is not installed"
        );
        for path in [
            format!("usr/share/man/man1/{name}.1"),
            format!("usr/share/bash-completion/completions/{name}"),
            format!("usr/share/zsh/site-functions/_{name}"),
            format!("usr/share/fish/vendor_completions.d/{name}.fish"),
        ] {
            assert!(bench.read(&path).contains(name), "{path}");
        }
    }
    for (kind, binary) in [
        ("virtiofsd", "virtiofsd"),
        ("blk", "vhost-user-blk"),
        ("net", "vhost-user-net"),
        ("vsock", "vhost-user-vsock"),
    ] {
        let text = bench.read(&format!(
            "usr/share/qemu/vhost-user/50-ringside-{kind}.json"
        ));
        let description: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(description["binary"], format!("/usr/bin/{binary}"));
    }
    let mut settings =
        ringside_config::Settings::load_from(&bench.destination().join("etc/ringside/config.toml"))
            .unwrap();
    assert_eq!(settings.config(), &ringside_config::Config::default());
    settings = settings.with_annotations([]).unwrap();
    assert!(settings.config().sandbox);
    assert!(
        files
            .iter()
            .all(|(path, _)| path.starts_with("usr/") || path == "etc/ringside/config.toml")
    );
}

#[test]
fn a_configuration_of_the_users_stays() {
    let bench = Bench::new();
    bench.done("install");
    let path = bench.destination().join("etc/ringside/config.toml");
    fs::write(&path, "sandbox = false\n").unwrap();
    bench.done("install");
    assert_eq!(fs::read_to_string(&path).unwrap(), "sandbox = false\n");
    bench.done("uninstall");
    let left: Vec<_> = bench.files().into_iter().map(|(path, _)| path).collect();
    assert_eq!(left, ["etc/ringside/config.toml"]);
}

#[test]
fn nothing_built_is_told() {
    let bench = Bench::new();
    fs::remove_file(bench.folder.path().join("build/virtiofsd")).unwrap();
    let output = bench.make("install");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("build/virtiofsd is missing: run 'make release' first"),
        "{said}"
    );
    assert!(!bench.destination().exists());
}

/// What the shells themselves say of the scripts.
#[test]
fn completions_are_scripts() {
    let bench = Bench::new();
    bench.done("install");
    let check = |shell: &str, path: String| {
        let script = bench.destination().join("usr/share").join(path);
        let output = Command::new(shell).arg("-n").arg(script).output();
        let output = output.unwrap_or_else(|error| panic!("{shell}: {error}"));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    for program in ringside_deploy::programs() {
        check(
            "bash",
            format!("bash-completion/completions/{}", program.name),
        );
    }
}

/// containerd reads the snippet: its types are those of containerd's own example.
#[test]
fn the_snippet_names_the_shim() {
    let bench = Bench::new();
    bench.done("install");
    let snippet: toml::Table =
        toml::from_str(&bench.read("usr/share/ringside/containerd.toml")).unwrap();
    let runtime =
        &snippet["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["ringside"];
    // containerd makes the shim's file name of it: containerd-shim-ringside-v2.
    assert_eq!(
        runtime["runtime_type"].as_str(),
        Some("io.containerd.ringside.v2")
    );
    let prefix = format!("{}*", ringside_config::ANNOTATION_PREFIX);
    assert_eq!(
        runtime["pod_annotations"][0].as_str(),
        Some(prefix.as_str())
    );
}
