//! Builds the slim guest kernel into the cache and says where it is: `make guest-kernel`.

use std::error::Error;
use std::time::Instant;

use guest_image::{Cache, Kernel};

fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::open_default()?;
    let start = Instant::now();
    let kernel = Kernel::build_slim(&cache)?;
    println!(
        "{} ({} s)",
        kernel.vmlinux(&cache)?.display(),
        start.elapsed().as_secs()
    );
    Ok(())
}
