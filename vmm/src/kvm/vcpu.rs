//! A processor and its thread: runs the guest, hands accesses to the machine, stops when told.

mod control;
mod failure;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::Killable;

use super::cpuid::{self, Processor};
use super::error::failed;
use super::{KvmError, ProcessorState, Speed, Vm, lapic, registers, signal, state};
use crate::boot::Entry;
use crate::system_calls;
use control::{Control, Wanted};

pub use failure::Stopped;

/// What a guest's accesses reach. Called by every processor's thread at once.
pub trait Guest: Send + Sync {
    /// Fills `data` with what `port` answers.
    fn read_port(&self, port: u16, data: &mut [u8]);
    /// Takes what was written to `port`.
    fn write_port(&self, port: u16, data: &[u8]);
    /// Fills `data` with what is at `address`, where there is no memory.
    fn read_memory(&self, address: u64, data: &mut [u8]);
    /// Takes what was written to `address`, where there is no memory.
    fn write_memory(&self, address: u64, data: &[u8]);
}

/// A processor cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which one.
    pub processor: u8,
    /// Why.
    pub stopped: Stopped,
}

/// Who is told that a processor cannot go on.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// What the first processor does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Run a short loop; go no further where ring-0 code is emulated.
    Check,
    /// Run the guest however slow it will be.
    Skip,
}

/// How a guest begins.
#[derive(Debug)]
pub enum Beginning<'a> {
    /// The first processor enters the kernel; the others wait for it to start them.
    Boot(Entry),
    /// Every processor goes on as it was.
    Restored(&'a [ProcessorState]),
}

/// How often a processor left the guest, by reason.
#[derive(Debug, Default)]
pub struct Exits {
    /// Accesses to ports.
    pub ports: AtomicU64,
    /// Accesses to devices' memory.
    pub memory: AtomicU64,
    /// Signals: somebody wanted the processor's thread.
    pub signals: AtomicU64,
    /// Everything else.
    pub others: AtomicU64,
}

/// A processor that is set up, without a thread.
#[derive(Debug)]
struct Vcpu {
    fd: VcpuFd,
    id: u8,
    exits: Arc<Exits>,
    /// It left the guest for an access, which KVM has not finished.
    in_access: bool,
}

/// A processor's thread. It runs until it is stopped.
#[derive(Debug)]
pub struct VcpuThread {
    thread: JoinHandle<()>,
    control: Arc<Control<VcpuFd>>,
    exits: Arc<Exits>,
}

/// How long a signal has to arrive before it is sent again: it may come just before the guest is entered.
const RESEND: Duration = Duration::from_millis(1);

impl Vm {
    /// Makes `count` processors and starts their threads paused.
    ///
    /// # Errors
    /// When a step fails, or the host emulates ring-0 code.
    pub fn start_processors(
        &self,
        count: u8,
        beginning: &Beginning<'_>,
        probe: Probe,
        guest: &Arc<dyn Guest>,
        report: &Reporter,
    ) -> Result<Vec<VcpuThread>, KvmError> {
        signal::set_up()?;
        let mut vcpus = (0..count)
            .map(|id| self.processor(id, count))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(first) = vcpus.first_mut() {
            if probe == Probe::Check {
                self.probe(&mut first.fd)?.check()?;
            }
            if let Beginning::Boot(entry) = beginning {
                registers::set_entry(&first.fd, *entry)?;
            }
        }
        if let Beginning::Restored(states) = beginning {
            for (vcpu, state) in vcpus.iter().zip(*states) {
                let own = cpuid::of(&self.cpuid, self.description(vcpu.id, count))?;
                state::restore(&vcpu.fd, own.as_slice(), state)?;
            }
        }
        vcpus
            .into_iter()
            .map(|vcpu| VcpuThread::start(vcpu, guest.clone(), report.clone()))
            .collect()
    }

    /// Measures the host's KVM on a machine of its own.
    ///
    /// # Errors
    /// When it cannot run anything.
    pub fn speed(&self) -> Result<Speed, KvmError> {
        let mut vcpu = self.processor(0, 1)?;
        self.probe(&mut vcpu.fd)
    }

    fn processor(&self, id: u8, count: u8) -> Result<Vcpu, KvmError> {
        let fd = self
            .fd
            .create_vcpu(id.into())
            .map_err(failed("make a processor"))?;
        let description = self.description(id, count);
        fd.set_cpuid2(&cpuid::of(&self.cpuid, description)?)
            .map_err(failed("describe a processor"))?;
        registers::set_common(&fd)?;
        lapic::set_pins(&fd)?;
        let exits = Arc::default();
        Ok(Vcpu {
            fd,
            id,
            exits,
            in_access: false,
        })
    }

