//! The shim's command line. containerd sets it (runtime v2, "Shim Authoring"), and the library that reads it knows no
//! clap: it is described here for its manual page.

use clap::{Arg, Command};

/// What containerd may say to a shim.
pub(crate) fn command() -> Command {
    let option = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    let action = |name, about| Command::new(name).about(about);
    Command::new("containerd-shim-ringside-v2")
        .version(env!("CARGO_PKG_VERSION"))
        .about("containerd's tasks in virtual machines, one for each pod; containerd and ringside create start it")
        .arg(option("namespace", "NAME", "containerd's namespace"))
        .arg(option("id", "ID", "The container that the pod begins with"))
        .arg(option("bundle", "DIR", "Its bundle, which is the working directory"))
        .arg(option("socket", "ADDRESS", "Where the task service is served, as unix:///run/s"))
        .arg(option("address", "PATH", "containerd's own socket"))
        .arg(option("publish-binary", "PATH", "Not used: events go to the address in TTRPC_ADDRESS"))
        .arg(
            Arg::new("debug")
                .long("debug")
                .num_args(0)
                .help("Log more; RINGSIDE_LOG says what"),
        )
        .subcommand(action("start", "Start the shim of the bundle's pod, or find it, and print its address"))
        .subcommand(action("delete", "Remove what a shim left that was killed"))
}
