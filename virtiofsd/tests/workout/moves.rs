//! Corner cases of rename: over itself, over what is not empty, between directories, with flags.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, renameat, renameat_with};

use super::Transcript;

pub fn run(t: &mut Transcript) {
    let at = t.at("moves");
    fs::create_dir(&at).unwrap();
    onto_itself(t, &at);
    directories(t, &at);
    exchanges(t, &at);
    whiteouts(t, &at);
    while_open(t, &at);
}

fn nlink(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|status| status.nlink())
}

fn onto_itself(t: &mut Transcript, at: &Path) {
    let (a, b) = (at.join("a"), at.join("b"));
    fs::write(&a, "a").unwrap();
    fs::hard_link(&a, &b).unwrap();
    t.tried("rename onto itself", fs::rename(&a, &a));
    t.tried("rename onto another link of it", fs::rename(&a, &b));
    t.note("both are left", (nlink(&a), nlink(&b)));
    let both = |flags| renameat_with(CWD, &a, CWD, &b, flags);
    t.tried("not over another link of it", both(RenameFlags::NOREPLACE));
    t.tried("exchange two links of it", both(RenameFlags::EXCHANGE));
    t.note("both are there", (nlink(&a), nlink(&b)));
    let c = at.join("c");
    t.tried(
        "rename to a free name, not over",
        renameat_with(CWD, &a, CWD, &c, RenameFlags::NOREPLACE),
    );
    t.note("where it is", (nlink(&a), nlink(&c)));
    for flags in [1 << 3, 1 << 31] {
        let flags = RenameFlags::from_bits_retain(flags);
        t.tried("an unknown flag", renameat_with(CWD, &b, CWD, &a, flags));
    }
    t.tried(
        "to a name of 256 bytes",
        fs::rename(&b, at.join("n".repeat(256))),
    );
    t.tried(
        "to a name of 255 bytes",
        fs::rename(&b, at.join("n".repeat(255))),
    );
    t.tried("and back", fs::rename(at.join("n".repeat(255)), &b));
    t.tried(
        "the directory itself",
        fs::rename(at.join("."), at.join("x")),
    );
    t.tried("to the parent", fs::rename(&b, at.join("..")));
    t.tried(
        "a file as a directory",
        fs::rename(at.join("b/"), at.join("x")),
    );
    t.tried("to below a file", fs::rename(&b, at.join("c/x")));
}

fn directories(t: &mut Transcript, at: &Path) {
    let (one, two) = (at.join("one"), at.join("two"));
    fs::create_dir_all(one.join("sub/deep")).unwrap();
    fs::create_dir_all(two.join("empty")).unwrap();
    fs::write(two.join("file"), "").unwrap();
    t.tried(
        "a directory over one that is not empty",
        fs::rename(&one, &two),
    );
    t.tried("a directory into itself", fs::rename(&one, one.join("x")));
    t.tried("far into itself", fs::rename(&one, one.join("sub/deep/x")));
    t.tried(
        "a directory over its parent",
        fs::rename(one.join("sub/deep"), one.join("sub")),
    );
    let before = fs::metadata(one.join("sub")).unwrap().ino();
    t.tried(
        "to another parent, over an empty one",
        fs::rename(one.join("sub"), two.join("empty")),
    );
    t.note(
        "links",
        (nlink(&one), nlink(&two), nlink(&two.join("empty"))),
    );
    let after = fs::metadata(two.join("empty"));
    t.note("the same", after.map(|status| status.ino() == before).ok());
    let parent = fs::metadata(two.join("empty/..")).unwrap().ino();
    t.note("its parent is", parent == fs::metadata(&two).unwrap().ino());
    t.note(
        "what was in it",
        fs::metadata(two.join("empty/deep")).unwrap().is_dir(),
    );
    t.tried(
        "with a slash behind",
        fs::rename(two.join("empty/"), one.join("back/")),
    );
    t.note("links again", (nlink(&one), nlink(&two)));
    let (from, to) = (open_directory(&two), open_directory(&one));
    t.tried("by descriptors", renameat(&from, "file", &to, "file"));
    t.note(
        "it is there",
        (nlink(&two.join("file")), nlink(&one.join("file"))),
    );
    symlink("file", one.join("link")).unwrap();
    t.tried(
        "a link, not what it names",
        fs::rename(one.join("link"), two.join("link")),
    );
    t.note("names", fs::read_link(two.join("link")).ok());
    t.tried(
        "a directory over a link",
        fs::rename(one.join("back"), two.join("link")),
    );
    t.tried(
        "a link over a directory",
        fs::rename(two.join("link"), one.join("back")),
    );
}

