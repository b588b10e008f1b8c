//! What the manifests say.

use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use crate::schema;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

fn load(path: impl AsRef<Path>) -> Yaml {
    let path = folder().join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut documents = YamlLoader::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1, "{path:?} holds one document");
    documents.remove(0)
}

const MANIFESTS: [&str; 6] = [
    "base/namespace.yaml",
    "base/runtimeclass.yaml",
    "base/installer.yaml",
    "base/kustomization.yaml",
    "remove/kustomization.yaml",
    "example.yaml",
];

#[test]
fn every_manifest_fits_the_schema() {
    let schemas = load("../tests/kubernetes-schema.yaml");
    for path in MANIFESTS {
        let manifest = load(path);
        let kind = manifest["kind"].as_str().unwrap();
        let wrong = schema::check(&manifest, &schemas[kind], path);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn no_manifest_is_left_out() {
    for part in ["base", "remove"] {
        let kustomization = load(format!("{part}/kustomization.yaml"));
        let resources = kustomization["resources"].as_vec().unwrap();
        for resource in resources.iter().map(|r| r.as_str().unwrap()) {
            assert!(folder().join(part).join(resource).exists(), "{resource}");
        }
        for entry in fs::read_dir(folder().join(part)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let named = resources.iter().any(|r| r.as_str() == Some(&name));
            assert!(
                named || name == "kustomization.yaml",
                "{part}/{name} is not named"
            );
            assert!(MANIFESTS.contains(&format!("{part}/{name}").as_str()));
        }
    }
}

#[test]
fn the_parts_name_each_other() {
    let class = load("base/runtimeclass.yaml");
    let installer = load("base/installer.yaml");
    let example = load("example.yaml");
    let snippet = folder().join("../containerd/ringside.toml");
    let snippet: toml::Table = toml::from_str(&fs::read_to_string(snippet).unwrap()).unwrap();
    let runtimes = &snippet["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"];
    let handler = class["handler"].as_str().unwrap();
    assert!(
        runtimes.get(handler).is_some(),
        "no runtime {handler} in {runtimes:?}"
    );
    assert_eq!(
        example["spec"]["runtimeClassName"],
        class["metadata"]["name"]
    );
    // Pods go where the installer goes.
    let label = "ringside.io/runtime";
    let selected = &class["scheduling"]["nodeSelector"][label];
    let pod = &installer["spec"]["template"]["spec"];
    assert_eq!(
        (selected, selected.as_str()),
        (&pod["nodeSelector"][label], Some("true"))
    );
    let selector = &installer["spec"]["selector"]["matchLabels"];
    assert_eq!(
        selector,
        &installer["spec"]["template"]["metadata"]["labels"]
    );
    // Each mount has its volume, below where the script looks.
    let container = &pod["containers"][0];
    let node = container["env"][0]["value"].as_str().unwrap();
    for mount in container["volumeMounts"].as_vec().unwrap() {
        let volume = pod["volumes"].as_vec().unwrap().iter();
        let volume = volume
            .clone()
            .find(|volume| volume["name"] == mount["name"])
            .unwrap();
        let path = volume["hostPath"]["path"].as_str().unwrap();
        assert_eq!(
            mount["mountPath"].as_str().unwrap(),
            format!("{node}{path}")
        );
    }
    // What the example asks for is a pod's to ask for.
    let annotations = example["metadata"]["annotations"].as_hash().unwrap();
    let annotations = annotations
        .iter()
        .map(|(k, v)| (k.as_str().unwrap(), v.as_str().unwrap()));
    let settings = ringside_config::Settings::default();
    settings.with_annotations(annotations).unwrap();
}

#[test]
fn the_patch_meets_what_it_replaces() {
    let installer = load("base/installer.yaml");
    let patches = &load("remove/kustomization.yaml")["patches"];
    let patch = &patches[0];
    assert_eq!(patch["target"]["name"], installer["metadata"]["name"]);
    assert_eq!(patch["target"]["kind"], installer["kind"]);
    let operations = YamlLoader::load_from_str(patch["patch"].as_str().unwrap()).unwrap();
    let script = fs::read_to_string(folder().join("install.sh")).unwrap();
    for operation in operations[0].as_vec().unwrap() {
        assert_eq!(operation["op"].as_str(), Some("replace"));
        // JSON pointers (RFC 6901).
        let path = operation["path"].as_str().unwrap();
        let steps = path.split('/').skip(1);
        let found = steps.fold(&installer, |at, step| match step.parse::<usize>() {
            Ok(index) => &at[index],
            Err(_) => &at[step],
        });
        assert!(found.is_array(), "{path} is not there");
        let last = operation["value"].as_vec().unwrap().last().unwrap();
        let case = format!("\n{})", last.as_str().unwrap());
        assert!(script.contains(&case), "install.sh knows no {last:?}");
    }
}
