//! The demo's root file system: nginx and fio from Debian, a page, and a script that obeys us.

use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guest_image::Cache;

use crate::packages;

const PACKAGES: [&str; 10] = [
    "base-files",
    "busybox-static",
    "coreutils",
    "dash",
    "e2fsprogs",
    "findutils",
    "fio",
    "libc-bin",
    "mount",
    "nginx-light",
];

/// What the demo's guest obeys.
const SCRIPT_TEXT: &str = include_str!("guest.sh");

/// The page nginx serves.
pub(crate) const PAGE: &str = "<h1>Served by a Ringside guest</h1>\n";

/// The script that runs in the guest.
pub(crate) const SCRIPT: &str = "/usr/local/bin/ringside-demo-guest";

/// Assembles the tree once into the cache, and returns its path and how many packages it holds.
pub(crate) fn assemble(cache: &Cache) -> Result<(PathBuf, String)> {
    let name = format!("demo-rootfs-{:016x}", recipe_hash());
    let target = cache.path(&name);
    if target.is_dir() {
        return Ok((target, "taken from the cache".to_owned()));
    }
    let downloads = cache.path("demo-packages");
    let archives = packages::download(&PACKAGES, &downloads)?;
    let draft = cache.path(format!("{name}.new"));
    if draft.exists() {
        fs::remove_dir_all(&draft).context("cannot remove an unfinished tree")?;
    }
    fs::create_dir_all(&draft).with_context(|| format!("cannot make {}", draft.display()))?;
    merge_usr(&draft)?;
    for archive in &archives {
        packages::unpack(archive, &draft)?;
    }
    configure(&draft).context("cannot configure the tree")?;
    fs::rename(&draft, &target).context("cannot move the finished tree into place")?;
    fs::remove_dir_all(&downloads).context("cannot remove the downloaded packages")?;
    Ok((target, format!("{} Debian packages", archives.len())))
}

/// Changes with everything that is assembled, so that no old tree is used.
fn recipe_hash() -> u64 {
    let mut hasher = DefaultHasher::new();
    (PACKAGES, PAGE, SCRIPT_TEXT, PASSWD, GROUP, NGINX).hash(&mut hasher);
    hasher.finish()
}

/// `/bin` and the like are links into `/usr`, as on every Debian 12.
fn merge_usr(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let target = Path::new("usr").join(name);
        fs::create_dir_all(root.join(&target)).context("cannot make /usr")?;
        symlink(&target, root.join(name)).with_context(|| format!("cannot link /{name}"))?;
    }
    Ok(())
}

/// What the packages' install scripts would have done, as far as nginx and fio need it.
fn configure(root: &Path) -> Result<()> {
    let write = |path: &str, content: &str| -> Result<()> {
        let path = root.join(path.trim_start_matches('/'));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write("/etc/passwd", PASSWD)?;
    write("/etc/group", GROUP)?;
    write("/etc/nginx/nginx.conf", NGINX)?;
    write("/srv/www/index.html", PAGE)?;
    write(SCRIPT, SCRIPT_TEXT)?;
    let script = root.join(SCRIPT.trim_start_matches('/'));
    fs::set_permissions(script, Permissions::from_mode(0o755))?;
    for folder in [
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "root",
        "mnt",
        "var/log/nginx",
        "var/lib/nginx",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    if !root.join("usr/bin/sh").exists() {
        symlink("dash", root.join("usr/bin/sh"))?;
    }
    Ok(())
}

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

const NGINX: &str = "\
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
    access_log off;
    server { listen 80; root /srv/www; }
}
";
