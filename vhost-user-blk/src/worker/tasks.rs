//! Requests that are tasks: started, woken and answered.

use std::io;

use vhost_daemon::worker::{Io, Submission, WatchId};

use super::in_flight::TaskOperation;
use super::{BlockWorker, Cx, InFlight, Tag, Work, fail, finish, succeed};
use crate::request::Status;
use crate::storage::Storage;
use crate::tasks::{Finished, Task, Tasks};

/// How far the end of a queue's run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Closing {
    /// It runs.
    #[default]
    No,
    /// Its last requests are on their way.
    Draining,
    /// They are done, and the storage was asked to bring its medium up to date.
    Settling,
}

impl<S: Storage> BlockWorker<S> {
    pub(super) fn start_task(&mut self, cx: &mut Cx, request: InFlight, task: Task) {
        let tasks = match &mut self.tasks {
            Some(tasks) => tasks,
            none => match first_tasks(cx) {
                Ok(tasks) => none.insert(tasks),
                Err(error) => return fail(cx, request, &error),
            },
        };
        tasks.spawn(Some(request), task);
        self.run_tasks(cx);
    }

    /// An operation of a task is done.
    pub(super) fn task_operation_done(
        &mut self,
        cx: &mut Cx,
        TaskOperation(id): TaskOperation,
        io: Io,
        result: io::Result<u32>,
    ) {
        if let Some(tasks) = &self.tasks {
            tasks.completed(id, Some(io), result);
        }
        self.run_tasks(cx);
    }

    /// Another queue's thread may have made tasks ready.
    pub(super) fn woken(&mut self, cx: &mut Cx, _watch: WatchId) {
        if let Some(tasks) = &self.tasks {
            // First, so that what becomes ready from now on is told again.
            tasks.wakeup().clear();
        }
        self.run_tasks(cx);
    }

    /// The queue stops: once its requests are done the storage settles.
    pub(super) fn close(&mut self, cx: &mut Cx) {
        if self.tasks.is_some() {
            self.closing = Closing::Draining;
            self.run_tasks(cx);
        }
    }

    /// Lets tasks go on until all of them wait for the kernel or for another queue.
    fn run_tasks(&mut self, cx: &mut Cx) {
        // A task that ends may start the request's next one: the loop below comes to it.
        if !std::mem::replace(&mut self.in_tasks, true) {
            self.run_all_tasks(cx);
            self.in_tasks = false;
        }
    }

    fn run_all_tasks(&mut self, cx: &mut Cx) {
        loop {
            let Some(tasks) = &mut self.tasks else {
                return;
            };
            let finished = tasks.run();
            while let Some((id, io)) = tasks.next_operation() {
                let tag = Tag::Task(TaskOperation(id));
                if let Submission::Refused(_, error) = cx.push(tag, io) {
                    tasks.completed(id, None, Err(error));
                }
            }
            match finished {
                Some(Finished { tag, result }) => self.task_done(cx, tag, result),
                // A refused operation makes its task ready.
                None if tasks.has_ready() => {}
                None if self.closing == Closing::Draining && tasks.len() == 0 => {
                    self.closing = Closing::Settling;
                    match self.storage.settle() {
                        Some(task) => tasks.spawn(None, task),
                        None => return,
                    }
                }
                None => return,
            }
        }
    }

    fn task_done(&mut self, cx: &mut Cx, request: Option<InFlight>, result: io::Result<u32>) {
        let Some(mut request) = request else {
            if let Err(error) = result {
                cx.backend_error("flush at the end", &error);
            }
            return;
        };
        match result {
            Ok(count) => match &mut request.work {
                Work::Read(transfer) | Work::Write(transfer) => {
                    transfer.done += count;
                    succeed(cx, request);
                }
                _ => self.go_on(cx, request),
            },
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                cx.backend_error(request.work.name(), &error);
                finish(cx, request.token, request.status, Status::Unsupported, 0);
            }
            Err(error) => fail(cx, request, &error),
        }
    }
}

fn first_tasks(cx: &mut Cx) -> io::Result<Tasks<Option<InFlight>>> {
    let tasks = Tasks::new()?;
    cx.watch(tasks.wakeup())?;
    Ok(tasks)
}
