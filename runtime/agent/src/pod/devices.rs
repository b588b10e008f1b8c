//! Disks that a container gets as devices: the guest's kernel chose their numbers, the host did not know them.

use serde_json::Value;

/// Gives the device at `path` of a specification these numbers, in `linux.devices` and in the rules of
/// `linux.resources.devices` that were about it.
pub(super) fn set_numbers(spec: &mut Value, path: &str, (major, minor): (u32, u32)) {
    let linux = &mut spec["linux"];
    let Some(Value::Array(devices)) = linux.get_mut("devices") else {
        return;
    };
    let Some(device) = devices.iter_mut().find(|device| device["path"] == path) else {
        return;
    };
    let was = (device["major"].clone(), device["minor"].clone());
    device["major"] = major.into();
    device["minor"] = minor.into();
    let rules = linux.pointer_mut("/resources/devices");
    for rule in rules.and_then(Value::as_array_mut).into_iter().flatten() {
        if rule["type"] == "b" && rule["major"] == was.0 && rule["minor"] == was.1 {
            rule["major"] = major.into();
            rule["minor"] = minor.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_and_its_rules_get_the_guests_numbers() {
        let mut spec = json!({"linux": {
            "devices": [{"path": "/dev/x", "type": "b", "major": 7, "minor": 3}, {"path": "/dev/y", "major": 7, "minor": 4}],
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "b", "major": 7, "minor": 3, "access": "rw"},
                {"allow": true, "type": "c", "major": 7, "minor": 3},
            ]},
        }});
        let mut other = spec.clone();
        set_numbers(&mut spec, "/dev/x", (254, 16));
        assert_eq!(spec["linux"]["devices"][0]["major"], 254);
        assert_eq!(spec["linux"]["devices"][0]["minor"], 16);
        assert_eq!(spec["linux"]["devices"][1]["minor"], 4);
        let rules = &spec["linux"]["resources"]["devices"];
        assert_eq!(
            (&rules[1]["major"], &rules[1]["minor"]),
            (&json!(254), &json!(16))
        );
        assert_eq!(rules[2]["major"], 7);
        let before = other.clone();
        set_numbers(&mut other, "/dev/z", (254, 16));
        assert_eq!(other, before);
    }
}
