//! Disks that come and go while a machine runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::PodError;
use crate::hypervisor::{DiskDevice, ROOT_PORTS};

/// How long a hypervisor may take for an order, and a guest to let go of a device.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether the guest has let go.
const PAUSE: Duration = Duration::from_millis(20);
/// Most bytes of an answer: a hypervisor is a guest's, if the guest has broken out.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Whom to ask for a device.
#[derive(Debug, Clone)]
pub(crate) enum Orders {
    /// `ringside-vmm`'s socket: HTTP and JSON (docs/vmm-api.yaml).
    Ringside(PathBuf),
    /// QEMU's socket: QMP (docs/interop/qmp-spec.txt there).
    Qemu(PathBuf),
}

impl Orders {
    /// Plugs a disk in, whose daemon listens, as device `id`; `port` is one of QEMU's free ones.
    pub(crate) async fn add(
        &self,
        id: &str,
        disk: &DiskDevice,
        port: usize,
    ) -> Result<(), PodError> {
        let order = async {
            match self {
                Self::Ringside(path) => {
                    let device =
                        json!({"disk": {"socket": disk.socket, "queues": disk.queues, "id": id}});
                    http(path, "POST", "/v1/devices", &device.to_string()).await?;
                }
                Self::Qemu(path) => add_to_qemu(path, id, disk, port).await?,
            }
            Ok(())
        };
        within("plugging a disk in", order).await
    }

    /// Asks the guest to let go of a device, and waits until it has.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), PodError> {
        let order = async {
            match self {
                Self::Ringside(path) => {
                    http(path, "DELETE", &format!("/v1/devices/{id}"), "").await?;
                    while is_there(&http(path, "GET", "/v1/devices", "").await?, id) {
                        sleep(PAUSE).await;
                    }
                    Ok(())
                }
                Self::Qemu(path) => remove_from_qemu(path, id).await,
            }
        };
        within("unplugging a disk", order).await
    }

    /// Whether a device is there: the hypervisor was asked for it, and the guest has not let go of it.
    pub(crate) async fn has(&self, id: &str) -> Result<bool, PodError> {
        let question = async {
            match self {
                Self::Ringside(path) => {
                    Ok(is_there(&http(path, "GET", "/v1/devices", "").await?, id))
                }
                Self::Qemu(path) => Qmp::connect(path).await?.has(id).await,
            }
        };
        within("asking for the disks", question).await
    }
}

/// How many disks can be there at once: QEMU's board has so many ports that nothing was plugged into.
pub(crate) const MOST_DISKS: usize = ROOT_PORTS;

async fn within<T>(
    what: &'static str,
    order: impl Future<Output = Result<T, String>>,
) -> Result<T, PodError> {
    let late = |_| {
        Err(format!(
            "nothing happened in {} seconds",
            PATIENCE.as_secs()
        ))
    };
    let done = timeout(PATIENCE, order).await.unwrap_or_else(late);
    done.map_err(|reason| PodError::Plug { what, reason })
}

/// One order to our VMM; returns the answer's body.
async fn http(socket: &Path, method: &str, path: &str, body: &str) -> Result<String, String> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: vmm\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream
            .take(LONGEST_ANSWER)
            .read_to_string(&mut answer)
            .await?;
        std::io::Result::Ok(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        Ok(body.to_owned())
    } else {
        Err(format!("ringside-vmm answers {status}: {}", body.trim()))
    }
}

fn is_there(devices: &str, id: &str) -> bool {
    let devices: Value = serde_json::from_str(devices).unwrap_or_default();
    let mut all = devices.as_array().into_iter().flatten();
    all.any(|device| device["id"] == id)
}

async fn add_to_qemu(path: &Path, id: &str, disk: &DiskDevice, port: usize) -> Result<(), String> {
    let mut qmp = Qmp::connect(path).await?;
    let chardev = format!("chardev-{id}");
    let address = json!({"type": "unix", "data": {"path": disk.socket}});
    let socket = json!({"addr": address, "server": false, "reconnect": 1});
    qmp.order(
        "chardev-add",
        json!({"id": chardev, "backend": {"type": "socket", "data": socket}}),
    )
    .await?;
    let device = json!({
        "driver": "vhost-user-blk-pci", "id": id, "chardev": chardev, "num-queues": disk.queues,
        "bus": format!("port{port}")
    });
    let added = qmp.order("device_add", device).await;
    if added.is_err() {
        // It was of no use.
        let _ = qmp.order("chardev-remove", json!({"id": chardev})).await;
    }
    added.map(drop)
}

