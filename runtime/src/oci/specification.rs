//! `ringside spec`: a config.json to begin with.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use oci_spec::runtime::Spec;

use super::OciError;

/// Writes it where there is none.
pub(super) fn write(bundle: &Path) -> Result<(), OciError> {
    let path = bundle.join("config.json");
    let mut text =
        serde_json::to_string_pretty(&Spec::default()).map_err(|source| OciError::Malformed {
            path: path.clone(),
            source,
        })?;
    text.push('\n');
    File::create_new(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(OciError::file("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_carried_out_and_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let spec = ringside_pod::spec::read(folder.path()).unwrap();
        ringside_pod::spec::plan(spec, "c", folder.path()).unwrap();
        assert!(write(folder.path()).is_err());
    }
}
