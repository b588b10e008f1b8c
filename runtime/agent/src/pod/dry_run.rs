//! What a request comes to as far as it says so itself: nothing of the machine is touched. Read by the code that
//! serves requests; for `fuzz/`, which is no guest.

use protobuf::Message;
use ringside_netdev::rtnetlink::{Prefix, parse_mac};
use ringside_protocol::agent::{CreateContainerRequest, StartSandboxRequest};

use super::containers::check_name;
use super::error::{Error, Result};
use super::storage::options::Options;
use super::{device_rules, devices, sandbox, spec, stdio};

/// Disks that a container gets have these numbers.
const NUMBERS: (u32, u32) = (254, 16);

/// The `config.json` that a `CreateContainerRequest` comes to, and how many instructions decide about its devices.
///
/// # Errors
/// As the host would be told.
pub fn create(message: &[u8]) -> std::result::Result<(String, usize), String> {
    created(message).map_err(|error| error.to_string())
}

fn created(message: &[u8]) -> Result<(String, usize)> {
    let request = CreateContainerRequest::parse_from_bytes(message)
        .map_err(|error| Error::invalid("request", error))?;
    check_name("container", &request.container)?;
    let (_, mut spec) = spec::read(&request.spec)?;
    let pod = spec::Pod {
        shared_pid_namespace: true,
        resolv_conf: true,
    };
    spec::adapt(&mut spec, &request.container, &pod);
    for volume in &request.volumes {
        devices::set_numbers(&mut spec, &volume.path, NUMBERS);
    }
    let program = device_rules::program_of(&spec)?.unwrap_or_default();
    for storage in &request.storages {
        let options = Options::parse(&storage.options);
        let _ = options
            .map_err(|why| Error::invalid("storages.options", why))?
            .data();
    }
    stdio::size(&request.window)?;
    Ok((spec.to_string(), program.len()))
}

/// The files of the settings that a `StartSandboxRequest` makes.
///
/// # Errors
/// As the host would be told.
pub fn start_sandbox(message: &[u8]) -> std::result::Result<Vec<std::path::PathBuf>, String> {
    let request = StartSandboxRequest::parse_from_bytes(message)
        .map_err(|error| Error::invalid("request", error).to_string())?;
    for interface in &request.network.interfaces {
        let _ = parse_mac(&interface.mac);
        for address in &interface.addresses {
            let _ = Prefix::parse(address);
        }
    }
    let paths = request
        .sysctls
        .keys()
        .map(|name| sandbox::sysctl_path(name));
    paths
        .collect::<Result<_>>()
        .map_err(|error| error.to_string())
}
