//! The service of agent.proto: each call becomes one of the pod's.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use ringside_protocol::agent::blocking::{Agent, create_agent};
use ringside_protocol::agent::{
    AddEntropyRequest, ContainerRequest, CreateContainerRequest, Empty, EventsRequest,
    EventsResponse, ExecRequest, HelloRequest, HelloResponse, NetworkConfig, PidsResponse,
    ProcessRequest, ProcessResponse, ResizeRequest, SetClockRequest, SignalRequest,
    StartSandboxRequest, StatsResponse, UpdateRequest,
};
use ttrpc::{Server, TtrpcContext};

use super::lifecycle::process_name;
use super::{Pod, error, network, sandbox};
use crate::sys;

/// Threads that wait for a connection's requests: one more is started when fewer than the first number wait.
/// One call of `Events` always sits in one.
const THREADS: (usize, usize, usize) = (1, 2, 16);

/// A server that listens on this descriptor.
pub(super) fn server(pod: &Arc<Pod>, listener: RawFd) -> Result<Server> {
    let service = Service(Arc::clone(pod));
    let (fewest, usual, most) = THREADS;
    let server = Server::new()
        .register_service(create_agent(Arc::new(service)))
        .set_thread_count_min(fewest)
        .set_thread_count_default(usual)
        .set_thread_count_max(most);
    server
        .add_listener(listener)
        .map_err(|error| anyhow!("cannot serve: {error}"))
}

struct Service(Arc<Pod>);

/// An answer without content.
fn empty(done: error::Result<()>) -> ttrpc::Result<Empty> {
    done?;
    Ok(Empty::new())
}

fn started(pid: error::Result<u32>) -> ttrpc::Result<ProcessResponse> {
    let mut response = ProcessResponse::new();
    response.pid = pid?;
    Ok(response)
}

impl Agent for Service {
    fn hello(&self, _: &TtrpcContext, _: HelloRequest) -> ttrpc::Result<HelloResponse> {
        sys::heap::trim();
        Ok(sandbox::hello())
    }

    fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.0.start_sandbox(&request))
    }

    fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<ProcessResponse> {
        started(self.0.create(&request))
    }

    fn start_container(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<Empty> {
        empty(self.0.start(&request.container))
    }

    fn delete_container(
        &self,
        _: &TtrpcContext,
        request: ContainerRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.0.delete(&request.container))
    }

    fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> ttrpc::Result<ProcessResponse> {
        started(self.0.exec(&request))
    }

    fn delete_process(&self, _: &TtrpcContext, request: ProcessRequest) -> ttrpc::Result<Empty> {
        empty(
            self.0
                .delete_process(&process_name(&request.container, &request.exec)),
        )
    }

    fn signal(&self, _: &TtrpcContext, request: SignalRequest) -> ttrpc::Result<Empty> {
        empty(self.0.signal(&request))
    }

    fn resize(&self, _: &TtrpcContext, request: ResizeRequest) -> ttrpc::Result<Empty> {
        empty(self.0.resize(&request))
    }

    fn close_stdin(&self, _: &TtrpcContext, request: ProcessRequest) -> ttrpc::Result<Empty> {
        empty(
            self.0
                .close_stdin(&process_name(&request.container, &request.exec)),
        )
    }

    fn pause(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<Empty> {
        empty(self.0.freeze(&request.container, true))
    }

    fn resume(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<Empty> {
        empty(self.0.freeze(&request.container, false))
    }

    fn update(&self, _: &TtrpcContext, request: UpdateRequest) -> ttrpc::Result<Empty> {
        empty(self.0.update(&request))
    }

    fn pids(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<PidsResponse> {
        let mut response = PidsResponse::new();
        response.pids = self.0.pids(&request.container)?;
        Ok(response)
    }

    fn stats(&self, _: &TtrpcContext, request: ContainerRequest) -> ttrpc::Result<StatsResponse> {
        Ok(self.0.stats(&request.container)?)
    }

    fn events(&self, _: &TtrpcContext, request: EventsRequest) -> ttrpc::Result<EventsResponse> {
        let patience = Duration::from_millis(request.timeout_ms.into());
        let mut response = EventsResponse::new();
        response.events = self.0.events.after(request.after, patience);
        Ok(response)
    }

    fn configure_network(&self, _: &TtrpcContext, request: NetworkConfig) -> ttrpc::Result<Empty> {
        empty(network::configure(&request))
    }

    fn set_clock(&self, _: &TtrpcContext, request: SetClockRequest) -> ttrpc::Result<Empty> {
        empty(sandbox::set_clock(request.realtime_ns))
    }

    fn add_entropy(&self, _: &TtrpcContext, request: AddEntropyRequest) -> ttrpc::Result<Empty> {
        empty(sandbox::add_entropy(&request.bytes))
    }

    fn shutdown(&self, _: &TtrpcContext, _: Empty) -> ttrpc::Result<Empty> {
        self.0.end()
    }
}
