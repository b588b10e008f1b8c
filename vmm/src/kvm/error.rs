use thiserror::Error;

/// Why KVM does not run the guest.
#[derive(Debug, Error)]
pub enum KvmError {
    /// The kernel does not keep memory out of core dumps.
    #[error("the guest's memory cannot be kept out of core dumps")]
    Dumps(#[source] rustix::io::Errno),
    /// No /dev/kvm, or not for this user.
    #[error("cannot open /dev/kvm ({0}); is KVM there, and may this user open it?")]
    Open(kvm_ioctls::Error),
    /// A kernel before 2.6.22, or something else.
    #[error("/dev/kvm speaks API version {0}, not 12")]
    ApiVersion(i32),
    /// The kernel lacks something.
    #[error("this kernel's KVM has no {0}")]
    Missing(&'static str),
    /// More processors than the kernel gives.
    #[error("--cpus {wanted}: this host's KVM gives a guest at most {most}")]
    Processors {
        /// What was asked for.
        wanted: u8,
        /// What there is.
        most: usize,
    },
    /// A step failed.
    #[error("KVM cannot {step}: {source}")]
    Step {
        /// The step.
        step: &'static str,
        /// Why; a plain number from the kernel, so shown with the message.
        source: kvm_ioctls::Error,
    },
    /// KVM took only a part of the model-specific registers.
    #[error("KVM does not take model-specific register {0:#x}")]
    Msr(u32),
    /// A snapshot of another kind of host.
    #[error("the snapshot's processor is not this host's, as its CPUID says")]
    OtherProcessor,
    /// A list that is longer than KVM's.
    #[error("KVM does not take {0} {1}")]
    TooMany(usize, &'static str),
    /// The probe's code cannot be written.
    #[error("the guest has no memory for the probe")]
    ProbeMemory(#[source] vm_memory::GuestMemoryError),
    /// The probe did something else than count.
    #[error("the probe stopped with {0} instead of counting")]
    ProbeExit(String),
    /// Ring-0 code is emulated.
    #[error(
        "/dev/kvm here emulates the guest's kernel at {millions} million instructions a second: no stock kernel boots on it, run on a host whose KVM is native"
    )]
    Emulated {
        /// Million instructions a second.
        millions: u64,
    },
    /// A processor cannot go on, so it answers nothing.
    #[error("a processor has stopped")]
    Gone,
    /// A thread could not be started.
    #[error("no thread for a processor")]
    Thread(#[source] std::io::Error),
    /// The signal that stops processors could not be set up.
    #[error("cannot set up the signal that stops processors: {0}")]
    Signal(vmm_sys_util::errno::Error),
}

/// Names the step that failed.
pub(super) fn failed(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |source| KvmError::Step { step, source }
}
