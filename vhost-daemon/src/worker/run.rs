//! Turn after turn: reap, take, publish, sleep.

use std::hint;
use std::io;
use std::time::Instant;

use super::poll::PollWindow;
use super::{Context, PollPolicy, QueueWorker};
use crate::queue::RunningQueue;
use crate::session::StopFlag;
use crate::sys::{Event, Reactor};

/// Where a worker left its ring when it stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Index of the first available entry not taken.
    pub(crate) next_avail: u16,
    /// Index of the next used entry.
    pub(crate) next_used: u16,
}

/// Serves `queue` with `worker` until `stop` is raised, then drains: when it returns, every
/// request taken from the ring has completed and nothing writes guest memory any more.
///
/// # Errors
/// When it cannot be started: nothing was taken.
pub(crate) fn run<W: QueueWorker>(
    mut worker: W,
    queue: RunningQueue,
    stop: &StopFlag,
    policy: PollPolicy,
    name: &str,
) -> io::Result<Outcome> {
    // Some workers take these when they start.
    let left_over = queue.left_over();
    let mut cx = start(&mut worker, queue, stop, name)?;
    if left_over > 0 {
        tracing::info!(
            queue = name,
            left_over,
            "doing requests of an earlier process once more"
        );
    }
    // An earlier process may have died between a completion and its interrupt, also if it left nothing in flight.
    if left_over > 0 || cx.queue.next_used() != 0 {
        cx.queue.interrupt();
    }
    if let Err(error) = serve(&mut worker, &mut cx, stop, policy)
        && let Some(suppressed) = cx.queue.metrics().stop_limiter.permit()
    {
        tracing::error!(queue = name, %error, suppressed, "queue stopped: io_uring failed");
    }
    worker.stop(&mut cx);
    drain(&mut worker, &mut cx, name);
    Ok(Outcome {
        next_avail: cx.queue.next_avail(),
        next_used: cx.queue.next_used(),
    })
}

fn start<W: QueueWorker>(
    worker: &mut W,
    queue: RunningQueue,
    stop: &StopFlag,
    name: &str,
) -> io::Result<Context<W::Tag>> {
    let mut reactor = Reactor::new(u32::from(queue.size()).max(64))?;
    reactor.watch(stop.wakeup())?;
    if let Some(kick) = stop.kick() {
        reactor.watch(kick)?;
    }
    let mut cx = Context::new(queue, reactor, name.to_owned());
    worker.start(&mut cx)?;
    Ok(cx)
}

fn serve<W: QueueWorker>(
    worker: &mut W,
    cx: &mut Context<W::Tag>,
    stop: &StopFlag,
    policy: PollPolicy,
) -> io::Result<()> {
    let mut poll = PollWindow::new(policy);
    let mut idle_since: Option<Instant> = None;
    // Since then, the thread has not only polled.
    let mut slept = false;
    // What an earlier process left is taken even when the ring stops at once: the index that the
    // stop answers with lies behind it.
    while !stop.is_raised() || (cx.queue.left_over() > 0 && !cx.broken) {
        cx.queue.set_now(Instant::now());
        if let Some(call) = stop.take_new_call() {
            cx.queue.set_call(call);
        }
        let reaped = reap(worker, cx);
        if let Some(error) = cx.reactor.lost_watch() {
            return Err(error);
        }
        let taken = worker.turn(cx);
        cx.queue
            .metrics()
            .in_flight
            .set(cx.queue.in_flight() as u64);
        cx.publish();
        if reaped + taken > 0
            && let Some(since) = idle_since.take()
        {
            let idle = cx.queue.now().saturating_duration_since(since);
            if !slept {
                poll.polled(idle, cx.queue.now());
            }
            poll.work_came_after(idle);
            slept = false;
        }
        if taken >= Context::<W::Tag>::BATCH {
            cx.reactor.submit()?;
            continue;
        }
        if cx.reactor.in_flight() > 0 {
            // The kernel will wake the thread; how long that takes says nothing of the guest. One
            // system call hands over what was pushed and waits.
            idle_since = None;
            sleep(worker, cx)?;
            continue;
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() < poll.window() && worker.wants_requests() {
            poll_briefly(cx)?;
            continue;
        }
        if !slept {
            poll.polled(since.elapsed(), Instant::now());
            slept = true;
        }
        sleep(worker, cx)?;
    }
    Ok(())
}

/// Handles all events that have arrived; returns how many.
fn reap<W: QueueWorker>(worker: &mut W, cx: &mut Context<W::Tag>) -> usize {
    let mut count = 0;
    while let Some(event) = cx.reactor.next_event() {
        match event {
            Event::Done(tag, io, result) => {
                worker.completed(cx, tag, io, result);
                count += 1;
            }
            Event::Ready(watch) => worker.ready(cx, watch),
        }
    }
    count
}

fn poll_briefly<T>(cx: &mut Context<T>) -> io::Result<()> {
    const LOOKS: u32 = 32;
    for _ in 0..LOOKS {
        if cx.queue.has_available() || cx.reactor.has_event() {
            break;
        }
        hint::spin_loop();
    }
    cx.reactor.submit()
}

fn sleep<W: QueueWorker>(worker: &mut W, cx: &mut Context<W::Tag>) -> io::Result<()> {
    if worker.wants_requests() && !cx.broken && cx.queue.enable_kicks() {
        return cx.reactor.submit();
    }
    cx.queue.metrics().wakeups.add(1);
    cx.reactor.wait()?;
    cx.queue.disable_kicks();
    Ok(())
}

fn drain<W: QueueWorker>(worker: &mut W, cx: &mut Context<W::Tag>, name: &str) {
    loop {
        while let Some(event) = cx.reactor.next_event() {
            match event {
                Event::Done(tag, io, result) => worker.completed(cx, tag, io, result),
                Event::Ready(watch) if worker.pending() > 0 => worker.ready(cx, watch),
                Event::Ready(_) => {}
            }
        }
        if cx.reactor.in_flight() == 0 && worker.pending() == 0 {
            break;
        }
        if let Err(error) = cx.reactor.wait() {
            tracing::error!(queue = name, %error, "io_uring failed while the queue was drained");
            break;
        }
    }
    cx.publish();
    // A driver that takes the ring over must not find kicks switched off.
    cx.queue.enable_kicks();
    debug_assert_eq!(cx.queue.in_flight(), 0, "drained with requests in flight");
    cx.queue.metrics().in_flight.set(0);
}
