//! Names: making, linking, renaming, removing, listing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::Transcript;

pub fn run(t: &mut Transcript) {
    links(t);
    renames(t);
    limits(t);
    listing(t);
    symlinks(t);
}

fn nlink(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|status| status.nlink())
}

fn links(t: &mut Transcript) {
    let (a, b, dir) = (t.at("a"), t.at("b"), t.at("dir"));
    t.tried("create a", fs::write(&a, "one"));
    t.tried("link a b", fs::hard_link(&a, &b));
    t.tried("link a b again", fs::hard_link(&a, &b));
    t.note("links of a", nlink(&a));
    t.note(
        "same file",
        fs::metadata(&a).unwrap().ino() == fs::metadata(&b).unwrap().ino(),
    );
    t.tried("remove a", fs::remove_file(&a));
    t.note("links of b", nlink(&b));
    t.note("content of b", fs::read(&b).ok());
    t.tried("mkdir dir", fs::create_dir(&dir));
    t.tried("mkdir dir/sub", fs::create_dir(dir.join("sub")));
    t.note("links of dir", nlink(&dir));
    t.tried("rmdir dir, not empty", fs::remove_dir(&dir));
    t.tried("unlink a directory", fs::remove_file(&dir));
    t.tried("rmdir a file", fs::remove_dir(&b));
    t.tried("rmdir dir/sub", fs::remove_dir(dir.join("sub")));
    t.tried("rmdir dir", fs::remove_dir(&dir));
}

fn renames(t: &mut Transcript) {
    let (x, y, d) = (t.at("x"), t.at("y"), t.at("d"));
    fs::write(&x, "x").unwrap();
    fs::write(&y, "y").unwrap();
    let rename = |from: &Path, to: &Path, flags| renameat_with(CWD, from, CWD, to, flags);
    t.tried("rename, not over y", rename(&x, &y, RenameFlags::NOREPLACE));
    t.tried("exchange x and y", rename(&x, &y, RenameFlags::EXCHANGE));
    t.note("x and y", (fs::read(&x).ok(), fs::read(&y).ok()));
    let open = File::open(&y).unwrap();
    t.tried("rename x over open y", fs::rename(&x, &y));
    t.note(
        "links of what was y",
        open.metadata().ok().map(|status| status.nlink()),
    );
    t.note("y", fs::read(&y).ok());
    t.tried(
        "exchange with nothing",
        rename(&y, &x, RenameFlags::EXCHANGE),
    );
    t.tried(
        "both flags",
        rename(&y, &x, RenameFlags::EXCHANGE | RenameFlags::NOREPLACE),
    );
    fs::create_dir_all(d.join("e")).unwrap();
    t.tried("rename d into itself", fs::rename(&d, d.join("e/f")));
    t.tried("rename a file over a directory", fs::rename(&y, &d));
    t.tried("rename a directory over a file", fs::rename(&d, &y));
    t.tried("rename nothing", fs::rename(&x, &y));
    t.tried("move y into d", fs::rename(&y, d.join("y")));
    t.tried(
        "rename with a whiteout",
        rename(&d.join("y"), &y, RenameFlags::WHITEOUT),
    );
    t.note(
        "the whiteout",
        fs::symlink_metadata(d.join("y"))
            .ok()
            .map(|s| (s.mode(), s.rdev())),
    );
    t.tried("remove all", fs::remove_dir_all(&d));
}

fn limits(t: &mut Transcript) {
    let longest = t.at(&"n".repeat(255));
    t.tried("a name of 255 bytes", fs::write(&longest, "long"));
    t.note("its content", fs::read(&longest).ok());
    t.tried(
        "a name of 256 bytes",
        fs::write(t.at(&"n".repeat(256)), "long"),
    );
    t.tried("a name that is not UTF-8", {
        use std::os::unix::ffi::OsStrExt;
        File::create(t.at("").join(std::ffi::OsStr::from_bytes(b"\xff\xfe\n")))
    });
    t.tried("what is not there", File::open(t.at("nothing")));
    t.tried("below a file", fs::write(longest.join("x"), ""));
    t.tried("exclusive, but there", File::create_new(&longest));
}

fn listing(t: &mut Transcript) {
    let dir = t.at("many");
    fs::create_dir(&dir).unwrap();
    let all: BTreeSet<String> = (0..700).map(|n| format!("file-{n:04}")).collect();
    for name in &all {
        fs::write(dir.join(name), name).unwrap();
    }
    let names = |dir: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    t.note("all listed", names(&dir) == all);
    let sizes: u64 = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    t.note("their sizes", sizes);
    // What is there all the time is listed once, whatever happens meanwhile.
    let (mut seen, mut twice) = (BTreeSet::new(), false);
    for (count, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if count % 2 == 0 {
            let _ = fs::remove_file(dir.join(&name));
        }
        twice |= !seen.insert(name);
    }
    t.note("listed while removing", (seen == all, twice));
    t.note("half is left", names(&dir).len());
    t.tried("remove the rest", fs::remove_dir_all(&dir));
}

fn symlinks(t: &mut Transcript) {
    let link = t.at("link");
    t.tried("symlink to nothing", symlink("no/such/../file", &link));
    t.note("its target", fs::read_link(&link).ok());
    t.tried("through it", File::open(&link));
    t.tried("symlink over it", symlink("other", &link));
    t.note(
        "its size",
        fs::symlink_metadata(&link).ok().map(|status| status.len()),
    );
    let linked = t.at("linked-link");
    t.tried("hard link to it", fs::hard_link(&link, &linked));
    t.note("still a link", fs::read_link(&linked).ok());
    t.tried("a loop", symlink("loop", t.at("loop")));
    t.tried("through the loop", File::open(t.at("loop")));
    fs::write(t.at("target"), "target").unwrap();
    t.tried("relative", symlink("../work/target", t.at("relative")));
    t.tried("chmod through it", {
        symlink("target", t.at("direct")).unwrap();
        fs::set_permissions(t.at("direct"), fs::Permissions::from_mode(0o640))
    });
    t.note(
        "mode of the target",
        fs::metadata(t.at("target")).unwrap().mode(),
    );
    let long = "t".repeat(4095);
    t.tried("a target of 4095 bytes", symlink(&long, t.at("long")));
    t.note(
        "read back",
        fs::read_link(t.at("long"))
            .ok()
            .map(|target| target == Path::new(&long)),
    );
}
