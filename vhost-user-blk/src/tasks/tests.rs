//! Tasks without a ring: the test plays the kernel.

use std::fs::File;
use std::future::poll_fn;
use std::sync::mpsc;
use std::thread;

use vhost_daemon::queue::Buffers;
use vhost_daemon::sys::is_readable;
use vhost_daemon::worker::{Io, IoFile};

use super::*;

fn read(file: &Arc<File>, offset: u64) -> Io {
    Io::Read {
        file: IoFile::Open(file.clone()),
        buffers: Buffers::zeroed(16, 1).unwrap(),
        offset,
    }
}

fn file() -> Arc<File> {
    Arc::new(File::open("/proc/self/exe").unwrap())
}

fn tag(finished: Option<Finished<u32>>) -> Option<(u32, u32)> {
    finished.map(|done| (done.tag, done.result.unwrap()))
}

#[test]
fn a_task_waits_for_its_operations_and_others_go_on() {
    let mut tasks = Tasks::new().unwrap();
    let file = file();
    for number in [1, 2] {
        let file = file.clone();
        tasks.spawn(
            number,
            Box::pin(async move {
                let (first, _) = perform(read(&file, 0)).await?;
                let (second, _) = perform(read(&file, 100)).await?;
                Ok(first + second)
            }),
        );
    }
    assert!(tasks.run().is_none() && tasks.len() == 2);
    let (one, first) = tasks.next_operation().unwrap();
    let (two, second) = tasks.next_operation().unwrap();
    assert!(tasks.next_operation().is_none());
    tasks.completed(two, Some(second), Ok(20));
    assert!(tasks.run().is_none());
    let (next, io) = tasks.next_operation().unwrap();
    assert!(matches!(io, Io::Read { offset: 100, .. }));
    tasks.completed(next, Some(io), Ok(5));
    assert_eq!(tag(tasks.run()), Some((2, 25)));
    // Interrupted: once more.
    let interrupted = io::ErrorKind::Interrupted.into();
    tasks.completed(one, Some(first), Err(interrupted));
    assert!(tasks.run().is_none());
    let (again, io) = tasks.next_operation().unwrap();
    assert!(matches!(io, Io::Read { offset: 0, .. }));
    // The kernel never took it.
    drop(io);
    tasks.completed(again, None, Err(io::ErrorKind::ResourceBusy.into()));
    assert!(tasks.run().unwrap().result.is_err());
    assert_eq!(tasks.len(), 0);
}

#[test]
fn another_thread_wakes_a_task_and_the_queue() {
    let mut tasks = Tasks::new().unwrap();
    let (wakers, woken) = mpsc::channel();
    let mut first = true;
    let task = poll_fn(move |cx| {
        if std::mem::take(&mut first) {
            wakers.send(cx.waker().clone()).unwrap();
            return Poll::Pending;
        }
        Poll::Ready(Ok(1))
    });
    tasks.spawn(7, Box::pin(task));
    assert!(tasks.run().is_none());
    assert!(!is_readable(tasks.wakeup()));
    let waker = woken.recv().unwrap();
    thread::spawn(move || waker.wake()).join().unwrap();
    assert!(is_readable(tasks.wakeup()));
    tasks.wakeup().clear();
    assert_eq!(tag(tasks.run()), Some((7, 1)));
}

#[test]
fn a_panic_fails_its_request_and_no_other() {
    let mut tasks = Tasks::new().unwrap();
    tasks.spawn(1, Box::pin(async { panic!("a bug") }));
    tasks.spawn(2, Box::pin(async { Ok(3) }));
    let failed = tasks.run().unwrap();
    assert!(failed.tag == 1 && failed.result.is_err());
    assert_eq!(tag(tasks.run()), Some((2, 3)));
}

#[test]
fn a_change_lasts_until_the_kernel_is_done_with_it() {
    let mut tasks = Tasks::new().unwrap();
    let (file, changes) = (file(), Arc::new(Changes::default()));
    let begun = changes.clone();
    tasks.spawn(
        1,
        Box::pin(async move {
            let mut write = Box::pin(perform_change(read(&file, 0), &begun));
            // Begins, and is given up.
            poll_fn(|cx| {
                assert!(write.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(write);
            begun.settled().await;
            Ok(0)
        }),
    );
    assert!(tasks.run().is_none());
    let (id, io) = tasks.next_operation().unwrap();
    let later = changes.begin();
    assert!(tasks.run().is_none(), "settled while the kernel was at it");
    tasks.completed(id, Some(io), Ok(0));
    assert_eq!(
        tag(tasks.run()),
        Some((1, 0)),
        "later changes do not matter"
    );
    drop(later);
}

#[test]
fn outside_a_queue_operations_are_done_at_once() {
    let (count, io) = block_on(perform(read(&file(), 0))).unwrap();
    let Io::Read { buffers, .. } = io else {
        panic!("another operation came back");
    };
    let mut start = [0; 4];
    buffers.peek(&mut start);
    assert_eq!((count, &start), (16, b"\x7fELF"));
}

/// Begins two reads, and ends with the first one's result.
async fn first_of_two(file: Arc<File>, panics: bool) -> io::Result<u32> {
    let mut reads = [0, 100].map(|offset| Box::pin(perform(read(&file, offset))));
    poll_fn(|cx| {
        let [first, second] = &mut reads;
        assert!(second.as_mut().poll(cx).is_pending());
        let ended = first.as_mut().poll(cx);
        assert!(!panics || ended.is_pending(), "a bug");
        ended.map_ok(|(count, _)| count)
    })
    .await
}

#[test]
fn a_task_ends_once_the_kernel_is_done_with_what_it_gave_up() {
    for panics in [false, true] {
        let mut tasks = Tasks::new().unwrap();
        tasks.spawn(1, Box::pin(first_of_two(file(), panics)));
        assert!(tasks.run().is_none());
        let (second, its_io) = tasks.next_operation().unwrap();
        let (first, io) = tasks.next_operation().unwrap();
        tasks.completed(first, Some(io), Err(io::ErrorKind::NotFound.into()));
        assert!(tasks.run().is_none(), "its memory is still written to");
        assert_eq!(tasks.len(), 1);
        tasks.completed(second, Some(its_io), Ok(16));
        let ended = tasks.run().unwrap();
        assert!(ended.tag == 1 && ended.result.is_err());
        assert_eq!(tasks.len(), 0);
    }
}
