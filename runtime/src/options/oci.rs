//! The command line of OCI runtimes, as runc has it and container engines call it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::UpdateOptions;

/// Options before the verb, which engines give to any OCI runtime.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalOptions {
    /// Where the state of OCI containers is [default: /run/ringside/oci, an ordinary user's: $XDG_RUNTIME_DIR/ringside/oci]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append errors of OCI verbs to this file, besides standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How that file is written
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Accepted for engines' sake: the guest's agent makes the cgroups, and systemd of the host has no part in it
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Log more of what the shim does, see `ringside logs`
    #[arg(long)]
    pub debug: bool,
}

/// How errors are written to `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// `time="..." level=error msg="..."`
    #[default]
    Text,
    /// One object on a line: `level`, `msg`, `time`
    Json,
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ListFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// What an OCI runtime does.
#[derive(Debug, Subcommand)]
pub enum OciCommand {
    /// Make a container of a bundle: its machine runs, its program does not yet
    Create(CreateOptions),
    /// Run the program of a created container
    Start(IdOptions),
    /// Print a container's state as the OCI runtime specification has it
    State(IdOptions),
    /// Send a signal to a container's first process
    Kill(KillOptions),
    /// Remove a container that has stopped or was not started
    Delete(DeleteOptions),
    /// Run one more process in a running container
    Exec(ExecOptions),
    /// List a container's processes, by their ids in the guest
    Ps(PsOptions),
    /// Stop all processes of a container where they are
    Pause(IdOptions),
    /// Let a paused container go on
    Resume(IdOptions),
    /// Change what a container may use
    Update(UpdateOptions),
    /// Print what a container uses, and when it runs out of memory, one JSON object on a line
    Events(EventsOptions),
    /// Write a config.json to begin with
    Spec(SpecOptions),
    /// Print what this runtime can do, as the OCI runtime specification has it
    Features,
    /// List containers made by `ringside create`
    List(ListOptions),
    /// Print what a container's shim, daemons, hypervisor and guest have logged
    Logs(IdOptions),
    /// Print the metrics of a container's pod: daemons, machine and container, as Prometheus text
    Metrics(IdOptions),
    /// Stand on the host for one process in a guest: what create and exec start
    #[command(hide = true)]
    Hold(HoldOptions),
}

/// A container.
#[derive(Debug, Args)]
pub struct IdOptions {
    /// The container's id
    pub id: String,
}

/// Options of `ringside create`.
#[derive(Debug, Args)]
pub struct CreateOptions {
    /// The directory with config.json
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
    /// Write the id of the process that stands for the container on the host to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the terminal of the container through this unix socket, for `process.terminal`
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Descriptors to pass on: only 0, for none can enter a machine
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// Accepted: the root is shared with a machine, which has a root of its own
    #[arg(long)]
    pub no_pivot: bool,
    /// Accepted: there is no session keyring to make on the host
    #[arg(long)]
    pub no_new_keyring: bool,
    /// The container's id
    pub id: String,
}

/// Options of `ringside kill`.
#[derive(Debug, Args)]
pub struct KillOptions {
    /// Send it to all processes of the container
    #[arg(short, long)]
    pub all: bool,
    /// The container's id
    pub id: String,
    /// A name or a number, as TERM, SIGTERM or 15
    #[arg(default_value = "TERM")]
    pub signal: String,
}

/// Options of `ringside delete`.
#[derive(Debug, Args)]
pub struct DeleteOptions {
    /// End it first if it runs; one that does not exist is no error
    #[arg(short, long)]
    pub force: bool,
    /// The container's id
    pub id: String,
}

/// Options of `ringside exec`.
#[derive(Debug, Args)]
pub struct ExecOptions {
    /// A terminal for the process
    #[arg(short, long)]
    pub tty: bool,
    /// Return when the process has started
    #[arg(short, long)]
    pub detach: bool,
    /// Send the process's terminal through this unix socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the id of the process that stands for it on the host to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// A `process` object of config.json, instead of the container's with another command
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Set a variable (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// User and group, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Descriptors to pass on: only 0, for none can enter a machine
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// The container's id
    pub id: String,
    /// The command, unless --process has it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Options of `ringside ps`.
#[derive(Debug, Args)]
pub struct PsOptions {
    /// How
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: ListFormat,
    /// The container's id
    pub id: String,
}

/// Options of `ringside events`.
#[derive(Debug, Args)]
pub struct EventsOptions {
    /// Print what it uses once, and end
    #[arg(long)]
    pub stats: bool,
    /// Seconds between two prints
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub interval: u64,
    /// The container's id
    pub id: String,
}

/// `5` or, as runc has it, `5s`.
fn seconds(text: &str) -> Result<u64, &'static str> {
    let number = text.strip_suffix('s').unwrap_or(text).parse();
    number
        .ok()
        .filter(|it| (1..=86_400).contains(it))
        .ok_or("a number of seconds from 1 to 86400")
}

/// Options of `ringside spec`.
#[derive(Debug, Args)]
pub struct SpecOptions {
    /// Where config.json goes
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
}

/// Options of `ringside list`.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// How
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Ids alone
    #[arg(short, long)]
    pub quiet: bool,
}

/// Options of `ringside hold`.
#[derive(Debug, Args)]
pub struct HoldOptions {
    /// The descriptor that is told how it went
    #[arg(long)]
    pub report: u32,
    /// The further process, whose `process` object is in the directory of this name
    #[arg(long)]
    pub exec: Option<String>,
    /// Where its terminal is sent
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// The container's id
    pub id: String,
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn parse(line: &str) -> (GlobalOptions, OciCommand) {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Oci(command) = cli.command else {
            panic!("{line} is no OCI verb");
        };
        (cli.global, command)
    }

    #[test]
    fn what_conmon_says_is_understood() {
        let (global, command) = parse(
            "ringside --systemd-cgroup --root /r --log /l --log-format=json create --bundle /b --pid-file /p \
             --console-socket /s c1",
        );
        assert_eq!(global.log_format, LogFormat::Json);
        assert!(global.systemd_cgroup && global.root == Some("/r".into()));
        let OciCommand::Create(create) = command else {
            panic!("{command:?}");
        };
        assert_eq!((create.id.as_str(), create.bundle), ("c1", "/b".into()));
        let (_, command) = parse("ringside exec --pid-file /p --process /f --tty --detach c1");
        let OciCommand::Exec(exec) = command else {
            panic!("{command:?}");
        };
        assert!(exec.tty && exec.detach && exec.command.is_empty());
        let (_, command) = parse("ringside exec c1 ls -la --color");
        let OciCommand::Exec(exec) = command else {
            panic!("{command:?}");
        };
        assert_eq!(exec.command, ["ls", "-la", "--color"]);
    }

    #[test]
    fn intervals_are_seconds() {
        assert_eq!((seconds("5s"), seconds("7")), (Ok(5), Ok(7)));
        assert!(seconds("0").is_err() && seconds("5m").is_err());
    }
}
