use std::path::Path;
use std::sync::Arc;

use vhost_daemon::shutdown::Shutdown;
use vhost_daemon::worker::PollPolicy;

use super::{Common, Disks};
use crate::options::{DiskConfig, DiskSpec};

fn disk(folder: &Path) -> DiskConfig {
    let spec = DiskSpec {
        null: Some(1 << 20),
        socket: Some(folder.join("socket")),
        name: Some("a".to_owned()),
        ..DiskSpec::default()
    };
    spec.validate().unwrap()
}

#[test]
fn the_late_end_of_a_removed_disk_is_not_that_of_the_next_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let disks = Disks::new(Common {
        state_dir: None,
        once: false,
        poll: PollPolicy::Auto,
        metrics: Arc::default(),
        shutdown: Arc::new(Shutdown::new().unwrap()),
        filters: Arc::default(),
    });
    disks.add(disk(folder.path())).unwrap();
    let removed = disks.table().disks["a"].metrics.clone();
    disks.remove(None).unwrap();
    disks.add(disk(folder.path())).unwrap();
    disks.ended("a", &removed, Ok(()));
    assert!(
        disks.on(Some("a"), |_| Ok(())).is_ok(),
        "the next one is gone"
    );
    assert!(!disks.common.shutdown.requested());
    disks.close();
}
