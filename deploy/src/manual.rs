//! From clap's description of each program to what is installed beside it.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};

/// Shells, where each looks below `share/`, and what it wants before and behind a program's name.
const SHELLS: [(Shell, &str, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "", ""),
    (Shell::Zsh, "zsh/site-functions", "_", ""),
    (Shell::Fish, "fish/vendor_completions.d", "", ".fish"),
];

/// A program and its command line.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its command line.
    pub command: Command,
}

/// All programs that are installed and read options.
#[must_use]
pub fn programs() -> Vec<Program> {
    let program = |name, command: Command| Program {
        name,
        command: command.name(name),
    };
    vec![
        program("ringside", ringside::options::Cli::command()),
        program("containerd-shim-ringside-v2", crate::shim::command()),
        program("ringside-vmm", vmm::options::Options::command()),
        program("virtiofsd", virtiofsd::options::Options::command()),
        program(
            "vhost-user-blk",
            vhost_user_blk::options::Options::command(),
        ),
        program(
            "vhost-user-net",
            vhost_user_net::options::Options::command(),
        ),
        program(
            "vhost-user-vsock",
            vhost_user_vsock::options::Options::command(),
        ),
    ]
}

/// Writes manual pages, completions and the default configuration below `prefix`, each where it is
/// installed: `share/man/man1`, `share/bash-completion/completions`, ..., `share/ringside/config.toml`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(prefix: &Path) -> io::Result<()> {
    let share = prefix.join("share");
    for mut program in programs() {
        manual(&share.join("man/man1"), &program)?;
        for (shell, folder, before, behind) in SHELLS {
            let folder = share.join(folder);
            fs::create_dir_all(&folder)?;
            // It panics on a writer's error: so it does not get a file.
            let mut script = Vec::new();
            generate(shell, &mut program.command, program.name, &mut script);
            let file = format!("{before}{}{behind}", program.name);
            fs::write(folder.join(file), script)?;
        }
    }
    fs::create_dir_all(share.join("ringside"))?;
    fs::write(
        share.join("ringside/config.toml"),
        ringside_config::default_file(),
    )
}

/// A page for the program, and one for each of its subcommands.
fn manual(folder: &Path, program: &Program) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let command = program.command.clone().disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder)
}
