use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;

use lab::scratch::Scratch;
use vhost_daemon::worker::Io;

use super::super::chain::{BackingFiles, Chain, ChainOptions};
use super::*;
use crate::tasks::{OperationId, Tasks};

#[test]
fn requests_are_cheap_to_move_to_the_heap() {
    fn read<F>(_: fn(Arc<Image>, u64, Buffers) -> F) -> usize {
        size_of::<F>()
    }
    fn write<F>(_: fn(Arc<Image>, u64, Buffers, bool) -> F) -> usize {
        size_of::<F>()
    }
    let sizes = [read(Image::read), write(Image::write)];
    assert!(sizes.iter().all(|bytes| *bytes < 1280), "{sizes:?}");
}

const CLUSTER: usize = 16384;
/// What one of the image's tables tells of: 2048 clusters.
const TABLE: u64 = 32 << 20;
/// A compressed run that is read in two steps.
const RUN: usize = 2 * DECOMPRESSED;
/// Clusters behind it, every other one a hole.
const SCATTERED: usize = 40;

/// The bytes that the image's first table tells of; those of the others begin with a byte of 2.
fn content() -> Vec<u8> {
    let mut bytes = vec![1; RUN];
    for number in 0..SCATTERED {
        match number % 2 {
            // These do not get smaller: they are stored as they are.
            0 => bytes.extend(lab::pattern(number as u64, CLUSTER)),
            _ => bytes.extend([0; CLUSTER]),
        }
    }
    bytes
}

fn image(scratch: &Scratch) -> Arc<Image> {
    let (raw, path) = (scratch.join("disk.raw"), scratch.join("disk.qcow2"));
    let file = std::fs::File::create(&raw).unwrap();
    file.set_len(4 * TABLE).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &content(), 0).unwrap();
    for table in 1..4 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[2], table * TABLE).unwrap();
    }
    let qemu_img = lab::need::program("qemu-img").unwrap();
    let arguments = ["convert", "-fraw", "-Oqcow2", "-c", "-ocluster_size=16384"];
    let mut convert = Command::new(qemu_img);
    convert.args(arguments).args([&raw, &path]);
    assert!(convert.status().unwrap().success());
    open(&path)
}

fn open(path: &Path) -> Arc<Image> {
    let options = ChainOptions {
        read_only: true,
        direct: false,
        backing: BackingFiles::None,
    };
    let chain = Chain::open(path, options).unwrap();
    let cluster_size = chain.header.cluster_size;
    Arc::new(Image::new(chain.access, cluster_size, false))
}

/// A queue, of which the test is the kernel.
struct Queue {
    tasks: Tasks<()>,
    operations: VecDeque<(OperationId, Io)>,
    ended: Vec<io::Result<u32>>,
}

impl Queue {
    /// Begins to read `len` bytes at `at`, into the buffers it returns.
    fn reading(image: &Arc<Image>, at: u64, len: usize) -> (Self, Buffers) {
        let data = Buffers::zeroed(len, 1).unwrap();
        let mut tasks = Tasks::new().unwrap();
        tasks.spawn((), Box::pin(image.clone().read(at, data.share())));
        let mut queue = Self {
            tasks,
            operations: VecDeque::new(),
            ended: Vec::new(),
        };
        queue.run();
        (queue, data)
    }

    /// Lets the task go on until it waits.
    fn run(&mut self) {
        while let Some(ended) = self.tasks.run() {
            self.ended.push(ended.result);
        }
        while let Some(operation) = self.tasks.next_operation() {
            self.operations.push_back(operation);
        }
    }

    /// Does the oldest operation of a length that `which` takes; `false` if there is none.
    fn finish_one(&mut self, which: impl Fn(usize) -> bool) -> bool {
        let fits =
            |(_, io): &(_, Io)| matches!(io, Io::Read { buffers, .. } if which(buffers.len()));
        let Some(place) = self.operations.iter().position(fits) else {
            return false;
        };
        let (id, io) = self.operations.remove(place).unwrap();
        let result = io.run_inline(&[]);
        self.tasks.completed(id, Some(io), result);
        true
    }
}

fn bytes(data: &Buffers) -> Vec<u8> {
    let mut bytes = vec![0; data.len()];
    data.peek(&mut bytes);
    bytes
}

/// Lets every task go on for as long as any can.
fn run_out<'a>(queues: impl IntoIterator<Item = &'a mut Queue>) {
    let mut queues: Vec<_> = queues.into_iter().collect();
    for _ in 0..10_000 {
        for queue in &mut queues {
            queue.finish_one(|_| true);
            queue.run();
        }
    }
}

/// A part of a compressed image asks for tables once more while other parts are under way. What it waits for
/// may be given to it at any moment: it must be polled then, or it keeps everybody from the tables.
#[test]
fn a_part_that_waits_for_tables_holds_up_nobody() {
    let scratch = Scratch::new("qcow2-parts").unwrap();
    let image = image(&scratch);
    let (mut warm, _) = Queue::reading(&image, 0, 512);
    run_out([&mut warm]);
    assert_eq!(warm.ended.len(), 1);

    let expected = content();
    let (mut wide, data) = Queue::reading(&image, 0, expected.len());
    // All but the last compressed cluster of the run's first step.
    for _ in 1..DECOMPRESSED / CLUSTER {
        assert!(wide.finish_one(|len| len != CLUSTER));
        wide.run();
    }
    // One holds the tables while it reads the first, two want theirs next.
    let (mut first, _) = Queue::reading(&image, TABLE, 512);
    let (mut second, _) = Queue::reading(&image, 2 * TABLE, 512);
    let (mut third, _) = Queue::reading(&image, 3 * TABLE, 512);
    assert!(first.finish_one(|_| true));
    first.run();
    second.run();
    // The run's second step stands between these two.
    assert!(wide.finish_one(|len| len != CLUSTER));
    wide.run();
    third.run();
    second.run();
    // A part ends, and then the run's second step is given the tables.
    assert!(wide.finish_one(|len| len == CLUSTER));
    wide.run();
    assert!(second.finish_one(|_| true));
    second.run();
    run_out([&mut first, &mut second, &mut third, &mut wide]);
    for (name, queue) in [("first", first), ("second", second), ("third", third)] {
        assert!(matches!(queue.ended[..], [Ok(512)]), "{name} hangs");
    }
    assert!(matches!(wide.ended[..], [Ok(_)]), "the wide read hangs");
    assert!(bytes(&data) == expected);
}

#[test]
fn a_part_that_fails_waits_for_the_others() {
    let scratch = Scratch::new("qcow2-failing-part").unwrap();
    let image = image(&scratch);
    let (mut warm, _) = Queue::reading(&image, 0, 512);
    run_out([&mut warm]);
    let (at, len) = (RUN as u64, SCATTERED / 4 * CLUSTER);
    let (mut queue, data) = Queue::reading(&image, at, len);
    let (id, io) = queue.operations.pop_front().unwrap();
    let failed = io::Error::from_raw_os_error(libc::EIO);
    queue.tasks.completed(id, Some(io), Err(failed));
    queue.run();
    assert!(queue.ended.is_empty() && !queue.operations.is_empty());
    while queue.finish_one(|_| true) {
        assert!(queue.ended.is_empty());
        queue.run();
    }
    let [Err(error)] = &queue.ended[..] else {
        panic!("{:?}", queue.ended);
    };
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(bytes(&data)[CLUSTER..] == content()[RUN + CLUSTER..][..len - CLUSTER]);
}