fn open_directory(path: &Path) -> File {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())
        .map(File::from)
        .unwrap()
}

fn exchanges(t: &mut Transcript, at: &Path) {
    let (file, dir) = (at.join("ex-file"), at.join("ex-dir/inner"));
    fs::create_dir_all(dir.join("below")).unwrap();
    fs::write(&file, "file").unwrap();
    let exchange = |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
    t.tried("exchange a file and a directory", exchange(&file, &dir));
    t.note(
        "what they are",
        (fs::read(&dir).ok(), nlink(&file), nlink(&at.join("ex-dir"))),
    );
    t.tried("exchange them back", exchange(&file, &dir));
    t.tried(
        "exchange with what is below",
        exchange(&dir, &dir.join("below")),
    );
    t.tried(
        "exchange with what is above",
        exchange(&dir.join("below"), &at.join("ex-dir")),
    );
    symlink("nowhere", at.join("ex-link")).unwrap();
    t.tried(
        "exchange a link and a file",
        exchange(&at.join("ex-link"), &file),
    );
    t.note("the link", fs::read_link(&file).ok());
    t.note("the file", fs::read(at.join("ex-link")).ok());
}

fn whiteouts(t: &mut Transcript, at: &Path) {
    let (a, b) = (at.join("w-a"), at.join("w-b"));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    let rename = |flags| renameat_with(CWD, &a, CWD, &b, flags);
    t.tried(
        "whiteout and exchange",
        rename(RenameFlags::WHITEOUT | RenameFlags::EXCHANGE),
    );
    t.tried(
        "whiteout, not over",
        rename(RenameFlags::WHITEOUT | RenameFlags::NOREPLACE),
    );
    t.tried("whiteout, over", rename(RenameFlags::WHITEOUT));
    t.note(
        "what it left",
        fs::symlink_metadata(&a)
            .map(|s| (s.mode(), s.rdev(), s.uid()))
            .ok(),
    );
    t.note("what came", fs::read(&b).ok());
    t.tried("remove what it left", fs::remove_file(&a));
}

/// Who has a file open follows it, and keeps what was replaced.
fn while_open(t: &mut Transcript, at: &Path) {
    use std::os::unix::fs::FileExt;
    let (old, new) = (at.join("old-name"), at.join("new-name"));
    fs::write(&old, "moved").unwrap();
    fs::write(&new, "replaced").unwrap();
    let moved = File::options().read(true).write(true).open(&old).unwrap();
    let replaced = File::open(&new).unwrap();
    t.tried(
        "rename an open file over an open file",
        fs::rename(&old, &new),
    );
    t.tried("write to the moved one", moved.write_all_at(b"MOVED", 0));
    t.note("by its name", fs::read(&new).ok());
    let mut content = [0; 8];
    t.tried(
        "read the replaced one",
        replaced.read_exact_at(&mut content, 0),
    );
    t.note("its content", content);
    t.note("its links", replaced.metadata().map(|s| s.nlink()).ok());
    t.note(
        "is gone",
        fs::metadata(&old).err().and_then(|e| e.raw_os_error()),
    );
    // A directory that somebody is in moves, and goes.
    let dir = at.join("in");
    fs::create_dir(&dir).unwrap();
    let inside = open_directory(&dir);
    fs::rename(&dir, at.join("elsewhere")).unwrap();
    t.tried(
        "make something in a moved directory",
        rustix::fs::mkdirat(&inside, "x", Mode::RWXU),
    );
    t.note("it is there", at.join("elsewhere/x").is_dir());
    t.tried(
        "remove it",
        rustix::fs::unlinkat(&inside, "x", AtFlags::REMOVEDIR),
    );
    t.tried("remove the directory", fs::remove_dir(at.join("elsewhere")));
    t.tried(
        "make something in what is gone",
        rustix::fs::mkdirat(&inside, "y", Mode::RWXU),
    );
    t.tried(
        "list what is gone",
        rustix::fs::Dir::read_from(&inside).and_then(|mut dir| dir.read().transpose()),
    );
    t.note(
        "links of what is gone",
        inside.metadata().map(|s| s.nlink()).ok(),
    );
}
