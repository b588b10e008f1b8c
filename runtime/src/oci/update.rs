//! `ringside update`: what a container may use from now on.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::OciError;
use super::lifecycle::in_state;
use super::state::StateRoot;
use super::status::Status;
use crate::options::UpdateOptions;

/// Bytes of a `resources` object at most.
const LONGEST: u64 = 1 << 20;
/// The period of `--cpus`, in microseconds.
const PERIOD: u64 = 100_000;

pub(super) fn update(root: &StateRoot, options: &UpdateOptions) -> Result<(), OciError> {
    let given = options.resources.as_deref().map(read).transpose()?;
    let resources = resources(given.unwrap_or_default(), options);
    if resources.is_empty() {
        return Err(OciError::usage(
            "nothing to change is given: --resources FILE, --memory SIZE, --cpus N, ...",
        ));
    }
    let allowed = [Status::Created, Status::Running, Status::Paused];
    let task = in_state(root, &options.id, "update", &allowed)?;
    task.update(Value::Object(resources).to_string().into_bytes())
}

fn read(path: &Path) -> Result<Map<String, Value>, OciError> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(LONGEST).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text))
    };
    read.map_err(OciError::file("read --resources", path))?;
    let malformed = |source| OciError::Malformed {
        path: path.to_owned(),
        source,
    };
    // Checked here, where the file is known by its name.
    serde_json::from_slice::<oci_spec::runtime::LinuxResources>(&text).map_err(malformed)?;
    serde_json::from_slice(&text).map_err(malformed)
}

/// The object with what the options say of single values (config-linux.md, "Control groups").
fn resources(mut given: Map<String, Value>, options: &UpdateOptions) -> Map<String, Value> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most 1024 processors of 100,000 microseconds"
    )]
    let quota = options
        .cpus
        .map(|cpus| (cpus * PERIOD as f64).round() as i64);
    let values = [
        ("memory", "limit", options.memory.map(Value::from)),
        (
            "memory",
            "reservation",
            options.memory_reservation.map(Value::from),
        ),
        ("memory", "swap", options.memory_swap.map(Value::from)),
        ("cpu", "quota", options.cpu_quota.or(quota).map(Value::from)),
        (
            "cpu",
            "period",
            options
                .cpu_period
                .or(quota.map(|_| PERIOD))
                .map(Value::from),
        ),
        ("cpu", "shares", options.cpu_share.map(Value::from)),
        ("cpu", "cpus", options.cpuset_cpus.clone().map(Value::from)),
        ("cpu", "mems", options.cpuset_mems.clone().map(Value::from)),
        ("pids", "limit", options.pids_limit.map(Value::from)),
    ];
    for (group, name, value) in values {
        if let Some(value) = value {
            let group = given.entry(group).or_insert_with(|| json!({}));
            if group.is_null() {
                *group = json!({});
            }
            group[name] = value;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_otherwise_of_single_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources");
        let object = json!({"memory": {"limit": 7, "reservation": 5}, "pids": null});
        std::fs::write(&path, object.to_string()).unwrap();
        let options = UpdateOptions {
            memory: Some(8),
            cpus: Some(1.5),
            pids_limit: Some(-1),
            ..UpdateOptions::default()
        };
        let all = resources(read(&path).unwrap(), &options);
        let expected = json!({
            "memory": {"limit": 8, "reservation": 5},
            "cpu": {"quota": 150_000, "period": 100_000},
            "pids": {"limit": -1}
        });
        assert_eq!(Value::Object(all), expected);
        std::fs::write(&path, "{\"memory\": 7}").unwrap();
        assert!(matches!(read(&path), Err(OciError::Malformed { .. })));
    }
}
