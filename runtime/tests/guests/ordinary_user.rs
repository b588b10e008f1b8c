//! `ringside run` by a user who is nobody in particular.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use guest_image::{Cache, Kernel};

use crate::support::{Bench, text};

/// Debian's nobody: no ids are lent to it, it has no home and owns nothing.
const NOBODY: u32 = 65_534;

/// What virtiofsd says where the kernel lets no ordinary user have a user namespace.
const NO_USER_NAMESPACE: &str = "a user namespace cannot be made: allow it";

/// Copies of programs and a guest in a place that this user can enter.
struct Place(Bench);

impl Place {
    fn new() -> Self {
        let place = Self(Bench::new());
        let folder = place.0.root().parent().unwrap().to_owned();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.0.path("bin")).unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_ringside")).parent().unwrap();
        for name in ["ringside", "virtiofsd", "vhost-user-vsock"] {
            fs::copy(programs.join(name), place.0.path("bin").join(name)).unwrap();
        }
        let profile = programs.file_name().unwrap();
        let target = programs.parent().unwrap().join("x86_64-unknown-linux-gnu");
        let agent = target.join(profile).join("ringside-agent");
        fs::copy(agent, place.0.path("bin/ringside-agent")).unwrap();
        for name in ["root", "root/tmp", "xdg"] {
            chown(place.0.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        place.lend_kernels();
        place
    }

    /// A cache of its own, with the kernels that root has.
    fn lend_kernels(&self) {
        let (ours, roots) = (self.0.path("cache"), Cache::open_default().unwrap());
        Kernel::obtain(&roots).unwrap();
        fs::create_dir(&ours).unwrap();
        chown(&ours, Some(NOBODY), Some(NOBODY)).unwrap();
        for entry in fs::read_dir(roots.path("")).unwrap().flatten() {
            let name = entry.file_name();
            let kernel = ["linux-image-", "vmlinux-"];
            if kernel
                .iter()
                .any(|it| name.to_string_lossy().starts_with(it))
            {
                symlink(entry.path(), ours.join(name)).unwrap();
            }
        }
    }

    /// The arguments after `before`, a command that runs another one, as that user.
    fn run(&self, before: &[&str], arguments: &[&str]) -> Output {
        let id = NOBODY.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.args(before).arg(self.0.path("bin/ringside"));
        command.arg("run").arg("--rootfs").arg(self.0.root());
        command.args(arguments).current_dir("/");
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("XDG_RUNTIME_DIR", self.0.path("xdg"));
        command.env("RINGSIDE_CACHE", self.0.path("cache"));
        command.stdin(Stdio::null()).output().unwrap()
    }
}

#[test]
fn an_ordinary_user_is_root_in_the_guest_or_hears_why_not() {
    let place = Place::new();
    let script = "id -u; touch /tmp/made; stat -c %u:%g /tmp/made; exit 9";
    let output = place.run(&[], &["--", "sh", "-c", script]);
    let said = text(&output.stderr);
    if said.contains(NO_USER_NAMESPACE) {
        assert_eq!(output.status.code(), Some(125), "{said}");
        return;
    }
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert_eq!(text(&output.stdout), "0\n0:0\n", "{said}");
    let made = fs::metadata(place.0.root().join("tmp/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (NOBODY, NOBODY));
    place.0.assert_nothing_left();

    let refused = place.run(&[], &["--net", "--", "true"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(125), "{said}");
    assert!(
        said.contains("cannot make a network namespace, which needs root"),
        "{said}"
    );

    // In a namespace of users where there can be no further one, and without the rights that come with it.
    let none = "echo 0 >/proc/sys/user/max_user_namespaces; \
                exec setpriv --ambient-caps=-all --inh-caps=-all \"$@\"";
    let before = [
        "unshare",
        "--user",
        "--map-current-user",
        "--keep-caps",
        "sh",
        "-c",
        none,
        "sh",
    ];
    let refused = place.run(&before, &["--", "true"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(125), "{said}");
    assert!(said.contains(NO_USER_NAMESPACE), "{said}");
    place.0.assert_nothing_left();
}
