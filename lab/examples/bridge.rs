//! Mounts a file system daemon on the host until standard input ends:
//! `cargo run --release -p lab --example bridge -- SOCKET DIRECTORY [QUEUES]`

use std::error::Error;
use std::io::Read;
use std::path::PathBuf;

use lab::bridge::Bridge;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(socket), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bridge SOCKET DIRECTORY [QUEUES]".into());
    };
    let queues = arguments
        .next()
        .map_or(Ok(1), |it| it.to_string_lossy().parse())?;
    let bridge = Bridge::new(&socket).queues(queues).mount(&directory)?;
    println!("{}: {:?}", directory.display(), bridge.init());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    bridge.unmount()?;
    Ok(())
}
