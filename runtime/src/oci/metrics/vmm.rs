//! What our VMM counts: it tells on its socket for orders (docs/vmm-api.yaml, `/metrics`).

use std::io::{Error, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{LONGEST, PATIENCE};

const REQUEST: &str = "GET /v1/metrics HTTP/1.1\r\nHost: vmm\r\nConnection: close\r\n\r\n";

/// Its page. An answer is read up to [`LONGEST`]: a guest that has broken out would send it.
pub(super) fn ask(socket: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => {
            let line = head.lines().next().unwrap_or_default();
            Err(Error::other(format!("the VMM answers {line:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Answers one request with this.
    fn answered(answer: &'static str) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmm.api");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            assert!(request.starts_with(b"GET /v1/metrics HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let page = ask(&path);
        vmm.join().unwrap();
        page
    }

    #[test]
    fn a_page_is_what_follows_the_head() {
        let page = answered("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n");
        assert_eq!(page.unwrap(), "a 1\n");
        for wrong in ["HTTP/1.1 404 Not Found\r\n\r\nno", "nonsense", ""] {
            assert!(answered(wrong).is_err(), "{wrong}");
        }
    }
}
