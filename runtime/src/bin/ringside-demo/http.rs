//! Just enough HTTP to fetch a page.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(30);

/// Fetches `/` from a port of the host's loopback and returns the body.
pub(crate) fn fetch(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot connect to 127.0.0.1:{port}"))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .context("cannot set a timeout")?;
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: guest\r\n\r\n")
        .context("cannot send a request to the guest")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("no answer from the guest")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is no HTTP")?;
    ensure!(
        head.starts_with("HTTP/1.1 200 "),
        "nginx answered {}",
        head.lines().next().unwrap_or("")
    );
    Ok(body.to_owned())
}
