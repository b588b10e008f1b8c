//! `docs/vmm-api.yaml` says what there is, and nothing else.

use std::collections::BTreeSet;

use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use super::super::routes::ROUTES;
use super::*;

fn file() -> Yaml {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/vmm-api.yaml");
    let text = fs::read_to_string(path).unwrap();
    YamlLoader::load_from_str(&text).unwrap().remove(0)
}

fn keys(of: &Yaml) -> BTreeSet<String> {
    let hash = of.as_hash().unwrap();
    hash.keys()
        .map(|key| key.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_file_and_the_routes_agree() {
    let file = file();
    let mut described = BTreeSet::new();
    for path in keys(&file["paths"]) {
        for method in keys(&file["paths"][&*path]) {
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    assert_eq!(described, routes);
}

/// A value is as its schema says, and the schema knows each of its fields.
fn check(file: &Yaml, schema: &Yaml, value: &Value) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = reference
            .trim_start_matches("#/")
            .split('/')
            .fold(file, |node, name| &node[name]);
        assert!(!schema.is_badvalue(), "{reference} is not there");
        return check(file, schema, value);
    }
    let kind = schema["type"].as_str().unwrap();
    let fits = match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the file has a type {other}"),
    };
    assert!(fits, "{value} is no {kind}");
    if let Some(words) = schema["enum"].as_vec() {
        assert!(
            words.iter().any(|word| word.as_str() == value.as_str()),
            "{value}"
        );
    }
    for element in value.as_array().into_iter().flatten() {
        check(file, &schema["items"], element);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let property = &schema["properties"][&**name];
        assert!(!property.is_badvalue(), "{name} is not described");
        check(file, property, value);
    }
    for required in schema["required"].as_vec().into_iter().flatten() {
        assert!(
            value.get(required.as_str().unwrap()).is_some(),
            "{required:?} is missing"
        );
    }
}

#[test]
fn answers_are_as_described() {
    let file = file();
    let paths = &file["paths"];
    for (request, path, method, status) in [
        (
            "GET /v1/info HTTP/1.1\r\n\r\n".into(),
            "/v1/info",
            "get",
            "200",
        ),
        (
            "GET /v1/devices HTTP/1.1\r\n\r\n".into(),
            "/v1/devices",
            "get",
            "200",
        ),
        (
            post("/v1/devices", r#"{"fs": {"socket": "/a"}}"#),
            "/v1/devices",
            "post",
            "201",
        ),
        (
            post("/v1/devices", r#"{"fs": {"socket": "/a", "id": "taken"}}"#),
            "/v1/devices",
            "post",
            "409",
        ),
        (post("/v1/devices", "{}"), "/v1/devices", "post", "400"),
        (
            post("/v1/snapshot", r#"{"folder": "/a", "live": true}"#),
            "/v1/snapshot",
            "post",
            "200",
        ),
        (post("/v1/snapshot", "{}"), "/v1/snapshot", "post", "400"),
        (
            "DELETE /v1/devices/none HTTP/1.1\r\n\r\n".into(),
            "/v1/devices/{id}",
            "delete",
            "404",
        ),
    ] {
        let (answered, _) = ask(&request);
        assert!(
            answered.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answered}"
        );
        let body = answered.split_once("\r\n\r\n").unwrap().1;
        let mut response = &paths[path][method]["responses"][status];
        if let Some(reference) = response["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            response = &file["components"]["responses"][name];
        }
        let schema = &response["content"]["application/json"]["schema"];
        check(&file, schema, &serde_json::from_str(body).unwrap());
    }
    for path in [
        "/v1/pause",
        "/v1/resume",
        "/v1/shutdown",
        "/v1/reset",
        "/v1/quit",
    ] {
        let (answered, _) = ask(&post(path, ""));
        let status = &answered["HTTP/1.1 ".len()..][..3];
        assert!(
            !paths[path]["post"]["responses"][status].is_badvalue(),
            "{path}: {status}"
        );
    }
}

/// Each property of each device that the file names is taken, and no other.
#[test]
fn new_devices_have_the_described_properties() {
    let file = file();
    let kinds = &file["components"]["schemas"]["NewDevice"]["properties"];
    for kind in keys(kinds) {
        let described = keys(&kinds[&*kind]["properties"]);
        for name in [
            "socket",
            "id",
            "queues",
            "queue-size",
            "mac",
            "tag",
            "cid",
            "x",
        ] {
            let value = match name {
                "mac" => Value::from("02:00:00:00:00:01"),
                "queues" | "queue-size" | "cid" => Value::from(4),
                _ => Value::from("a"),
            };
            let mut device = serde_json::json!({ "socket": "/a" });
            device[name] = value;
            let body = serde_json::json!({ &*kind: device }).to_string();
            let (answered, _) = ask(&post("/v1/devices", &body));
            let taken = answered.starts_with("HTTP/1.1 201 ");
            assert_eq!(taken, described.contains(name), "{kind} {name}: {answered}");
        }
    }
}
