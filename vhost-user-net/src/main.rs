//! vhost-user network device daemon.

use std::process::ExitCode;

use clap::Parser;
use vhost_daemon::sandbox::close_inherited;
use vhost_daemon::{daemon, log};
use vhost_user_net::options::{CAPABILITIES, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.common.print_capabilities {
        println!("{CAPABILITIES}");
        return ExitCode::SUCCESS;
    }
    // Whoever starts the daemon may have left a way out open.
    close_inherited(&options.inherited());
    if let Err(error) = log::start(&options.common.log_level) {
        return daemon::exit_code("vhost-user-net", Err(error));
    }
    daemon::exit_code("vhost-user-net", vhost_user_net::run(options))
}
