//! The pod that a run is: one machine, one container.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use ringside_config::{Config as Configuration, Count};
use ringside_pod::{Files, HypervisorChoice as PodHypervisor, PodConfig, PodDisk, TapNetwork};

use super::Config;
use super::command::{self, ROOT_SERIAL};
use super::directory::RunDirectory;
use super::ordinary_user;
use super::root::Root;
use crate::network::{GUEST_ADDRESS, GUEST_MAC, HOST_ADDRESS, MTU, PREFIX};
use crate::options::HypervisorChoice;

/// With the value `qemu` this variable lets QEMU serve the tap itself, to compare with the daemon.
const NETWORK_BY: &str = "RINGSIDE_NET_BY";

/// Queues of a disk: one for each processor up to this many.
const MOST_QUEUES: u8 = 4;

/// The pod's directory in the run's.
const POD: &str = "pod";

/// The guest's interface on the run's tap.
pub(super) fn tap(queues: Vec<OwnedFd>) -> TapNetwork {
    TapNetwork {
        queues: Arc::new(queues),
        mac: GUEST_MAC.to_owned(),
        mtu: MTU,
        address: format!("{GUEST_ADDRESS}/{PREFIX}"),
        gateway: HOST_ADDRESS.to_string(),
        by_hypervisor: std::env::var_os(NETWORK_BY).is_some_and(|who| who == "qemu"),
    }
}

pub(super) fn pod_config(
    config: &Config,
    directory: &RunDirectory,
    root: &Root,
    tap: Option<TapNetwork>,
) -> Result<PodConfig> {
    let (files, root_disk) = match root {
        Root::Directory(shared) => (Files::Directory(shared.clone()), None),
        Root::Image(image) => (Files::Nothing, Some(image.as_path())),
        Root::Temporary(image) => (Files::Nothing, Some(&**image)),
    };
    let root_disk = root_disk.map(|image| PodDisk {
        serial: ROOT_SERIAL.to_owned(),
        image: image.to_owned(),
        read_only: false,
    });
    let data_disks = config
        .disks
        .iter()
        .enumerate()
        .map(|(index, disk)| PodDisk {
            serial: command::disk_serial(index),
            image: disk.image.clone(),
            read_only: disk.read_only,
        });
    let metrics = config.metrics_directory.as_deref();
    let mut configuration = Configuration::default();
    configuration
        .virtiofs
        .options
        .extend(ordinary_user::id_maps());
    configuration.block.queues = Count::new(config.cpus.min(MOST_QUEUES).into());
    Ok(PodConfig {
        name: POD.to_owned(),
        root: directory.path().to_owned(),
        hostname: "ringside".to_owned(),
        cpus: config.cpus,
        memory: config.memory.0,
        hypervisor: match config.hypervisor {
            HypervisorChoice::Auto => PodHypervisor::Auto,
            HypervisorChoice::Vmm => PodHypervisor::Ringside,
            HypervisorChoice::Qemu => PodHypervisor::Qemu,
        },
        storages: command::storages(&files, config.disks.len()),
        files,
        network_namespace: None,
        tap,
        disks: root_disk.into_iter().chain(data_disks).collect(),
        sysctls: BTreeMap::new(),
        // What a run's daemons did is told at once.
        restart: false,
        configuration,
        logs: Some(directory.logs().to_owned()),
        metrics: metrics.map(prepare_metrics).transpose()?,
    })
}

fn prepare_metrics(directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("--metrics-dir {}: cannot make it", directory.display()))?;
    Ok(std::path::absolute(directory)?)
}
