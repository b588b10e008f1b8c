use super::*;
use crate::device::TAG_LEN;
use rustix::thread::CapabilitySet;
use vhost_daemon::sandbox::Mode;
use vhost_daemon::sandbox::seccomp::Action;

fn validate(extra: &[&str]) -> Result<DaemonConfig, ConfigError> {
    let line = ["virtiofsd", "--socket-path", "/s"].iter().chain(extra);
    Options::try_parse_from(line).unwrap().validate()
}

fn shared(extra: &[&str]) -> Result<DaemonConfig, ConfigError> {
    validate(&[&["--shared-dir", "/d"], extra].concat())
}

#[test]
fn defaults_are_those_people_know() {
    let config = shared(&[]).unwrap();
    assert_eq!(config.passthrough.cache, CachePolicy::Auto);
    assert!(config.passthrough.xattr && !config.passthrough.writeback);
    assert_eq!(config.queues, 1);
    assert_eq!(config.passthrough.max_nodes, Some(16 << 20));
    assert_eq!(config.sandbox.mode, Mode::Namespace);
    assert_eq!(config.sandbox.seccomp, Action::Kill);
    assert!(
        !config
            .sandbox
            .capabilities
            .contains(CapabilitySet::SYS_ADMIN)
    );
}

#[test]
fn no_limit_of_nodes_is_zero() {
    let nodes = |extra: &str| shared(&[extra]).unwrap().passthrough.max_nodes;
    assert_eq!(nodes("--max-nodes=7"), Some(7));
    assert_eq!(nodes("--max-nodes=0"), None);
}

/// Every option of the issue that is served so far, as people write it.
#[test]
fn the_names_that_people_know_are_taken() {
    let config = validate(&[
        "--shared-dir=/d",
        "--tag=t",
        "--cache=metadata",
        "--allow-direct-io",
        "--allow-mmap",
        "--xattr",
        "--xattrmap=:map::user.virtiofs.:",
        "--killpriv-v2",
        "--inode-file-handles=mandatory",
        "--sandbox=chroot",
        "--seccomp=trap",
        "--modcaps=-mknod:+sys_admin",
        "--rlimit-nofile=4096",
        "--readonly",
        "--thread-pool-size=64",
        "--no-readdirplus",
        "--security-label",
        "--announce-submounts",
        "--posix-lock",
        "--flock",
        "--preserve-noatime",
        "--syslog",
        "--log-level=off",
        "--translate-uid=map:0:1000:1",
        "--translate-gid=squash-guest:0:100:4294967295",
    ])
    .unwrap();
    assert_eq!(config.sandbox.mode, Mode::Chroot);
    assert_eq!(config.sandbox.seccomp, Action::Trap);
    assert!(
        config
            .sandbox
            .capabilities
            .contains(CapabilitySet::SYS_ADMIN)
    );
    assert!(!config.sandbox.capabilities.contains(CapabilitySet::MKNOD));
    assert_eq!(config.open_files, Some(4096));
    let served = config.passthrough;
    assert!(served.allow_mmap && served.direct_io && served.read_only);
    assert!(served.security_label && served.announce_submounts);
    assert!(served.posix_lock && served.flock);
    assert_eq!(served.file_handles, FileHandles::Mandatory);
    assert_eq!(served.users.to_host(0).unwrap(), 1000);
    assert_eq!(served.groups.to_host(7).unwrap(), 100);
}

/// libvirt's and Kata's way of old.
#[test]
fn the_c_daemons_options_are_taken() {
    let config = validate(&[
        "-o",
        "source=/d,cache=none,no_xattr,writeback,no_readdirplus",
        "-o",
        "sandbox=chroot,modcaps=+sys_admin,no_posix_lock",
        "-d",
        "-f",
    ])
    .unwrap();
    let served = config.passthrough;
    assert_eq!(served.shared_directory, PathBuf::from("/d"));
    assert_eq!(served.cache, CachePolicy::Never);
    assert!(!served.xattr && served.writeback && !served.readdirplus);
    assert_eq!(config.sandbox.mode, Mode::Chroot);
    for wrong in ["fly", "cache=some", "loglevel=loud", "xattrmap=:x:"] {
        let refused = shared(&["-o", wrong]);
        assert!(matches!(refused, Err(ConfigError::Compat(_))), "{wrong}");
    }
}

#[test]
fn the_last_of_xattr_and_no_xattr_wins() {
    let off = shared(&["--xattr", "--no-xattr"]).unwrap();
    assert!(!off.passthrough.xattr);
    let on = shared(&["--no-xattr", "--xattr"]).unwrap();
    assert!(on.passthrough.xattr);
}

#[test]
fn handles_need_their_capability_unless_there_are_none() {
    let has = |config: DaemonConfig| {
        let read_search = CapabilitySet::DAC_READ_SEARCH;
        config.sandbox.capabilities.contains(read_search)
    };
    assert!(has(shared(&[]).unwrap()));
    assert!(!has(shared(&["--inode-file-handles", "never"]).unwrap()));
}

#[test]
fn what_cannot_be_served_is_refused() {
    assert!(matches!(validate(&[]), Err(ConfigError::NoSharedDirectory)));
    let long = "t".repeat(TAG_LEN + 1);
    for extra in [["--tag", &long], ["--tag", ""]] {
        assert!(matches!(shared(&extra), Err(ConfigError::BadTag { .. })));
    }
    for queues in ["0", "64"] {
        let refused = shared(&["--queues", queues]);
        assert!(matches!(refused, Err(ConfigError::BadQueues { .. })));
    }
    assert!(matches!(
        shared(&["--allow-mmap"]),
        Err(ConfigError::AllowMmap)
    ));
    let twice = ["--translate-uid=map:0:10:5", "--translate-uid=guest:4:7:1"];
    assert!(matches!(shared(&twice), Err(ConfigError::Overlap { .. })));
    assert!(matches!(
        shared(&["--socket-group", "no-such-group"]),
        Err(ConfigError::NoGroup(_))
    ));
    for other in [
        "--translate-uid=map:0:1000:1",
        "--translate-gid=map:0:1000:1",
        "--xattrmap=:map::user.virtiofs.:",
        "--xattrmap=:bad:client:system.:system.::ok:all:::",
    ] {
        let refused = shared(&["--posix-acl", other]);
        assert!(matches!(refused, Err(ConfigError::PosixAcl)), "{other}");
    }
    shared(&["--posix-acl", "--xattrmap=:ok:all:::"]).unwrap();
    assert!(matches!(
        shared(&["--modcaps=+fly"]),
        Err(ConfigError::Capabilities(_))
    ));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100))]
    /// What stands behind `-o`, and rules for ids, are taken or refused.
    #[test]
    fn no_text_breaks_the_options(
        text in "\\PC{0,40}|((cache|source|xattrmap|sandbox|modcaps|xattr|flock|loglevel)=?(none|:|map)?,?){0,6}",
        rule in "(map|guest|host|squash-guest|forbid-guest)?[:/][0-9:/]{0,30}",
    ) {
        let line = ["virtiofsd", "--socket-path=/s", "--shared-dir=/d", "-o", &text];
        let _ = Options::try_parse_from(line).map(Options::validate);
        let _ = Options::try_parse_from(["virtiofsd", "--socket-path=/s", "--translate-uid", &rule]);
    }
}
