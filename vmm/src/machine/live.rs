//! Copying a machine while its guest runs: memory in passes, each of what was written during the one before;
//! then a pause for what is left, and for the rest of the machine.

mod passes;

use std::time::{Duration, Instant};

use serde::Serialize;

use super::devices::lock;
use super::events::Event;
use super::{Machine, Refusal};
use crate::memory::DirtyLog;
use crate::snapshot::{MachineState, MemoryFile};
use crate::virtio::SaveError;
use passes::Passes;

/// How often the machine is paused for it, where a daemon is lost at that moment.
const ATTEMPTS: usize = 3;
/// How long a daemon that is lost has to come back before the pause.
const COMING_BACK: Duration = Duration::from_secs(5);
const COMING_BACK_POLL: Duration = Duration::from_millis(10);

/// How a machine was copied while it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CopiedInfo {
    /// How often memory was looked through while the guest ran.
    pub passes: u32,
    /// Bytes of memory that were written again, as the guest had written them.
    pub again: u64,
    /// Bytes of them that were written during the pause.
    pub last: u64,
    /// How long the guest stood still, in microseconds, unless it stays paused.
    pub pause: u64,
}

impl Machine<'_> {
    /// Fills the file with memory as it is at the pause. The machine goes on if nothing else is wanted, and
    /// where it fails.
    pub(super) fn copy_while_it_runs(
        &mut self,
        file: &mut MemoryFile,
        stay_paused: bool,
    ) -> Result<(MachineState, CopiedInfo), Refusal> {
        let log = self.vm.memory().begin_log().map_err(Refusal::Log)?;
        let copied = self.copy(&log, file, stay_paused);
        self.vm.memory().end_log();
        // Whatever became of the copy: the log goes, or costs time from now on.
        let ended = self.vm.log_writes(false);
        let released = self.devices.follow_log();
        let copied = copied?;
        ended?;
        released?;
        Ok(copied)
    }

    fn copy(
        &mut self,
        log: &DirtyLog,
        file: &mut MemoryFile,
        stay_paused: bool,
    ) -> Result<(MachineState, CopiedInfo), Refusal> {
        self.vm.log_writes(true)?;
        self.devices.follow_log()?;
        file.write(self.vm.memory())?;
        // Now, while nobody waits for what comes behind it.
        file.keep()?;
        let mut passes = Passes::default();
        let mut attempt = 1;
        loop {
            self.wait_for_daemons();
            self.approach(log, file, &mut passes)?;
            let begin = Instant::now();
            self.pause()?;
            let state = self.rest(log, file, attempt < ATTEMPTS);
            if !(stay_paused && matches!(state, Ok(Some(_)))) {
                self.resume()?;
            }
            let pause = begin.elapsed();
            if let Some((state, last)) = state? {
                let copied = passes.copied(last, pause);
                tracing::info!(?copied, "the machine was copied while it ran");
                return Ok((state, copied));
            }
            attempt += 1;
            passes.begin_again();
        }
    }

    /// Copies what was written, again and again until it is little.
    fn approach(
        &mut self,
        log: &DirtyLog,
        file: &mut MemoryFile,
        passes: &mut Passes,
    ) -> Result<(), Refusal> {
        loop {
            self.look_at_events()?;
            self.vm.collect_writes(log)?;
            let memory = self.vm.memory();
            if !passes.another(memory.marked(log)) {
                return Ok(());
            }
            file.update(memory, log)?;
        }
    }

    /// The paused machine's state, and how much memory was left; nothing if a daemon was lost a moment ago,
    /// and it may be tried again.
    fn rest(
        &mut self,
        log: &DirtyLog,
        file: &mut MemoryFile,
        again: bool,
    ) -> Result<Option<(MachineState, u64)>, Refusal> {
        self.look_at_events()?;
        if again && !self.daemons_are_there() {
            return Ok(None);
        }
        let state = match self.state() {
            Err(Refusal::Save {
                source: SaveError::Gone,
                ..
            }) if again => return Ok(None),
            state => state?,
        };
        self.vm.collect_writes(log)?;
        let left = self.vm.memory().marked(log);
        file.update(self.vm.memory(), log)?;
        if !log.is_complete() {
            return Err(Refusal::Unlogged);
        }
        Ok(Some((state, left)))
    }

    /// A machine that ends is not copied. Devices that the guest let go of are none of the copy's.
    fn look_at_events(&mut self) -> Result<(), Refusal> {
        while let Ok(event) = self.events.receiver.try_recv() {
            match event {
                Event::Ejected(slot) => self.ejected(slot),
                later => self.later.push_back(later),
            }
        }
        let goes_on = |event: &Event| matches!(event, Event::Order(..) | Event::Ejected(_));
        if self.later.iter().all(goes_on) {
            Ok(())
        } else {
            Err(Refusal::Ending)
        }
    }

    fn daemons_are_there(&self) -> bool {
        let mut devices = self.devices.iter();
        devices.all(|attached| lock(&attached.device).condition().connected)
    }

    fn wait_for_daemons(&self) {
        let give_up = Instant::now() + COMING_BACK;
        while !self.daemons_are_there() && Instant::now() < give_up {
            std::thread::sleep(COMING_BACK_POLL);
        }
    }
}
