//! What there is under which address. `docs/vmm-api.yaml` describes the same; a test compares them.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::http::{METRICS, Request, Response, Status};
use crate::machine::{Answer, Command, Controller, MachineError, Refusal, SnapshotOrder};
use crate::options::{DeviceDescription, Size, parse_device};

/// Who carries out what the API is asked for.
pub trait Target {
    /// Waits until the order is carried out.
    ///
    /// # Errors
    /// When it cannot be.
    fn order(&self, command: Command) -> Result<Answer, Refusal>;
    /// Connects to a device's daemon, and plugs it in.
    ///
    /// # Errors
    /// When that cannot be done.
    fn add(&self, device: DeviceDescription) -> Result<Answer, Refusal>;
}

impl Target for Controller {
    fn order(&self, command: Command) -> Result<Answer, Refusal> {
        Self::order(self, command)
    }

    fn add(&self, device: DeviceDescription) -> Result<Answer, Refusal> {
        Self::add(self, device)
    }
}

/// What a route does with a request; the text is what stands in the place of `{...}` in its path.
type Handler = fn(&dyn Target, &str, &[u8]) -> Response;

/// A method on a path.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    handler: Handler,
}

/// All of them.
pub(super) const ROUTES: &[Route] = &[
    route("GET", "/v1/info", |target, _, _| {
        order(target, Command::Info)
    }),
    route("POST", "/v1/pause", |target, _, _| {
        order(target, Command::Pause)
    }),
    route("POST", "/v1/resume", |target, _, _| {
        order(target, Command::Resume)
    }),
    route("POST", "/v1/shutdown", |target, _, _| {
        order(target, Command::PressPowerButton)
    }),
    route("POST", "/v1/reset", |target, _, _| {
        order(target, Command::Reset)
    }),
    route("POST", "/v1/quit", |target, _, _| {
        order(target, Command::Quit)
    }),
    route("GET", "/v1/devices", |target, _, _| {
        order(target, Command::Devices)
    }),
    route("POST", "/v1/devices", |target, _, body| add(target, body)),
    route("DELETE", "/v1/devices/{id}", |target, id, _| {
        order(target, Command::Remove(id.to_owned()))
    }),
    route("GET", "/v1/memory", |target, _, _| {
        order(target, Command::Memory)
    }),
    route("PUT", "/v1/memory", |target, _, body| memory(target, body)),
    route("POST", "/v1/snapshot", |target, _, body| {
        snapshot(target, body)
    }),
    route("GET", "/metrics", |target, _, _| {
        order(target, Command::Metrics)
    }),
];

const fn route(method: &'static str, path: &'static str, handler: Handler) -> Route {
    Route {
        method,
        path,
        handler,
    }
}

/// Finds the route and takes it.
pub(super) fn answer(target: &dyn Target, request: &Request<'_>) -> Response {
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(parameter) = route.parameter(request.path) else {
            continue;
        };
        if route.method == request.method {
            return (route.handler)(target, parameter, request.body);
        }
        allowed.push(route.method);
    }
    if allowed.is_empty() {
        return Response::refusal(Status::NotFound, "there is nothing under this address");
    }
    let allow = allowed.join(", ");
    let sentence = format!("this address takes only {allow}");
    Response {
        allow: Some(allow),
        ..Response::refusal(Status::MethodNotAllowed, &sentence)
    }
}

impl Route {
    /// What stands in the place of the path's last segment, `{...}`; nothing where it has none.
    fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.split_once('{') {
            None => (path == self.path).then_some(""),
            Some((before, _)) => {
                let rest = path.strip_prefix(before)?;
                (!rest.is_empty() && !rest.contains('/')).then_some(rest)
            }
        }
    }
}

fn add(target: &dyn Target, body: &[u8]) -> Response {
    match parse_device(body) {
        Ok(device) => response(target.add(device)),
        Err(error) => Response::error(Status::BadRequest, &error),
    }
}

/// `{"folder": "/path", "live": true}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SnapshotBody {
    folder: PathBuf,
    #[serde(default)]
    live: bool,
    #[serde(default)]
    stay_paused: bool,
}

fn snapshot(target: &dyn Target, body: &[u8]) -> Response {
    let command = |body: SnapshotBody| {
        Command::Snapshot(SnapshotOrder {
            folder: body.folder,
            live: body.live,
            stay_paused: body.stay_paused,
        })
    };
    order_of(target, body, command)
}

/// `{"balloon": "64M"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryOrder {
    balloon: Size,
}

fn memory(target: &dyn Target, body: &[u8]) -> Response {
    let command = |order: MemoryOrder| Command::Balloon(order.balloon.0);
    order_of(target, body, command)
}

/// The order that a body of JSON asks for.
fn order_of<T: DeserializeOwned>(
    target: &dyn Target,
    body: &[u8],
    command: fn(T) -> Command,
) -> Response {
    match serde_json::from_slice(body) {
        Ok(asked) => order(target, command(asked)),
        Err(error) => Response::error(Status::BadRequest, &error),
    }
}

fn order(target: &dyn Target, command: Command) -> Response {
    response(target.order(command))
}

fn response(result: Result<Answer, Refusal>) -> Response {
    match result {
        Ok(Answer::Done) => Response::empty(Status::NoContent),
        Ok(Answer::Begun) => Response::empty(Status::Accepted),
        Ok(Answer::Info(info)) => Response::json(Status::Ok, &info),
        Ok(Answer::Devices(devices)) => Response::json(Status::Ok, &devices),
        Ok(Answer::Added(device)) => Response::json(Status::Created, &device),
        Ok(Answer::Copied(copied)) => Response::json(Status::Ok, &copied),
        Ok(Answer::Memory(memory)) => Response::json(Status::Ok, &memory),
        Ok(Answer::Metrics(body)) => Response {
            kind: METRICS,
            body,
            ..Response::empty(Status::Ok)
        },
        Err(refusal) => Response::error(status(&refusal), &refusal),
    }
}

fn status(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NoDevice(_) => Status::NotFound,
        Refusal::SameId(_)
        | Refusal::SecondVsock
        | Refusal::Busy(_)
        | Refusal::Ended
        | Refusal::NoBalloon
        | Refusal::Ending
        | Refusal::Unlogged
        | Refusal::Save { .. }
        | Refusal::Snapshot(_) => Status::Conflict,
        Refusal::Device { .. } | Refusal::LargeBalloon(_) => Status::BadRequest,
        Refusal::Machine(MachineError::Places) => Status::Conflict,
        Refusal::Machine(_) | Refusal::Kvm(_) | Refusal::Resident(_) | Refusal::Log(_) => {
            Status::Failed
        }
    }
}
