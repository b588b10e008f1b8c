//! What a machine is told before it starts.

use serde::{Deserialize, Serialize};

use crate::RawText;

/// Everything the machine's first process needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// The machine's host name.
    pub hostname: String,
    /// Tag of the virtio-fs device (virtio 1.2, section 5.11) that `/` is made of: it is only read,
    /// changes stay in the machine's memory.
    pub root: String,
    /// Directories of the host within the root, in the order they are mounted.
    pub directories: Vec<Directory>,
    /// The command to run.
    pub process: Process,
}

/// A virtio-fs device mounted below the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The device's tag.
    pub tag: String,
    /// Where it is mounted, an absolute path; made where it does not exist.
    pub path: RawText,
}

/// The command, exactly as it shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Program and arguments; the program is looked up in `env`'s `PATH` when it has no slash.
    pub args: Vec<RawText>,
    /// The whole environment, names and values.
    pub env: Vec<(RawText, RawText)>,
    /// Working directory.
    pub cwd: RawText,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MachineConfig {
        MachineConfig {
            hostname: "lab".into(),
            root: "root".into(),
            directories: vec![Directory {
                tag: "w0".into(),
                path: "/srv/data".into(),
            }],
            process: Process {
                args: vec!["echo".into(), "a \"b\"\n".into()],
                env: vec![("PATH".into(), "/bin".into())],
                cwd: "/".into(),
            },
        }
    }

    #[test]
    fn a_config_survives_json() {
        let json = serde_json::to_string(&config()).unwrap();
        assert_eq!(
            serde_json::from_str::<MachineConfig>(&json).unwrap(),
            config()
        );
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let json = serde_json::to_string(&config())
            .unwrap()
            .replacen('{', "{\"x\":1,", 1);
        assert!(serde_json::from_str::<MachineConfig>(&json).is_err());
    }
}
