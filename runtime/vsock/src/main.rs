//! vhost-user socket device daemon.

use std::process::ExitCode;

use clap::Parser;
use vhost_daemon::sandbox::close_inherited;
use vhost_daemon::{daemon, log};
use vhost_user_vsock::options::{CAPABILITIES, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.common.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    // Whoever starts the daemon may have left a way out open.
    let inherited: Vec<i32> = options.common.fd.into_iter().collect();
    close_inherited(&inherited);
    if let Err(error) = log::start(&options.common.log_level) {
        return daemon::exit_code("vhost-user-vsock", Err(error));
    }
    daemon::exit_code("vhost-user-vsock", vhost_user_vsock::run(options))
}
