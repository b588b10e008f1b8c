//! Which module files a set of modules needs, in load order.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::tool::Tool;

const DEPMOD: Tool = Tool {
    program: "depmod",
    package: "kmod",
};

/// A kernel's `modules.dep`: every module file and what it needs (modules.dep(5)).
#[derive(Debug)]
pub struct ModuleIndex {
    /// `lib/modules/VERSION`.
    directory: PathBuf,
    /// Module name → its file.
    files: HashMap<String, String>,
    /// File → files it needs, nearest first.
    needs: HashMap<String, Vec<String>>,
}

impl ModuleIndex {
    /// Reads the index of `root/lib/modules/version`, having depmod make it first where a package
    /// was unpacked without being installed.
    ///
    /// # Errors
    /// When the index can be neither read nor made.
    pub fn read(root: &Path, version: &str) -> Result<Self, Error> {
        let directory = root.join("lib/modules").join(version);
        let path = directory.join("modules.dep");
        if !path.exists() {
            DEPMOD.output(|depmod| depmod.arg("-b").arg(root).arg(version))?;
        }
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        Ok(Self::parse(directory, &text))
    }

    fn parse(directory: PathBuf, text: &str) -> Self {
        let needs: HashMap<String, Vec<String>> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| {
                (
                    file.to_owned(),
                    needs.split_whitespace().map(str::to_owned).collect(),
                )
            })
            .collect();
        let files = needs
            .keys()
            .map(|file| (module_name(file), file.clone()))
            .collect();
        Self {
            directory,
            files,
            needs,
        }
    }

    /// The files to load for `modules`, each after what it needs and none twice. Modules that the
    /// kernel has built in, or does not have, are left out.
    ///
    /// # Errors
    /// When the index names a dependency that it does not list.
    pub fn load_order(&self, modules: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let mut seen = HashSet::new();
        let mut order = Vec::new();
        let wanted = modules
            .iter()
            .filter_map(|name| self.files.get(&module_name(name)));
        for file in wanted {
            // A line lists all that its module needs, directly or not, the first to load last.
            let needs = self.needs.get(file).map(Vec::as_slice).unwrap_or_default();
            for need in needs.iter().rev() {
                if !self.needs.contains_key(need) {
                    return Err(Error::BrokenDependency {
                        module: file.clone(),
                        dependency: need.clone(),
                    });
                }
                if need != file && seen.insert(need) {
                    order.push(self.directory.join(need));
                }
            }
            if seen.insert(file) {
                order.push(self.directory.join(file));
            }
        }
        Ok(order)
    }
}

/// The module's name in the kernel: the file's, without folder and endings, dashes as underscores.
fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split('.').next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/virtio.ko: kernel/virtio_ring.ko
kernel/virtio_ring.ko:
kernel/net/net_failover.ko: kernel/net/failover.ko
kernel/net/failover.ko:
kernel/net/virtio_net.ko.xz: kernel/net/net_failover.ko kernel/net/failover.ko kernel/virtio.ko kernel/virtio_ring.ko
kernel/virtio-rng.ko: kernel/virtio.ko kernel/virtio_ring.ko
kernel/broken.ko: kernel/gone.ko
";

    fn order(modules: &[&str]) -> Vec<String> {
        let index = ModuleIndex::parse("".into(), DEP);
        let order = index.load_order(modules).unwrap();
        order
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        assert_eq!(
            order(&["virtio_net", "virtio_rng"]),
            [
                "kernel/virtio_ring.ko",
                "kernel/virtio.ko",
                "kernel/net/failover.ko",
                "kernel/net/net_failover.ko",
                "kernel/net/virtio_net.ko.xz",
                "kernel/virtio-rng.ko",
            ]
        );
    }

    #[test]
    fn built_in_modules_are_left_out() {
        assert!(order(&["ext4"]).is_empty());
    }

    #[test]
    fn a_circle_ends() {
        let text = "a.ko: b.ko c.ko\nb.ko: c.ko a.ko\nc.ko: a.ko b.ko\n";
        let index = ModuleIndex::parse("".into(), text);
        assert_eq!(index.load_order(&["a", "b", "c"]).unwrap().len(), 3);
    }

    #[test]
    fn a_missing_dependency_is_named() {
        let index = ModuleIndex::parse("".into(), DEP);
        let error = index.load_order(&["broken"]).unwrap_err().to_string();
        assert!(
            error.contains("kernel/gone.ko") && error.contains("kernel/broken.ko"),
            "{error}"
        );
    }
}
