//! Members of a pod whose shim is played here.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use containerd_shim_protos::api;
use containerd_shim_protos::shim_sync::{Task, create_task};
use containerd_shim_protos::ttrpc::{Code, Error, Server, TtrpcContext, get_status};
use ringside_pod::identity::Identity;

use super::super::OciError;
use super::super::state::{Entry, Record, StateRoot};
use crate::options::{DeleteOptions, GlobalOptions, LogFormat};

/// A shim with one container, which runs.
#[derive(Default)]
struct Played {
    ended: AtomicBool,
    forgotten: AtomicBool,
    /// It does not let the container go.
    stubborn: AtomicBool,
}

impl Played {
    fn check(&self, mends: bool, code: Code) -> Result<(), Error> {
        if self.forgotten.load(Ordering::Relaxed) {
            return Err(Error::RpcStatus(get_status(Code::NOT_FOUND, "no such")));
        }
        match mends {
            true => Ok(()),
            false => Err(Error::RpcStatus(get_status(code, "not so"))),
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }
}

impl Task for Played {
    fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> Result<api::Empty, Error> {
        self.check(!self.has_ended(), Code::NOT_FOUND)?;
        assert!(request.id == "member" && request.signal == 9 && request.all);
        self.ended.store(true, Ordering::Relaxed);
        Ok(api::Empty::new())
    }

    fn wait(&self, _: &TtrpcContext, _: api::WaitRequest) -> Result<api::WaitResponse, Error> {
        self.check(self.has_ended(), Code::DEADLINE_EXCEEDED)?;
        Ok(api::WaitResponse::new())
    }

    fn delete(
        &self,
        _: &TtrpcContext,
        _: api::DeleteRequest,
    ) -> Result<api::DeleteResponse, Error> {
        let goes = self.has_ended() && !self.stubborn.load(Ordering::Relaxed);
        self.check(goes, Code::FAILED_PRECONDITION)?;
        self.forgotten.store(true, Ordering::Relaxed);
        Ok(api::DeleteResponse::new())
    }
}

/// A pod with a member whose holder was killed.
struct Scene {
    _folder: tempfile::TempDir,
    root: StateRoot,
    member: Entry,
    shim: Arc<Played>,
    server: Option<Server>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = StateRoot::of(&GlobalOptions {
            root: Some(folder.path().join("oci")),
            log: None,
            log_format: LogFormat::Text,
            systemd_cgroup: false,
            debug: false,
        });
        let first = root.entry("first").unwrap();
        let member = root.entry("member").unwrap();
        first.make(&record(None)).unwrap();
        member.make(&record(Some("first"))).unwrap();
        let shim = Arc::new(Played::default());
        let mut server = Server::new()
            .bind(&format!("unix://{}", first.socket().display()))
            .unwrap()
            .register_service(create_task(Arc::clone(&shim) as Arc<dyn Task + Send + Sync>));
        server.start().unwrap();
        Self {
            _folder: folder,
            root,
            member,
            shim,
            server: Some(server),
        }
    }

    fn delete(&self) -> Result<(), OciError> {
        let options = DeleteOptions {
            force: false,
            id: self.member.id.clone(),
        };
        super::delete(&self.root, &options)
    }

    fn end_shim(&mut self) {
        self.server.take().unwrap().shutdown();
        std::fs::remove_file(self.root.entry("first").unwrap().socket()).unwrap();
    }
}

fn record(sandbox: Option<&str>) -> Record {
    Record {
        bundle: "/nowhere".into(),
        created: String::new(),
        owner: 0,
        oci_version: "1.0.2".into(),
        annotations: HashMap::new(),
        sandbox: sandbox.map(str::to_owned),
        holder: Some(killed()),
        is_made: true,
        exit: None,
    }
}

fn killed() -> Identity {
    let mut process = Command::new("sleep").arg("60").spawn().unwrap();
    let identity = Identity::of(process.id());
    process.kill().unwrap();
    process.wait().unwrap();
    identity
}

#[test]
fn a_member_whose_holder_is_gone_does_not_run_on() {
    let scene = Scene::new();
    scene.delete().unwrap();
    assert!(scene.shim.has_ended() && scene.shim.is_forgotten());
    assert!(!scene.member.path().exists());
}

#[test]
fn a_member_that_its_pod_keeps_stays_known() {
    let mut scene = Scene::new();
    scene.shim.stubborn.store(true, Ordering::Relaxed);
    let refused = scene.delete().unwrap_err();
    assert!(matches!(refused, OciError::Refused(_)), "{refused}");
    assert!(scene.member.path().exists());
    scene.end_shim();
    scene.delete().unwrap();
    assert!(!scene.member.path().exists());
}

#[test]
fn a_member_that_its_pod_has_forgotten_is_forgotten() {
    let scene = Scene::new();
    scene.shim.forgotten.store(true, Ordering::Relaxed);
    scene.delete().unwrap();
    assert!(!scene.member.path().exists());
}

#[test]
fn what_was_made_for_nobody_is_taken_back() {
    let scene = Scene::new();
    super::abandon(&scene.root, &scene.member).unwrap();
    assert!(scene.shim.is_forgotten() && !scene.member.path().exists());
}
