//! `ringside-lab`: runs a command where KVM is real.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lab::machine::{Error, Machine, Stopper, Streams};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// What timeout(1) answers when the time is over.
const TIMED_OUT: u8 = 124;
/// The lab itself failed.
const BROKEN: u8 = 125;

/// A throw-away machine with hardware virtualisation, on any host
#[derive(Debug, Parser)]
#[command(name = "ringside-lab", version)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Boot a machine, run a command in it, and end with its exit code
    Run(Run),
    /// Print what a process can still do: rights, namespaces, mounts, descriptors, system calls (as root)
    View {
        /// The process
        pid: u32,
        /// A path that is shown by a name of its own, as PATH=NAME (repeatable)
        #[arg(long, value_name = "PATH=NAME")]
        name: Vec<String>,
    },
}

/// Exit codes of the lab's own: 124 when the time is over, 125 when the machine fails, 126 and 127
/// when the command cannot be run or is not there, 128+N when signal N ended the lab.
#[derive(Debug, Args)]
struct Run {
    /// Directory of the host to share read-write (repeatable); changes elsewhere go with the machine
    #[arg(short, value_name = "DIR")]
    writable: Vec<PathBuf>,
    /// The machine's memory in MiB
    #[arg(short, value_name = "MB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// The machine's processors
    #[arg(short = 's', value_name = "CPUS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    cpus: u16,
    /// Time limit, from the machine's start to the command's end
    #[arg(short = 't', value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
    /// Further kernel module to load (repeatable)
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// Run the command on the host itself, where its KVM is native
    #[arg(long)]
    here: bool,
    /// Say how long the machine took until the command ran
    #[arg(short, long)]
    verbose: bool,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let run = match Options::parse().what {
        What::Run(run) => run,
        What::View { pid, name } => return view(pid, &name),
    };
    let ended = if run.here {
        run.machine().run_here()
    } else {
        in_machine(&run)
    };
    ended.unwrap_or_else(|error| explain(&error)).into()
}

fn view(pid: u32, names: &[String]) -> ExitCode {
    let names: Vec<(&Path, &str)> = names
        .iter()
        .filter_map(|name| name.split_once('='))
        .map(|(path, name)| (Path::new(path), name))
        .collect();
    match lab::view::view(pid, &names) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(format_args!("process {pid}: {error}"));
            BROKEN.into()
        }
    }
}

impl Run {
    fn machine(&self) -> Machine {
        let mut machine = Machine::new(self.command.clone())
            .memory_mib(self.memory)
            .cpus(self.cpus)
            .limit(Duration::from_secs(self.limit));
        for directory in &self.writable {
            machine = machine.writable(directory);
        }
        for module in &self.module {
            machine = machine.module(module);
        }
        machine
    }
}

fn in_machine(run: &Run) -> Result<u8, Error> {
    let stream = |fd| Stream::of(fd).map_err(Error::stream);
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let mut streams = Streams::new(stream(stdout.as_fd())?, stream(stderr.as_fd())?);
    // A terminal is for who sits at it: the command has none.
    if !io::stdin().is_terminal() {
        streams = streams.stdin(stream(io::stdin().as_fd())?);
    }
    let mut running = run.machine().start(streams)?;
    end_with_signals(running.stopper()).map_err(Error::stream)?;
    let ended = running.wait();
    if let (true, Some(ready)) = (run.verbose, running.ready()) {
        say(format_args!(
            "the command ran after {:.2} s",
            ready.as_secs_f64()
        ));
    }
    ended
}

fn explain(error: &Error) -> u8 {
    say(format_args!("{error:?}"));
    match error {
        Error::TimedOut { .. } | Error::TooSlowHere(_) => TIMED_OUT,
        Error::NotRun { code, .. } => *code,
        Error::Stopped(signal) => u8::try_from(128 + signal).unwrap_or(BROKEN),
        _ => BROKEN,
    }
}

/// Nobody may read it any more; that changes nothing.
fn say(words: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "ringside-lab: {words}");
}

fn end_with_signals(stopper: Stopper) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            stopper.stop(signal);
        }
    });
    Ok(())
}

/// A standard stream without a buffer. Whoever started us may have made it non-blocking, and that
/// is not ours to change.
struct Stream(File);

impl Stream {
    fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(fd.try_clone_to_owned()?.into()))
    }

    fn patiently(
        &self,
        until: PollFlags,
        mut attempt: impl FnMut(&File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match attempt(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A failed wait ends in another attempt.
                    let _ = poll(&mut [PollFd::new(&self.0, until)], None);
                }
                other => return other,
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::IN, |mut file| file.read(buffer))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::OUT, |mut file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
