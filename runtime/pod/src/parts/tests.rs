use std::io::Read;
use std::os::fd::AsFd;

use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

#[tokio::test]
async fn an_end_is_told_with_its_last_words() {
    let root = tempfile::tempdir().unwrap();
    let directory = PodDirectory::create(root.path(), "p").unwrap();
    let (sender, mut ends) = mpsc::unbounded_channel();
    let parts = Parts::new(directory, sender);
    let script = shell("echo so long >&2; exit 3");
    parts.start("one", script, &[], Role::Daemon).unwrap();
    let end = ends.recv().await.unwrap();
    assert_eq!((end.part.as_str(), end.status.code()), ("one", Some(3)));
    // The log's writer is another task.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let words = parts.obituary(&end).to_string();
    assert!(
        words.contains("so long") && words.contains("one"),
        "{words}"
    );
}

#[tokio::test]
async fn who_is_started_again_has_the_same_options_and_log() {
    let root = tempfile::tempdir().unwrap();
    let directory = PodDirectory::create(root.path(), "p").unwrap();
    let (sender, mut ends) = mpsc::unbounded_channel();
    let parts = Parts::new(directory.clone(), sender);
    let script = shell("echo once more; exit 3");
    parts.start("one", script, &[], Role::Restarted).unwrap();
    let end = ends.recv().await.unwrap();
    parts.restart(&end).unwrap();
    let end = ends.recv().await.unwrap();
    assert_eq!((end.part.as_str(), end.status.code()), ("one", Some(3)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let log = fs::read_to_string(directory.log("one")).unwrap();
    assert_eq!(log, "once more\nonce more\n");
    parts.stop().await;
    let refused = parts.restart(&end).unwrap_err().to_string();
    assert!(refused.contains("one ended"), "{refused}");
}

#[tokio::test]
async fn who_ends_before_it_is_accepted_is_told_when_it_is() {
    let root = tempfile::tempdir().unwrap();
    let directory = PodDirectory::create(root.path(), "p").unwrap();
    let (sender, mut ends) = mpsc::unbounded_channel();
    let parts = Parts::new(directory, sender);
    let script = shell("exit 3");
    parts.start("one", script, &[], Role::Probation).unwrap();
    assert_eq!(parts.end_of("one").await.status.code(), Some(3));
    assert_eq!(ends.recv().await.unwrap().role, Role::Probation);
    parts.accept("one", Role::Restarted);
    let end = ends.recv().await.unwrap();
    assert_eq!(end.role, Role::Restarted);
    parts.restart(&end).unwrap();
    assert_eq!(ends.recv().await.unwrap().role, Role::Restarted);
}

#[tokio::test]
async fn who_cannot_be_written_down_does_not_run() {
    let root = tempfile::tempdir().unwrap();
    let directory = PodDirectory::create(root.path(), "p").unwrap();
    fs::create_dir(directory.file("one.pid")).unwrap();
    let (sender, _ends) = mpsc::unbounded_channel();
    let parts = Parts::new(directory, sender);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let command = shell("exec sleep 60");
    let started = parts.start("one", command, &[writer.as_fd()], Role::Daemon);
    assert!(matches!(started, Err(PodError::File { .. })));
    drop(writer);
    // Its end is the pipe's.
    let ended = tokio::task::spawn_blocking(move || reader.read(&mut [0]));
    let read = timeout(Duration::from_secs(20), ended).await.unwrap();
    assert_eq!(read.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn the_stubborn_are_killed() {
    let root = tempfile::tempdir().unwrap();
    let directory = PodDirectory::create(root.path(), "p").unwrap();
    let (sender, mut ends) = mpsc::unbounded_channel();
    let parts = Parts::new(directory.clone(), sender);
    let stubborn = shell("trap '' TERM; while :; do sleep 0.1; done");
    parts.start("one", stubborn, &[], Role::Daemon).unwrap();
    parts
        .start("two", shell("exec sleep 60"), &[], Role::Hypervisor)
        .unwrap();
    let pid = parts.hypervisor();
    let written = fs::read_to_string(directory.file("two.pid")).unwrap();
    assert!(written.starts_with(&format!("{pid} ")), "{written}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    parts.stop().await;
    assert_eq!(ends.recv().await.unwrap().part, "two");
    assert_eq!(ends.recv().await.unwrap().part, "one");
    assert!(!Identity::read(&directory.file("two.pid")).unwrap().lives());
}