    fn description(&self, id: u8, count: u8) -> Processor {
        Processor {
            id,
            count,
            tsc_deadline: self.tsc_deadline,
        }
    }
}

impl VcpuThread {
    fn start(vcpu: Vcpu, guest: Arc<dyn Guest>, report: Reporter) -> Result<Self, KvmError> {
        let control = Arc::new(Control::default());
        let exits = vcpu.exits.clone();
        let own = control.clone();
        let thread = Builder::new()
            .name(format!("vcpu{}", vcpu.id))
            .spawn(move || vcpu.run(&*guest, &own, &report))
            .map_err(KvmError::Thread)?;
        Ok(Self {
            thread,
            control,
            exits,
        })
    }

    /// Lets the processor run.
    pub fn resume(&self) {
        self.control.want(Wanted::Run);
    }

    /// Returns when the processor is outside the guest, and stays there until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.bring_out(Wanted::Pause);
    }

    /// Has the thread of a paused processor do something with it.
    ///
    /// # Errors
    /// When the processor has stopped for ever.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut VcpuFd) -> T + Send + 'static,
    ) -> Result<T, KvmError> {
        let (sender, receiver) = channel();
        self.control.ask(Box::new(move |vcpu| {
            // Nobody has gone: we wait below.
            let _ = sender.send(job(vcpu));
        }));
        receiver.recv().map_err(|_| KvmError::Gone)
    }

    /// Tells the guest's clock, if it uses KVM's, that it was paused: its watchdogs then do not bark.
    pub fn tell_paused(&self) {
        // A guest that does not use the clock is an error.
        let _ = self.ask(|vcpu| vcpu.kvmclock_ctrl());
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.bring_out(Wanted::Stop);
        let _ = self.thread.join();
    }

    /// How often it left the guest.
    #[must_use]
    pub fn exits(&self) -> &Exits {
        &self.exits
    }

    fn bring_out(&self, wanted: Wanted) {
        self.control.want(wanted);
        while !self.control.is_out(RESEND) {
            // A thread that has ended cannot be signalled, and is out.
            if self.thread.is_finished() || self.thread.kill(signal::number()).is_err() {
                return;
            }
        }
    }
}

impl Vcpu {
    fn run(mut self, guest: &dyn Guest, control: &Control<VcpuFd>, tell: &Reporter) {
        let _out_at_the_end = control.out_at_the_end();
        if let Err(error) = system_calls::enter_processor() {
            tell(Report {
                processor: self.id,
                stopped: Stopped::unconfined(&error),
            });
            control.hold();
            return;
        }
        loop {
            let called = control.is_called();
            let turn = match called {
                true => self.finish_access(guest),
                false => self.enter(guest),
            };
            if let Err(stopped) = turn {
                let report = Report {
                    processor: self.id,
                    stopped: stopped.with_registers(&self.fd),
                };
                tell(report);
                control.hold();
            }
            if called && !control.may_run(&mut self.fd) {
                break;
            }
        }
        tracing::debug!(
            processor = self.id,
            exits = ?self.exits,
            registers = failure::registers(&self.fd),
            "a processor ends"
        );
    }

    /// Has KVM finish an access that was served, and run no more of the guest. It does that only when it is
    /// entered again (Linux Documentation/virt/kvm/api.rst, 5): a copy of what it tells before would do the
    /// access once more.
    fn finish_access(&mut self, guest: &dyn Guest) -> Result<(), Stopped> {
        self.fd.set_kvm_immediate_exit(1);
        let mut finished = Ok(());
        // An access may have several parts.
        while self.in_access && finished.is_ok() {
            finished = self.enter(guest);
        }
        self.fd.set_kvm_immediate_exit(0);
        finished
    }

    /// Runs the guest until it needs something, and serves that.
    fn enter(&mut self, guest: &dyn Guest) -> Result<(), Stopped> {
        let exits = &self.exits;
        self.in_access = true;
        match self.fd.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                count(&exits.ports);
                guest.read_port(port, data);
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                count(&exits.ports);
                guest.write_port(port, data);
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                count(&exits.memory);
                guest.read_memory(address, data);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                count(&exits.memory);
                guest.write_memory(address, data);
            }
            no_access => {
                self.in_access = false;
                return went_on(no_access, exits);
            }
        }
        Ok(())
    }
}

/// Whether the guest goes on after what is no access.
fn went_on(exit: Result<VcpuExit<'_>, kvm_ioctls::Error>, exits: &Exits) -> Result<(), Stopped> {
    match exit {
        Ok(VcpuExit::Intr) => count(&exits.signals),
        Ok(VcpuExit::IrqWindowOpen) => count(&exits.others),
        Ok(exit) => return Err(Stopped::by(&exit)),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            count(&exits.signals);
        }
        Err(error) => return Err(Stopped::failed(error)),
    }
    Ok(())
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
