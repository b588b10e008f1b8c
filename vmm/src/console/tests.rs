use std::os::unix::net::UnixStream;

use lab::scratch::Scratch;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn quit() -> Quit {
    Box::new(|| {})
}

#[test]
fn a_file_gets_everything() {
    let scratch = Scratch::new("console").unwrap();
    let path = scratch.join("log");
    let console = Console::open(&ConsoleConfig::File(path.clone()), quit()).unwrap();
    console.output().write_all(b"booted\n").unwrap();
    console.flush(LIMIT);
    assert_eq!(std::fs::read(path).unwrap(), b"booted\n");
}

#[test]
fn a_client_types_and_reads_and_another_follows() {
    let scratch = Scratch::new("console").unwrap();
    let path = scratch.join("console");
    drop(UnixListener::bind(&path).unwrap());
    let console = Console::open(&ConsoleConfig::Socket(path.clone()), quit()).unwrap();
    let (port, _interrupt) = SerialPort::new(console.output()).unwrap();
    let port = Arc::new(port);
    console.attach(&port);
    for round in 0..2 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(&[b'a' + round]).unwrap();
        // The port hears the client, then the client hears the port.
        while port.read(5) & 1 == 0 {
            sleep(FULL_PORT);
        }
        port.write(0, port.read(0) + 1);
        let mut heard = [0];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [b'b' + round]);
    }
}

#[test]
fn a_socket_in_use_is_not_taken_away() {
    let scratch = Scratch::new("console").unwrap();
    let path = scratch.join("console");
    let _other = UnixListener::bind(&path).unwrap();
    let error = Console::open(&ConsoleConfig::Socket(path), quit()).unwrap_err();
    assert!(error.to_string().contains("cannot listen on"), "{error}");
}