async fn remove_from_qemu(path: &Path, id: &str) -> Result<(), String> {
    let mut qmp = Qmp::connect(path).await?;
    qmp.order("device_del", json!({"id": id})).await?;
    let deadline = Instant::now() + PATIENCE;
    // The event may have come between two looks: what there is counts.
    while Instant::now() < deadline && qmp.has(id).await? {
        sleep(PAUSE).await;
    }
    let chardev = format!("chardev-{id}");
    qmp.order("chardev-remove", json!({"id": chardev})).await?;
    Ok(())
}

/// A session with QEMU.
struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    async fn connect(path: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let mut qmp = Self {
            stream: BufReader::new(stream),
        };
        // The greeting.
        qmp.line().await?;
        qmp.order("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    async fn order(&mut self, name: &str, arguments: Value) -> Result<Value, String> {
        let order = json!({"execute": name, "arguments": arguments}).to_string();
        let sent = self.stream.get_mut().write_all(order.as_bytes()).await;
        sent.map_err(|error| error.to_string())?;
        loop {
            let mut answer = self.line().await?;
            if let Some(done) = answer.get_mut("return") {
                return Ok(done.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(format!("QEMU's {name}: {}", error["desc"]));
            }
            // An event.
        }
    }

    async fn has(&mut self, device: &str) -> Result<bool, String> {
        let list = json!({"path": "/machine/peripheral"});
        let there = self.order("qom-list", list).await?;
        let mut names = there.as_array().into_iter().flatten();
        Ok(names.any(|it| it["name"] == device))
    }

    async fn line(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        let mut bounded = (&mut self.stream).take(LONGEST_ANSWER);
        let read = bounded.read_line(&mut line).await;
        let read = read.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("QEMU closed the connection".to_owned());
        }
        serde_json::from_str(&line).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Plays a hypervisor that answers each line, or each request, with the next of `answers`.
    pub(crate) async fn played(
        answers: &'static [&'static str],
        qmp: bool,
    ) -> (tempfile::TempDir, Orders) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let mut answers = answers.iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                if qmp {
                    stream.write_all(b"{\"QMP\": {}}\n").await.unwrap();
                }
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request).await {
                    let Some(answer) = answers.next() else { return };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if !qmp {
                        break;
                    }
                }
            }
        });
        let orders = if qmp {
            Orders::Qemu(path)
        } else {
            Orders::Ringside(path)
        };
        (folder, orders)
    }

    fn disk() -> DiskDevice {
        DiskDevice {
            socket: "/d".into(),
            queues: 1,
        }
    }

    #[tokio::test]
    async fn a_refusal_has_the_hypervisors_words() {
        let answers: &[&str] = &[
            "{\"return\": {}}\n",
            "{\"event\": \"X\"}\n{\"return\": {}}\n",
            "{\"error\": {\"desc\": \"no such bus\"}}\n",
            "{\"return\": {}}\n",
        ];
        let (_folder, qemu) = played(answers, true).await;
        let error = qemu.add("d1", &disk(), 0).await.unwrap_err().to_string();
        assert!(error.contains("no such bus"), "{error}");
        let answers: &[&str] = &["HTTP/1.1 409 Conflict\r\n\r\n{\"error\": \"no place\"}"];
        let (_folder, ours) = played(answers, false).await;
        let error = ours.add("d1", &disk(), 0).await.unwrap_err().to_string();
        assert!(
            error.contains("409") && error.contains("no place"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_disk_is_gone_when_the_guest_has_let_go() {
        let answers: &[&str] = &[
            "HTTP/1.1 202 Accepted\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n[{\"id\": \"d1\"}]",
            "HTTP/1.1 200 OK\r\n\r\n[{\"id\": \"d2\"}]",
        ];
        let (_folder, ours) = played(answers, false).await;
        ours.remove("d1").await.unwrap();
        // Nobody answers any more.
        assert!(matches!(&ours, Orders::Ringside(path) if path.exists()));
    }
}
