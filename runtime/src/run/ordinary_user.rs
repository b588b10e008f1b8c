//! Whose ids the guest of an ordinary user has: its root is that user.

use std::fs;

use rustix::process::{getegid, geteuid};

use crate::disk_image::search_path;

/// Ids of the guest that can be lent: all that files of a distribution have.
const MOST: u32 = 65_535;

/// Ids that are lent to a user (subuid(5), subgid(5)): the first, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lent {
    first: u32,
    count: u32,
}

/// Options of virtiofsd for this user's share: none for root.
pub(super) fn id_maps() -> Vec<String> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        return Vec::new();
    }
    options((uid.as_raw(), gid.as_raw()), lent_ids().ok())
}

/// Whether more ids than the user's own can be had in a guest.
///
/// # Errors
/// With a sentence that says what is missing.
pub(crate) fn further_ids() -> Result<String, String> {
    let (users, groups) = lent_ids()?;
    Ok(format!(
        "{} users and {} groups beside the user's own",
        users.count, groups.count
    ))
}

fn lent_ids() -> Result<(Lent, Lent), String> {
    let path = search_path();
    for program in ["newuidmap", "newgidmap"] {
        let mut folders = std::env::split_paths(&path);
        if !folders.any(|folder| folder.join(program).is_file()) {
            return Err(format!("{program} is missing: apt-get install uidmap"));
        }
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let uid = geteuid().as_raw();
    let name = name(&read("/etc/passwd"), uid).unwrap_or_default();
    let lent = |path: &str| {
        let found = lent(&read(path), &name, uid);
        found
            .ok_or_else(|| format!("{path} lends no ids to user {uid} ({name}): usermod adds some"))
    };
    Ok((lent("/etc/subuid")?, lent("/etc/subgid")?))
}

/// A user's name in /etc/passwd (passwd(5)).
fn name(passwd: &str, uid: u32) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        let is_it = fields.nth(1)?.parse() == Ok(uid);
        is_it.then(|| name.to_owned())
    })
}

/// The first range for this user.
fn lent(table: &str, name: &str, uid: u32) -> Option<Lent> {
    table.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        if (user != name || name.is_empty()) && user.parse() != Ok(uid) {
            return None;
        }
        let first = fields.next()?.parse().ok()?;
        let count = fields.next()?.parse().ok()?;
        (count > 0).then_some(Lent { first, count })
    })
}

fn options((uid, gid): (u32, u32), lent: Option<(Lent, Lent)>) -> Vec<String> {
    let mut options = vec![
        format!("--uid-map=:0:{uid}:1:"),
        format!("--gid-map=:0:{gid}:1:"),
    ];
    if let Some((users, groups)) = lent {
        let map = |it: Lent| format!(":1:{}:{}:", it.first, it.count.min(MOST));
        options.push(format!("--uid-map={}", map(users)));
        options.push(format!("--gid-map={}", map(groups)));
    }
    options
}

/// Whether this user's daemons can close themselves in.
///
/// # Errors
/// With a sentence that says what is missing.
pub(crate) fn user_namespace() -> Result<String, String> {
    let made = std::process::Command::new("unshare")
        .args(["--user", "true"])
        .stderr(std::process::Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => Ok("can be made".to_owned()),
        Ok(_) => Err(
            "an ordinary user's cannot be made, so the daemons of `ringside run` do not start: sysctl user.max_user_namespaces, \
             kernel.unprivileged_userns_clone"
                .to_owned(),
        ),
        Err(error) => Err(format!("unshare cannot be run: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_root_is_the_user_and_lent_ids_follow() {
        let lent = Lent {
            first: 100_000,
            count: 70_000,
        };
        let expected = [
            "--uid-map=:0:1000:1:",
            "--gid-map=:0:100:1:",
            "--uid-map=:1:100000:65535:",
            "--gid-map=:1:100000:65535:",
        ];
        assert_eq!(options((1000, 100), Some((lent, lent))), expected);
        assert_eq!(options((1000, 100), None), expected[..2]);
    }

    #[test]
    fn lent_ids_are_found_by_name_and_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:100::/:/bin/sh\n";
        assert_eq!(name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(name(passwd, 7), None);
        let table = "bob:1:2\nann:100000:65536\n1000:5:6\nx:y\n7:3:0\n";
        let found = |name, uid| lent(table, name, uid);
        assert_eq!(
            found("ann", 1000),
            Some(Lent {
                first: 100_000,
                count: 65_536
            })
        );
        assert_eq!(found("", 1000), Some(Lent { first: 5, count: 6 }));
        assert_eq!((found("", 7), found("x", 9)), (None, None));
    }
}
